import { setTimeout as pause } from 'node:timers/promises'
import { beforeAll, describe, expect, it } from 'vitest'
import { checkConfig } from '../../../src/config/load.ts'
import { createLog } from '../../../src/observe/log.ts'
import { runGateway } from '../../../src/process/run.ts'
import { FaultProxy } from '../../support/fault-proxy.ts'
import { readmeTable } from '../../support/readme.ts'
import { SimulatedClock, stepUntilDone } from '../../support/simulated-clock.ts'
import { temporaryFolder } from '../../support/temporary-folder.ts'
import { makeCall, type Seen, startFaultUpstream } from './calls.ts'
import { type Fate, KINDS, type Row, UPSTREAM_FAULTS } from './table.ts'

interface Result {
  readonly seen: Seen
  readonly arrivals: number
  readonly metrics: string
}

const results = new Map<string, Result>()
let metrics = ''

/** All cells at once, each by an upstream and a line of its own: what waits for a timeout waits together. */
beforeAll(async () => {
  const upstream = await startFaultUpstream()
  const folder = temporaryFolder('faults')
  const proxies: FaultProxy[] = []
  const upstreams: Record<string, object> = {}
  for (const [i, { fault }] of UPSTREAM_FAULTS.entries()) {
    for (const [j] of KINDS.entries()) {
      const proxy = fault === undefined ? undefined : await FaultProxy.start({ target: upstream.url })
      proxy?.set(fault, 1)
      if (proxy !== undefined) proxies.push(proxy)
      upstreams[nameOf(i, j)] = upstreamAt(proxy?.url ?? 'http://127.0.0.1:9')
    }
  }
  const config = { server: { port: 0, drain: '0s' }, admin: { port: 0 }, store: { dir: folder.path }, upstreams }
  const clock = new SimulatedClock()
  const log = createLog({ level: 'silent', format: 'json' })
  const gateway = await runGateway(checkConfig(config, 'test'), { log, clock })
  const cells = UPSTREAM_FAULTS.flatMap((row, i) =>
    KINDS.map(async (kind, j) => {
      const path = `/${row.name}/${kind}`.replaceAll(' ', '-')
      const seen = await makeCall(kind, `${gateway.url}/${nameOf(i, j)}${path}`)
      results.set(path, { seen, arrivals: upstream.arrivals.get(path) ?? 0, metrics: '' })
    }),
  )
  await stepUntilDone(clock, Promise.all(cells))
  // What a call holds is given back a moment after its client has seen its end.
  const held = /^sluice_(?:in_flight|queue_depth|connection_waiting|websockets)\{.*\} [1-9]/m
  for (let i = 0; i < 300; i++) {
    metrics = await (await fetch(`${gateway.adminUrl}/metrics`)).text()
    if (!held.test(metrics)) break
    await pause(100)
  }
  for (const [path, result] of results) {
    results.set(path, { ...result, arrivals: upstream.arrivals.get(path) ?? 0 })
  }
  await stepUntilDone(clock, gateway.stop())
  await Promise.all(proxies.map((proxy) => proxy.stop()))
  upstream.stop()
  folder.remove()
})

describe.each(UPSTREAM_FAULTS)('with $name between gateway and upstream', (row) => {
  it.each(KINDS)('a %s ends as the table says', (kind) => {
    const { seen, arrivals } = results.get(`/${row.name}/${kind}`.replaceAll(' ', '-'))!
    expect({ fate: fateOf(seen, row, arrivals), arrivals, seen }).toEqual({
      fate: row.fates[kind],
      arrivals: arrivalsOf(row.fates[kind], row),
      seen,
    })
  })
})

describe('the table of faults', () => {
  it('is the README’s', () => {
    const documented = readmeTable('between gateway and upstream').map((cells) => Object.values(cells))
    expect(documented).toEqual(UPSTREAM_FAULTS.map(({ name, fates }) => [name, ...KINDS.map((kind) => fates[kind])]))
  })

  it('retries no POST', () => {
    const retried = UPSTREAM_FAULTS.filter((row) => row.fates.POST === 'retried')
    expect(retried).toEqual([])
  })

  it('leaves no permit, place, or WebSocket behind', () => {
    expect(metrics).toMatch(/^sluice_in_flight\{.*\} 0$/m)
    expect(metrics.match(/^sluice_(?:in_flight|queue_depth|connection_waiting|websockets)\{.*\} [1-9].*$/gm)).toBeNull()
  })
})

function nameOf(row: number, kind: number): string {
  return `fault-${row}-${kind}`
}

function upstreamAt(url: string): object {
  return {
    url,
    accounts: { main: {} },
    limits: { read: [{ requests: 100, window: '60s' }], write: [{ requests: 100, window: '60s' }] },
    retry: { retries: 1, baseDelay: '1ms', maxDelay: '1ms' },
    // The clock is stepped so slowly that a busy machine needs less, where nothing is wrong.
    timeouts: { headers: '4s', idle: '4s', total: '60s' },
  }
}

function fateOf(seen: Seen, { arrives }: Row, arrivals: number): Fate | Seen {
  switch (seen.kind) {
    case 'answered':
      return arrivals > 1 || !arrives ? 'retried' : 'answered'
    case 'refused':
      return seen.error as Fate
    case 'wrong':
      return seen
    default:
      return seen.kind
  }
}

function arrivalsOf(fate: Fate, { arrives }: Row): number {
  const first = arrives ? 1 : 0
  return fate === 'retried' ? first + 1 : first
}
