import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { createSecureContext } from 'node:tls'
import pino from 'pino'
import { Pool } from '../packages/undici.ts'
import { createServer } from '../http/node-http.ts'
import { hashKey } from '../clients/keys.ts'
import { checkConfig } from '../config/load.ts'
import { LiveSnapshot } from '../gateway/live.ts'
import { MemoryLedger } from '../ledger/embedded/memory-ledger.ts'
import type { Log } from '../observe/log.ts'
import { Metrics } from '../observe/metrics.ts'
import { Usage } from '../usage/usage.ts'
import type { Config } from '../schema/schema.ts'
import { buildApp } from '../server/app.ts'
import { Proxy } from '../server/proxy.ts'
import { systemClock } from '../time/clock.ts'

/** After this many calls a call takes about as long as those after it. */
const CALLS = 20
/** A gateway that starts late would be worse than one whose first call is slow. */
const WITHIN_MS = 2_000
/** Exclusive, because the workers of a cluster would share such a port with one another, and with what really listens. */
const PRIVATE = { host: '127.0.0.1', port: 0, exclusive: true }
const KEY = 'warm-up'
const BODY = '{"data":["any"]}'

let warmedUp: Promise<void> | undefined

/**
 * Runs what a call runs before there is one: the first call of a process would take twenty times as long as those after it,
 * because its code has never run, and the certificates that are trusted by default have not been read. The calls go through a
 * gateway of their own to an upstream of their own, both on loopback, in this process, and closed when this resolves. So nothing
 * of it reaches a vendor, or the quotas, the metrics and the log. Once a process, for all that run in it. Never rejects: a
 * gateway that can't do it is slower at first.
 */
export function warmUp(config: Config, withinMs = WITHIN_MS): Promise<void> {
  return (warmedUp ??= warmUpNow(config, withinMs))
}

async function warmUpNow({ upstreams }: Config, withinMs: number): Promise<void> {
  // Node reads the trusted certificates with the first TLS context, and keeps them.
  if (Object.values(upstreams).some(({ url }) => url?.startsWith('https:') === true)) createSecureContext()
  const upstream = createServer((request, response) => {
    request.resume()
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': BODY.length }).end(BODY)
  })
  const deadline = new AbortController()
  const timer = setTimeout(() => deadline.abort(), withinMs)
  try {
    upstream.listen(PRIVATE)
    await once(upstream, 'listening', { signal: deadline.signal })
    await callGateway(`http://127.0.0.1:${(upstream.address() as AddressInfo).port}`, deadline.signal)
  } catch {
    // Such as where loopback has no port to give.
  } finally {
    clearTimeout(timer)
    upstream.closeAllConnections()
    await upstream[Symbol.asyncDispose]().catch(() => undefined)
  }
}

/** Sends calls through a gateway that has all that the real one has, but its store, its log, and its metrics. */
async function callGateway(upstreamUrl: string, signal: AbortSignal): Promise<void> {
  const [clock, random] = [systemClock, Math.random]
  const metrics = new Metrics(undefined, { hasProcess: false })
  const logger = pino({ level: 'silent' })
  const log: Log = {
    logger,
    access: () => undefined,
    onDropped: () => undefined,
    flush: () => undefined,
    close: () => Promise.resolve(),
  }
  const config = checkConfig(
    {
      server: { port: 0 },
      upstreams: {
        any: {
          url: upstreamUrl,
          accounts: { any: { credential: { value: 'any' } } },
          limits: { read: [{ requests: 1_000, window: '60s' }], write: [{ requests: 1_000, window: '60s' }] },
          retry: { retries: 0 },
        },
      },
      clients: { any: { keys: [hashKey(KEY)] } },
    },
    'warm-up',
  )
  const ledger = new MemoryLedger(clock)
  const parts = { clock, random, metrics, usage: new Usage({ metrics, clock }) }
  const live = new LiveSnapshot(config, { ...parts, logger, ledger, onBreakerChange: () => undefined })
  const app = buildApp(new Proxy({ ...parts, snapshot: () => live.current, log }), config.server)
  try {
    const client = new Pool(await app.listen(PRIVATE))
    try {
      const headers = { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' }
      for (let n = 0; n < CALLS; n++) {
        const request = n % 4 === 3 ? ({ method: 'POST', body: BODY } as const) : ({ method: 'GET' } as const)
        const { body } = await client.request({ path: '/any/path?any=query', headers, signal, ...request })
        await body.dump()
      }
    } finally {
      await client.destroy()
    }
  } finally {
    app.server.closeAllConnections()
    await app.close()
    await live.close()
    await ledger.close()
  }
}
