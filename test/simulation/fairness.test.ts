import { describe, expect, it } from 'vitest'
import { PRIORITIES } from '../../src/ledger/demand.ts'
import { admittedBetween, type FairnessCase, partsOf, simulateFairness, type Source, type Visit } from './fairness.ts'

const WEIGHTS = { a: 1, b: 1, c: 2, d: 4, greedy: 1 } as const
const SUM = 9

function client(name: string, weight = 1, share = 0) {
  return { name, weight, share, priority: 'interactive' } as const
}

interface Window {
  readonly requests: number
  readonly windowMs: number
}

/** Four clients at one gateway each, which want more than their due, and one at all of them that wants a hundred times its own. */
function contended(gateways: number, { requests, windowMs }: Window, mostWindows = 2): Source[] {
  const perSecond = requests / (windowMs / 1_000)
  const sources: Source[] = []
  for (const [i, [name, weight]] of Object.entries(WEIGHTS).entries()) {
    const due = (perSecond * weight) / SUM
    const at = name === 'greedy' ? Array.from({ length: gateways }, (_, gateway) => gateway) : [i % gateways]
    const callsPerSecond = name === 'greedy' ? (100 * due) / gateways : 1.15 * due
    for (const gateway of at) {
      sources.push({
        client: client(name, weight),
        gateway,
        load: { callsPerSecond },
        maxWaitMs: mostWindows * windowMs,
      })
    }
  }
  return sources
}

/** The same clients, with so many callers for each unit of weight, who come again as soon as they are answered. */
function returning(gateways: number, callers: number): Source[] {
  return Object.entries(WEIGHTS).flatMap(([name, weight], i) => {
    const at = name === 'greedy' ? Array.from({ length: gateways }, (_, gateway) => gateway) : [i % gateways]
    return at.map((gateway): Source => {
      return { client: client(name, weight), gateway, load: { callers: Math.ceil((callers * weight) / at.length) } }
    })
  })
}

/** The same, each at all gateways. */
function everywhere(gateways: number, callers: number): Source[] {
  return Object.entries(WEIGHTS).flatMap(([name, weight]) =>
    Array.from({ length: gateways }, (_, gateway): Source => {
      return { client: client(name, weight), gateway, load: { callers: Math.ceil((callers * weight) / gateways) } }
    }),
  )
}

function urgent(source: Source, i: number): Source {
  return { ...source, priority: PRIORITIES[i % PRIORITIES.length]! }
}

const window = { requests: 200, windowMs: 5_000 }
const burst = { requests: 90, windowMs: 5_000 }
const saturated: Omit<FairnessCase, 'gateways' | 'sources'> = {
  ...window,
  seed: 11,
  meanLatencyMs: 200,
  durationMs: 23 * 5_000,
}

const DEPLOYMENTS = [
  ['1 gateway', { gateways: 1 }],
  ['3 gateways', { gateways: 3 }],
  ['3 workers of one machine', { gateways: 3, areWorkers: true }],
] as const

describe.each(DEPLOYMENTS)('with %s', (_, deployment) => {
  it('each client gets its due within 5 % over twenty windows, whatever the greedy one asks for', async () => {
    const sources = contended(deployment.gateways, window)
    const outcome = await simulateFairness({ ...saturated, ...deployment, sources })
    const [fromMs, untilMs] = [2 * window.windowMs, 22 * window.windowMs]
    const parts = partsOf(outcome, fromMs, untilMs)
    for (const [name, weight] of Object.entries(WEIGHTS)) {
      expect(Math.abs(parts[name]! / (weight / SUM) - 1), `${name} got ${parts[name]}`).toBeLessThan(0.05)
    }
    expect(admittedBetween(outcome, fromMs, untilMs) / possible(20)).toBeGreaterThan(0.97)
    // Nobody waits longer than it said it would.
    const longest = Math.max(...outcome.visits.map(({ cameMs, endedMs }) => endedMs - cameMs))
    expect(longest).toBeLessThanOrEqual(2 * window.windowMs + 10)
  })
})

describe.each([1, 3])('with %i gateways', (gateways) => {
  it('19 of 20 calls start within 10 % or 250 ms of what was expected first', async () => {
    const minute = { requests: 300, windowMs: 60_000 }
    const sources = contended(gateways, minute)
    const { visits } = await simulateFairness({ ...saturated, ...minute, gateways, sources, durationMs: 15 * 60_000 })
    const waited = waitedOf(visits, 2 * minute.windowMs)
    expect(waited.length).toBeGreaterThan(3_000)
    expect(waited.filter(isAsExpected).length / waited.length).toBeGreaterThan(0.95)
  })

  // A place more or less may be a window more or less then: quota comes back as it was used, in bursts.
  it.each<[string, (gateways: number) => Source[]]>([
    ['of streams that wait for up to three windows', (gateways) => contended(gateways, burst, 3)],
    ['of callers that wait for three windows each time', (gateways) => returning(gateways, 30)],
    ['of callers that wait for two', (gateways) => returning(gateways, 20)],
    ['of clients that come to every gateway', (gateways) => everywhere(gateways, 24)],
    ['of calls of all priorities', (gateways) => returning(gateways, 22).map(urgent)],
  ])('so do 19 of 20 at a window of five seconds, %s', async (_, sources) => {
    for (const seed of [1, 2, 3, 4, 5]) {
      const { visits } = await simulateFairness({ ...saturated, ...burst, seed, gateways, sources: sources(gateways) })
      const waited = waitedOf(visits, 2 * burst.windowMs)
      expect(waited.length).toBeGreaterThan(1_400)
      expect(waited.filter(isAsExpected).length / waited.length, `seed ${seed}`).toBeGreaterThan(0.95)
    }
  })

  it('a share is a floor while it is wanted, and lent out while it is not', async () => {
    const sources: Source[] = [
      { client: client('guaranteed', 1, 0.6), gateway: 0, load: { callers: 150 }, fromMs: 40_000, untilMs: 80_000 },
      { client: client('other', 1), gateway: gateways - 1, load: { callers: 150 } },
      { client: client('third', 1), gateway: 0, load: { callers: 150 } },
    ]
    const outcome = await simulateFairness({ ...saturated, gateways, sources, durationMs: 150_000 })
    const part = (fromMs: number, untilMs: number) => partsOf(outcome, fromMs, untilMs)['guaranteed'] ?? 0
    expect(part(10_000, 40_000)).toBe(0)
    expect(part(46_000, 80_000)).toBeGreaterThan(0.57)
    expect(part(46_000, 80_000)).toBeLessThan(0.63)
    expect(admittedBetween(outcome, 10_000, 150_000) / possible(28)).toBeGreaterThan(0.97)
  })
})

it('whoever was served least is next, at whichever gateway, to within two rounds of all clients', async () => {
  const { visits } = await simulateFairness({ ...saturated, ...burst, gateways: 3, sources: returning(3, 20) })
  const served = Object.fromEntries(Object.keys(WEIGHTS).map((name) => [name, 0]))
  const admitted = visits.filter(({ cameMs }) => cameMs > 2 * burst.windowMs)
  const places: number[] = []
  for (const { client } of admitted) {
    places.push((served[client]! - Math.min(...Object.values(served))) * SUM)
    served[client]! += 1 / WEIGHTS[client as keyof typeof WEIGHTS]
  }
  places.sort((a, b) => a - b)
  expect(places[Math.floor(0.98 * places.length)]).toBeLessThan(2 * SUM)
})

it('the number of gateways that its clients use does not change a client’s part', async () => {
  const everywhere = [0, 1, 2, 3].map((gateway) => ({ client: client('many'), gateway, load: { callers: 50 } }))
  const sources: Source[] = [...everywhere, { client: client('one'), gateway: 0, load: { callers: 50 } }]
  const outcome = await simulateFairness({ ...saturated, gateways: 4, sources })
  expect(Math.abs(partsOf(outcome, 10_000, 110_000)['one']! - 0.5)).toBeLessThan(0.025)
})

it('what a gateway that died had waiting is left to nobody after five seconds', async () => {
  const sources: Source[] = [
    { client: client('alive'), gateway: 0, load: { callers: 100 } },
    { client: client('dead'), gateway: 1, load: { callers: 100 } },
  ]
  const crash = { gateway: 1, atMs: 40_000 }
  const outcome = await simulateFairness({ ...saturated, gateways: 2, sources, crash })
  // The calls that the dead one had in flight, and what it held in lease, come free with the window.
  const [fromMs, untilMs] = [40_000 + 5_000 + window.windowMs, 40_000 + 5_000 + 11 * window.windowMs]
  expect(admittedBetween(outcome, fromMs, untilMs) / possible(10)).toBeGreaterThan(0.97)
})

it('a call is not refused for calls that waited at another gateway minutes ago', async () => {
  const [requests, windowMs] = [16, 60_000]
  const sources: Source[] = [
    { client: client('any'), gateway: 1, load: { callers: 40 }, untilMs: 62_000 },
    // The last of these leaves while many wait at the other gateway.
    { client: client('any'), gateway: 0, load: { callsPerSecond: 1 }, untilMs: 62_000, maxWaitMs: 20_000 },
    // Now and then the limit is used up, and a call's turn is some seconds away.
    { client: client('any'), gateway: 0, load: { callsPerSecond: 0.2 }, fromMs: 300_000, maxWaitMs: windowMs },
  ]
  const outcome = await simulateFairness({
    ...saturated,
    requests,
    windowMs,
    gateways: 2,
    sources,
    durationMs: 900_000,
  })
  const later = outcome.visits.filter(({ cameMs }) => cameMs > 300_000)
  expect(later.some(({ cameMs, endedMs }) => endedMs > cameMs + 1_000)).toBe(true)
  expect(later.filter(({ kind }) => kind !== 'admitted')).toEqual([])
})

it('what a gateway cannot send, because too many of its calls are in flight, the others share', async () => {
  const sources = ['stuck', 'other', 'third'].map((name, gateway) => {
    return { client: client(name), gateway, load: { callers: 150 } }
  })
  const outcome = await simulateFairness({ ...saturated, ...burst, gateways: 3, sources, concurrency: [1] })
  const possibly = 20 * burst.requests * (burst.windowMs / (burst.windowMs + saturated.meanLatencyMs))
  expect(admittedBetween(outcome, 10_000, 110_000) / possibly).toBeGreaterThan(0.97)
  const { other, third } = partsOf(outcome, 10_000, 110_000)
  expect(Math.abs(other! / third! - 1)).toBeLessThan(0.05)
})

it('Redis runs at most three commands for each call that is admitted from a long queue', async () => {
  const few = await simulateFairness({ ...saturated, requests: 300, gateways: 3, sources: waiting(120) })
  const many = await simulateFairness({ ...saturated, requests: 300, gateways: 3, sources: waiting(1_000) })
  for (const { commands, visits } of [few, many]) {
    // Leases are renewed whether anybody waits or not.
    const { charges, commits, exchanges } = commands
    expect((charges + commits + exchanges) / visits.length).toBeLessThan(3)
  }
})

/** Calls that the ledger's guarantee allows in so many windows. */
function possible(windows: number): number {
  return windows * window.requests * (window.windowMs / (window.windowMs + saturated.meanLatencyMs))
}

function waiting(callers: number): Source[] {
  return [0, 1, 2].map((gateway) => ({ client: client('any'), gateway, load: { callers } }))
}

/** Those that came once the queue had filled, had to wait, and had their turn. */
function waitedOf(visits: readonly Visit[], fromMs: number): Visit[] {
  return visits.filter(
    ({ kind, expectedMs, cameMs }) => kind === 'admitted' && expectedMs !== undefined && cameMs > fromMs,
  )
}

function isAsExpected({ cameMs, endedMs, expectedMs }: Visit): boolean {
  const waitedMs = endedMs - cameMs
  return Math.abs(waitedMs - expectedMs!) <= Math.max(250, 0.1 * waitedMs)
}
