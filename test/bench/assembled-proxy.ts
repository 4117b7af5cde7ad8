import httpProxy from '@fastify/http-proxy'
import rateLimit from '@fastify/rate-limit'
import Fastify from 'fastify'
import { Redis } from 'ioredis'
import CircuitBreaker from 'opossum'
import pino from 'pino'
import { Counter, Histogram, Registry } from 'prom-client'

/** The same job put together from the usual plugins, as a user would: limits on Redis, breaker, metrics, access log. */
const registry = new Registry()
const labelNames = ['method', 'status'] as const
const requests = new Counter({ name: 'requests_total', help: 'requests', labelNames, registers: [registry] })
const durations = new Histogram({ name: 'duration_seconds', help: 'duration', labelNames, registers: [registry] })

const app = Fastify({ loggerInstance: pino(pino.destination({ dest: '/dev/null', sync: false, minLength: 4096 })) })
const redis = new Redis(process.env['REDIS_URL'] as string)
await app.register(rateLimit, { max: 1_000_000_000, timeWindow: 60_000, redis, keyGenerator: () => 'prod' })

const breaker = new CircuitBreaker((ended: Promise<number>) => ended, { timeout: 60_000, resetTimeout: 60_000 })
app.addHook('onRequest', (_, reply, done) => {
  const ended = new Promise<number>((resolve, reject) => {
    reply.raw.once('close', () => (reply.statusCode < 500 ? resolve(reply.statusCode) : reject(new Error('failed'))))
  })
  breaker.fire(ended).catch(() => undefined)
  done(breaker.opened ? new Error('open') : undefined)
})
app.addHook('onResponse', (request, reply, done) => {
  const labels = { method: request.method, status: String(reply.statusCode) }
  requests.inc(labels)
  durations.observe(labels, reply.elapsedTime / 1_000)
  done()
})
await app.register(httpProxy, {
  upstream: process.env['UPSTREAM'] as string,
  prefix: '/harness',
  replyOptions: { rewriteRequestHeaders: (_, headers) => ({ ...headers, 'x-api-key': 'pat.acct1234.token.secret' }) },
})
process.send?.({ url: await app.listen({ host: '127.0.0.1', port: 0 }) })
