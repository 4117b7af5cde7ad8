import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { onTestFinished } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { startRedisServer } from '../support/find-redis.ts'
import { askTunnel } from '../support/forward-proxy.ts'
import {
  newFolder,
  startGateway,
  startServer,
  startUpstream,
  type TestGateway,
  type TestUpstream,
} from '../support/gateway.ts'
import { startTokenServer } from '../support/token-server.ts'
import { base, DAY_MS, Faults, KEY, NO_WAIT, send } from './faults.ts'

/** The gateways that share a Redis, each as Prometheus names it, and how to go on without that Redis. */
export interface Three {
  readonly gateways: readonly [TestGateway, TestGateway, TestGateway]
  /** Injects the faults, one after the other. */
  inject(): Promise<void>
  loseRedis(): Promise<void>
}

const soon = (ms: number): string => new Date(Date.now() + ms).toISOString()
const OTHER_KEY = { 'x-sluice-key': 'key-of-aging' }

/** Three gateways with one Redis, under load, and an upstream for each kind of trouble that calls can have. */
export async function startThree(faults: Faults): Promise<Three> {
  const redis = await startRedisServer()
  onTestFinished(() => redis.stop())
  const tokens = await startTokenServer()
  tokens.isUp = false
  const { url } = await startVendor()
  const upstreams = (shrunk: number): object => upstreamsAt(url, tokens.url, shrunk)
  const other = new URL(await startServer((_, response) => response.end()))
  const proxy = {
    port: 0,
    ca: join(newFolder(), 'ca'),
    ports: [Number(other.port)],
    networkAccess: { allowed: [other.hostname] },
  }
  const store = { kind: 'redis', url: redis.url, commandTimeout: '2s', onOutage: 'closed' }
  const config = (name: string, shrunk = 50): object =>
    base(upstreams(shrunk), {
      server: { port: 0, wrongKeys: { perAddress: 1_000_000, overall: 1_000_000 } },
      store,
      cache: { store: 'redis' },
      webhooks: { hook: { url: `${url}/hook`, privateAddresses: 'allow' } },
      ...(name === 'one' && { forwardProxy: proxy }),
      // No collector listens there.
      ...(name === 'two' && {
        telemetry: { traces: { endpoint: 'http://127.0.0.1:1', sample: '10%', timeout: '1s' } },
      }),
      log: { instance: name },
      clients: {
        bot: { keys: [hashKey('key-of-bot')] },
        aging: {
          keys: [{ hash: hashKey('key-of-aging'), label: 'CI', expires: soon(DAY_MS) }],
          budget: [{ requests: 1_000_000, window: '1h' }],
        },
        saver: { keys: [hashKey('key-of-saver')], team: 'research' },
        spender: { keys: [hashKey('key-of-spender')], team: 'ads' },
      },
      organisations: { acme: { budget: [{ amount: 2_000, unit: 'usd', window: '1h' }] } },
      teams: { research: { organisation: 'acme' }, ads: { budget: [{ requests: 20, window: '1h' }] } },
    })
  const names = ['one', 'two', 'three'] as const
  const [one, two, three] = await Promise.all([
    startGateway(config(names[0])),
    startGateway(config(names[1])),
    startGateway(config(names[2])),
  ])
  const gateways = [one, two, three] as const
  const load = new Faults()
  onTestFinished(() => load.end())
  return {
    gateways,
    async inject() {
      beginFaults(load, gateways)
      load.keepDoing(() => askTunnel(one.forwardProxyUrl!, other.host, 'key-of-bot'), 1_000)
      await makeLimitSmaller(gateways, (i) => config(names[i]!, 10))
    },
    async loseRedis() {
      // Calls that are refused at once would be too many of those that are made one after the other.
      await load.end()
      await redis.stop()
      faults.keepDoing(() => send(one, '/calm/x', KEY), 100)
      faults.keepDoing(() => send(two, '/cached/items/1', KEY), 100)
    },
  }
}

/** An upstream that does what the query of a call says. */
function startVendor(): Promise<TestUpstream> {
  return startUpstream(async ({ url, headers }, response) => {
    const asked = new URL(url, 'http://vendor').searchParams
    await pause(Number(asked.get('wait') ?? 0))
    const status = asked.get('status') ?? (headers['x-api-key'] === 'wrong' ? '401' : '200')
    // Others have used 80 of 100.
    const left = asked.has('others')
      ? { 'x-ratelimit-limit': '100', 'x-ratelimit-remaining': '15', 'x-ratelimit-reset': '5' }
      : {}
    const cache = url.startsWith('/items') ? { 'cache-control': 'max-age=60' } : {}
    response.writeHead(Number(status), { ...left, ...cache })
    response.end(asked.has('echo') ? JSON.stringify(headers) : '{}')
  })
}

function upstreamsAt(url: string, tokenUrl: string, shrunk: number): object {
  const open = { read: [], write: [] }
  const limited = (requests: number, window: string, rest: object = {}): object => ({
    read: [{ requests, window, ...rest }],
  })
  const patient = { breaker: { failures: 1_000_000 } }
  const key = (value: string, rest: object = {}) => ({ header: 'x-api-key', value, ...rest })
  const of = (limits: object, rest: object = {}): object => ({ url, accounts: { a: {} }, limits, ...rest })
  const withCredential = (credential: object): object => ({
    url,
    accounts: { a: { credential } },
    limits: open,
    ...patient,
  })
  return {
    calm: of(limited(10_000, '10s')),
    tight: of(limited(10, '3s')),
    running: of(limited(2_000, '1h')),
    queued: of(limited(20, '2s')),
    narrow: of(limited(10_000, '10s'), { concurrency: { read: { min: 1, max: 2 } } }),
    shadow: of(limited(2, '10s', { enforce: false })),
    foreign: of(limited(100, '10s')),
    priced: of(open, { price: { unit: 'usd', list: { default: { call: 1 } } } }),
    shrunk: of(limited(shrunk, '10m')),
    throttled: of(limited(100, '1s'), { throttle: { pause: '5ms' }, ...patient }),
    slow: of(open, { timeouts: { headers: '200ms' }, retry: { retries: 0 }, ...patient }),
    crowded: of(open, { connections: 1 }),
    broken: of(open, { retry: { retries: 0 }, ...patient }),
    dead: of(open, { retry: { retries: 0 }, breaker: { failures: 3, reset: '1h' } }),
    retried: of(open, { retry: { retries: 3, baseDelay: '1ms', maxDelay: '1ms', budget: '1%' }, ...patient }),
    cached: of(limited(10_000, '10s'), {
      routes: [{ method: ['GET', 'HEAD'], path: '/items*', class: 'read', cache: {} }],
    }),
    renewing: withCredential(key('right', { next: key('wrong'), canary: '50%' })),
    refused: withCredential(key('wrong')),
    scrubbed: withCredential(key('a-secret-of-the-vendor')),
    pooled: {
      url,
      accounts: { a: { credentials: [key('right', { name: 'right' }), key('wrong', { name: 'wrong' })] } },
      limits: open,
      ...patient,
    },
    expiring: {
      url,
      limits: open,
      accounts: {
        soon: { credential: key('x', { expires: soon(DAY_MS) }) },
        gone: { credential: key('y', { expires: soon(-DAY_MS) }) },
      },
    },
    tokenless: {
      url,
      limits: open,
      accounts: { a: { credential: { type: 'oauth2', tokenUrl, clientId: 'id', clientSecret: 'secret' } } },
    },
  }
}

/** Injects one fault after the other, each at all three gateways in turn. */
function beginFaults(load: Faults, gateways: readonly TestGateway[]): void {
  let turn = 0
  const at = (path: string, headers: Record<string, string>, everyMs: number, method?: string): void =>
    load.keepDoing(() => send(gateways[turn++ % gateways.length]!, path, headers, method), everyMs)
  at('/calm/x', OTHER_KEY, 100)
  at('/calm/x', KEY, 200)
  at('/tight/x', NO_WAIT, 90)
  at('/running/x', NO_WAIT, 200)
  // Ten a second are let through, so that each waits for about eight seconds.
  for (let i = 0; i < 80; i++) at('/queued/x', { ...KEY, 'x-sluice-max-wait': '30s' }, 100)
  for (let i = 0; i < 15; i++) at('/narrow/x?wait=200', KEY, 20)
  at('/shadow/x', KEY, 200)
  at('/foreign/x?others', KEY, 200)
  at('/priced/x', { 'x-sluice-key': 'key-of-saver' }, 200)
  at('/priced/x', { 'x-sluice-key': 'key-of-spender' }, 200)
  at('/throttled/x?status=429', NO_WAIT, 100)
  at('/slow/x?wait=400', KEY, 100)
  at('/slow/x?wait=100', KEY, 100)
  for (let i = 0; i < 6; i++) at('/crowded/x?wait=200', KEY, 20)
  at('/broken/x?status=500', KEY, 100, 'POST')
  at('/dead/x?status=503', KEY, 100)
  at('/retried/x?status=503', KEY, 100)
  at('/cached/items/1', KEY, 200)
  at('/renewing/x', KEY, 200)
  at('/refused/x', KEY, 100)
  at('/scrubbed/x?echo', KEY, 200)
  at('/pooled/x', KEY, 200)
  at('/tokenless/x', KEY, 100)
  at('/broken/x', { 'x-sluice-key': 'nobody' }, 90)
}

/** Spends more of a limit than it allows by the configuration that is in force from now on. */
async function makeLimitSmaller(gateways: readonly TestGateway[], config: (i: number) => object): Promise<void> {
  for (let call = 0; call < 40; call++) await send(gateways[call % 3]!, '/shrunk/x', NO_WAIT)
  await Promise.all(gateways.map((gateway, i) => gateway.reloadWith(config(i))))
}
