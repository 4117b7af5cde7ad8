import httpProxy from '@fastify/http-proxy'
import Fastify from 'fastify'

/** `@fastify/http-proxy` as it comes. */
const app = Fastify()
await app.register(httpProxy, { upstream: process.env['UPSTREAM'] as string, prefix: '/harness' })
process.send?.({ url: await app.listen({ host: '127.0.0.1', port: 0 }) })
