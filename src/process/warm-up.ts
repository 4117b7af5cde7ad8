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

/** After more, the first call is as fast as after these, and the gateway is ready later. */
const CALLS = 8
/** A gateway that starts late would be worse than one whose first call is slow. */
const WITHIN_MS = 2_000
/** Exclusive, because otherwise the workers of a cluster would share this port with one another and with the real listener. */
const PRIVATE = { host: '127.0.0.1', port: 0, exclusive: true }
const KEY = 'warm-up'
const BODY = '{"data":["any"]}'

let warmedUp: Promise<void> | undefined

/**
 * Runs the code of a call before the first call comes. Without this the first call of a process would take much longer than later
 * ones: its code has never run, and the default trusted certificates have not been read. The calls go through a private gateway to
 * a private upstream. Both are in this process, on loopback, and closed when this resolves. So nothing reaches a vendor, the
 * quotas, the metrics or the log. Runs once in each process. Never rejects: if it fails, the first calls are slower.
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
    // This fails where loopback has no free port, for example.
  } finally {
    clearTimeout(timer)
    upstream.closeAllConnections()
    await upstream[Symbol.asyncDispose]().catch(() => undefined)
  }
}

/** Sends calls through a gateway like the real one, but with its own store, log and metrics. */
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
