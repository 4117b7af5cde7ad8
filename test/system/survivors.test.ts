import { expect, it, onTestFinished } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { startServer, stores } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { keptAlive, sendMany, startWithInspector, type Survivors } from '../support/survivors.ts'

/**
 * The most bytes that a finished call may leave in V8's old generation, on average. A gateway that holds live calls in a
 * `Set` leaves more (see `Roster`). It is not 0, because a call that is still under way at a collection counts, too.
 */
const MOST_BYTES = 4_000
const CALLS = 400
/**
 * The calls go to few paths. The warm-up meets each of them, so nothing that is kept per path is new when it is measured.
 * There are more paths than connections. So calls under way together rarely ask for the same one and share its answer.
 */
const PATHS = 64

const LIMIT = [{ requests: 4_000_000_000, window: '60s' }]
const SPENT = { limits: { read: [{ requests: 1, window: '1h' }] }, queue: { maxWait: '0s' } }
interface Case {
  readonly status: number
  readonly path?: string
  readonly upstream?: object
  readonly route?: object
}
const PLAIN: Record<string, Case> = {
  'a plain call': { status: 200 },
  'a call that misses the cache': { status: 200, path: '/stale', route: { cache: { private: true } } },
  'a refusal': { status: 429, upstream: SPENT },
}
const CASES: Record<keyof typeof stores, Record<string, Case>> = {
  'the embedded store': {
    ...PLAIN,
    'a call with a long answer': { status: 200, path: '/long' },
    'a call that waits': { status: 200, upstream: { concurrency: { read: 4 } } },
  },
  Redis: PLAIN,
}

it.each(Object.keys(CASES) as (keyof typeof stores)[])(
  "a finished call leaves almost nothing in V8's old generation: %s",
  async (store) => {
    const url = await startServer((request, response) => {
      response.setHeader('Cache-Control', 'max-age=0')
      response.end('x'.repeat(request.url!.startsWith('/long') ? 50_000 : 300))
    })
    const cases = Object.entries(CASES[store])
    const gateway = await startWithInspector({
      server: { port: 0 },
      admin: { port: 0 },
      store: stores[store](),
      cache: { store: 'memory' },
      upstreams: Object.fromEntries(
        cases.map(([, { upstream, route }], i) => {
          const routes = [{ path: '/*', class: 'read', ...route }]
          const accounts = { main: { credential: { value: 'secret-of-the-vendor' } } }
          return [`u${i}`, { url, accounts, routes, limits: { read: LIMIT }, ...upstream }]
        }),
      ),
      clients: { tester: { keys: [hashKey('key-of-the-tester')] } },
    })
    const headers = { 'x-sluice-key': 'key-of-the-tester' }
    const agent = keptAlive()
    onTestFinished(() => agent.destroy())
    const tooMany: Record<string, Survivors> = {}
    for (const [i, [name, { status, path = '/item' }]] of cases.entries()) {
      // The first call uses the quota up, so that the measured ones are refused.
      if (status === 429) await call(gateway.url, `/u${i}/item`, { headers })
      const requestOf = (number: number) => ({ path: `/u${i}${path}/${number % PATHS}`, headers })
      const found = await gateway.survivorsOf(CALLS, (calls) => sendMany(agent, gateway.url, calls, status, requestOf))
      if (found.bytesPerCall > MOST_BYTES) tooMany[name] = found
    }
    expect(tooMany).toEqual({})
  },
)
