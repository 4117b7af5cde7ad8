import { describe, expect, it } from 'vitest'
import { parseConfig } from '../../src/config/load.ts'
import { presets } from '../../src/config/presets/index.ts'
import { buildSnapshot, closeSnapshot, type Services } from '../../src/gateway/snapshot.ts'
import { systemClock } from '../../src/time/clock.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { problemsIn } from '../support/load-config.ts'
import { README } from '../support/readme.ts'

const API = `{ url: 'http://127.0.0.1:1', accounts: { main: {} }, limits: { read: [], write: [] }`

describe('a configuration of the cache is refused', () => {
  it.each([
    [`cache: { store: redis }\nupstreams: { x: ${API} } }`, /cache\.store: .*store\.kind is redis/],
    [
      `store: { kind: redis, url: 'redis://x' }\ncache: { store: redis, maxBytes: 100000 }\nupstreams: { x: ${API} } }`,
      /cache\.maxBytes: .*memory/,
    ],
    [`cache: { maxBytes: 65536, maxEntryBytes: 65537 }\nupstreams: { x: ${API} } }`, /cache\.maxEntryBytes: .*larger/],
    [`upstreams: { x: ${API}, routes: [{ method: POST, path: /a, class: read, cache: true }] } }`, /cache: .*GET/],
    [`upstreams: { x: ${API}, cache: { routes: proposed } } }`, /cache\.routes: nothing is proposed/],
    [`upstreams: { x: ${API}, routes: [{ path: /a, class: read, cache: yes please }] } }`, /cache: .*true, false, or/],
    [
      `upstreams: { x: ${API}, routes: [{ path: /a, class: read, cache: { freshFor: 10 } }] } }`,
      /cache\.freshFor: must be a duration/,
    ],
    [`upstreams: { x: ${API}, cache: { staleOn: [always] } } }`, /staleOn/],
    [`upstreams: { x: ${API}, cache: { fresh: 10s } } }`, /fresh/],
  ])('where it contradicts itself: %s', (text, message) => {
    const problems = problemsIn(text)
    expect(problems).toHaveLength(1)
    expect(problems[0]).toMatch(message)
    expect(problems[0]).toMatch(/:\d+:\d+/)
  })
})

describe('what is cached', () => {
  async function withRoutes<T>(
    text: string,
    look: (cacheOf: (method: string, path: string) => unknown) => T,
  ): Promise<T> {
    const services = {
      clock: systemClock,
      random: Math.random,
      ledger: new MemoryLedger(systemClock),
      metrics: new Metrics(),
      onBreakerChange: () => undefined,
    } as unknown as Services
    const snapshot = buildSnapshot(parseConfig(text, { env: { TOKEN: 'token' } }), services)
    try {
      const [upstream] = snapshot.upstreams.values()
      return look((method, path) => upstream!.routes.find(method, path).cache)
    } finally {
      await closeSnapshot(snapshot)
    }
  }

  it('is nothing unless a route or the upstream says so, whatever the preset', async () => {
    const accounts = `accounts: { main: { id: x, credential: { value: key } } }`
    for (const name of Object.keys(presets)) {
      const url = presets[name]!.config['url'] === undefined ? `url: 'https://x.example', ` : ''
      await withRoutes(`upstreams: { x: { preset: ${name}, ${url}${accounts} } }`, (cacheOf) => {
        for (const path of ['/', '/ng/api/projects', '/repos/a/b', '/users']) expect(cacheOf('GET', path)).toBeFalsy()
      })
    }
  })

  it('is what the preset proposes where that is wished, and not what a route takes out', () =>
    withRoutes(
      `upstreams:
  x:
    preset: harness
    accounts: { main: { id: x, credential: { value: key } } }
    cache: { routes: proposed, scope: account }
    routes: [{ method: GET, path: /ng/api/projects/secret, class: read, cache: false }]`,
      (cacheOf) => {
        expect(cacheOf('GET', '/ng/api/projects')).toMatchObject({ scope: 'account', freshForMs: 10_000 })
        expect(cacheOf('HEAD', '/template/api/templates/x')).toMatchObject({ freshForMs: 30_000 })
        expect(cacheOf('POST', '/ng/api/projects')).toBeUndefined()
        expect(cacheOf('GET', '/pipeline/api/pipelines/execution/x')).toBeUndefined()
        expect(cacheOf('GET', '/ng/api/projects/secret')).toBe(false)
      },
    ))

  it('is read from the README’s example as it stands', () => {
    const [, block = ''] = /^# Cache\n[^]*?```yml\n([^]*?)```/m.exec(README) ?? []
    const text = block
      .replace(
        '  tickets:\n',
        `  tickets:\n    url: https://x.example\n    accounts: { main: {} }\n    limits: { read: [] }\n`,
      )
      .replace('preset: github\n', 'preset: github\n    accounts: { main: {} }\n')
    const { cache, upstreams } = parseConfig(text, { env: {} })
    expect(cache).toEqual({ store: 'memory', maxBytes: 67_108_864, maxEntryBytes: 1_048_576 })
    expect(upstreams['tickets']!.routes.map(({ cache }) => cache)).toEqual([true, false])
    expect(upstreams['github']!.cache).toEqual({ routes: 'proposed' })
  })
})
