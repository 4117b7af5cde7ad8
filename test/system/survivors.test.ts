import { expect, it, onTestFinished } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { startServer, stores } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { keptAlive, sendMany, startWithInspector, type Survivors } from '../support/survivors.ts'

/**
 * With live calls in a Set it was 5,300 bytes for a plain call, and up to 9,900 for others; without, at most 1,700. A single call
 * that is still under way at a collection counts, too.
 */
const MOST_BYTES = 4_000
const CALLS = 400

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
  'a call that the cache has not': { status: 200, path: '/stale', route: { cache: { private: true } } },
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
  'nothing of a call that is over reaches the old generation: %s',
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
      // The first one uses the quota up.
      if (status === 429) await call(gateway.url, `/u${i}/item`, { headers })
      const requestOf = (number: number) => ({ path: `/u${i}${path}/${number % 64}`, headers })
      const found = await gateway.survivorsOf(CALLS, (calls) => sendMany(agent, gateway.url, calls, status, requestOf))
      if (found.bytesPerCall > MOST_BYTES) tooMany[name] = found
    }
    expect(tooMany).toEqual({})
  },
)
