/**
 * One quota and 1 to 16 gateways: `npm run simulate:machines` prints what each number of gateways comes to, how much of a small
 * limit nobody could use, and how long leases keep a burst waiting. Time is virtual and chance is seeded, so that the figures are
 * the same each time. Ends with 2 if a bar was missed.
 */
import { bar } from '../bench/bar.ts'
import { type FairnessCase, type FairnessOutcome, partsOf, simulateFairness, type Source } from './fairness.ts'

/** Clients by weight. */
const WEIGHTS = { a: 1, b: 1, c: 2, d: 4, greedy: 1 } as const
const SUM = 9
const MEAN_LATENCY_MS = 200
const A_MINUTE_MS = 60_000

export interface Contended {
  /** How far the client that got the least or the most for its weight was from its due. */
  readonly unfairness: number
  /** The part that was used of what the guarantee allows: see `usedBetween`. */
  readonly used: number
  /** Calls above the limit in the worst window. */
  readonly over: number
  readonly told: Told
}

/** What gateways and Redis told each other: for each call that was admitted; and, whether calls come or not, for each gateway and second. */
export interface Told {
  readonly commands: number
  readonly bytes: number
  readonly idleCommands: number
  readonly idleBytes: number
}

/** Four clients at one gateway each, and one at all of them that asks for ten times its due. The quota is always the same. */
export async function contend(gateways: number, windows = 20): Promise<Contended> {
  const [requests, windowMs] = [400, 5_000]
  const sources = Object.entries(WEIGHTS).flatMap(([name, weight], i) => {
    const isGreedy = name === 'greedy'
    const due = (requests / (windowMs / 1_000)) * (weight / SUM)
    const callsPerSecond = isGreedy ? (10 * due) / gateways : 1.15 * due
    const at = isGreedy ? upTo(gateways) : [i % gateways]
    return at.map((gateway) => sourceOf(name, gateway, callsPerSecond, { weight, maxWaitMs: 2 * windowMs }))
  })
  const of = caseOf({ gateways, requests, windowMs, sources, durationMs: (windows + 3) * windowMs })
  const outcome = await simulateFairness(of)
  const [fromMs, untilMs] = [2 * windowMs, (windows + 2) * windowMs]
  const parts = partsOf(outcome, fromMs, untilMs)
  const off = Object.entries(WEIGHTS).map(([name, weight]) => Math.abs((parts[name] ?? 0) / (weight / SUM) - 1))
  return {
    unfairness: Math.max(...off),
    used: usedBetween(of, outcome, fromMs, untilMs),
    over: overOf(of, outcome),
    told: toldOf(of, outcome),
  }
}

/** As many calls at each gateway, and quota for all of them: whoever adds a gateway has that many more calls. */
export async function grow(gateways: number): Promise<Told> {
  const sources = upTo(gateways).map((gateway) => sourceOf('any', gateway, 10))
  const of = caseOf({ gateways, requests: 1_000 * gateways, windowMs: A_MINUTE_MS, sources, durationMs: A_MINUTE_MS })
  return toldOf(of, await simulateFairness(of))
}

export interface Stranded {
  /** The part of the limit that nobody could use, on average over the windows. */
  readonly part: number
  readonly over: number
}

/**
 * `shared`: Redis is there. `away`: it is away, and calls come to the gateways to which they came before. `moved`: it is away, and all
 * calls come to a gateway that had none of the window before.
 */
export type Weather = 'shared' | 'away' | 'moved'

/**
 * How much of a limit of a minute is of no use, while half as much again is wanted: at each gateway alike, or at one of them. Before,
 * every gateway has used it, so that each may hold a lease. With `wanted` less than 1 Redis is away from a limit that was used to that
 * part.
 */
export async function strand(
  {
    gateways,
    requests,
    isSpread,
    weather,
  }: { gateways: number; requests: number; isSpread: boolean; weather: Weather },
  wanted = 1.5,
): Promise<Stranded> {
  const windowMs = A_MINUTE_MS
  const awayAt = 3 * windowMs
  const durationMs = awayAt + 6 * windowMs
  const perSecond = requests / (windowMs / 1_000)
  const come = (at: readonly number[], part: number, fromMs: number, untilMs = Infinity): Source[] =>
    at.map((gateway) =>
      sourceOf('any', gateway, (part * perSecond) / at.length, { fromMs, untilMs, maxWaitMs: windowMs }),
    )
  const at = isSpread ? upTo(gateways) : [0]
  const sources = [
    ...come(upTo(gateways), wanted, 0, windowMs),
    ...come(at, wanted, windowMs, awayAt),
    ...come(weather === 'moved' ? [gateways - 1] : at, 1.5, awayAt),
  ]
  const outage = weather === 'shared' ? {} : { outage: { atMs: awayAt, ms: durationMs } }
  const of = caseOf({ gateways, requests, windowMs, sources, durationMs, ...outage })
  const outcome = await simulateFairness(of)
  return { part: Math.max(0, 1 - usedBetween(of, outcome, awayAt + windowMs, durationMs)), over: overOf(of, outcome) }
}

/**
 * For how many milliseconds leases keep a burst from a free limit: all of it is wanted within 100 ms, at one gateway, while the
 * others hold leases. One of them may have been killed just before.
 */
export async function burst(gateways: number, requests: number, isKilled: boolean): Promise<number> {
  const atMs = 1.5 * A_MINUTE_MS
  const others = upTo(gateways).slice(1)
  const sources = [
    // What these use has left the window by then.
    ...others.map((gateway) => sourceOf('any', gateway, 5, { untilMs: 1_000, maxWaitMs: 0 })),
    { ...sourceOf('any', 0, 0), load: { callers: requests }, fromMs: atMs, untilMs: atMs + 101 },
  ]
  const crash = isKilled ? { crash: { gateway: gateways - 1, atMs: atMs - 100 } } : {}
  const durationMs = atMs + 0.9 * A_MINUTE_MS
  const of = caseOf({ gateways, requests, windowMs: A_MINUTE_MS, sources, durationMs, ...crash })
  const { visits } = await simulateFairness(of)
  const admitted = visits.filter(({ kind, endedMs }) => kind === 'admitted' && endedMs >= atMs).slice(0, requests)
  return admitted.length < requests ? Infinity : Math.max(...admitted.map(({ endedMs }) => endedMs)) - atMs
}

function upTo(gateways: number): readonly number[] {
  return Array.from({ length: gateways }, (_, gateway) => gateway)
}

function sourceOf(
  name: string,
  gateway: number,
  callsPerSecond: number,
  { weight = 1, ...rest }: { weight?: number } & Pick<Source, 'maxWaitMs' | 'fromMs' | 'untilMs'> = {},
): Source {
  return { client: { name, weight, share: 0, priority: 'interactive' }, gateway, load: { callsPerSecond }, ...rest }
}

function caseOf(of: Omit<FairnessCase, 'seed' | 'meanLatencyMs' | 'isShared'>): FairnessCase {
  return { seed: 16, meanLatencyMs: MEAN_LATENCY_MS, isShared: true, ...of }
}

function overOf({ requests }: FairnessCase, { worst }: FairnessOutcome): number {
  return Math.max(0, worst - requests)
}

/** The share of time in which the places of the limit were taken, each from dispatch until a window after the response. */
function usedBetween(
  { requests, windowMs }: FairnessCase,
  { visits }: FairnessOutcome,
  from: number,
  until: number,
): number {
  let takenMs = 0
  for (const { kind, endedMs } of visits) {
    if (kind !== 'admitted') continue
    const freeAgain = endedMs + MEAN_LATENCY_MS + windowMs
    takenMs += Math.max(0, Math.min(until, freeAgain) - Math.max(from, endedMs))
  }
  return takenMs / (requests * (until - from))
}

function toldOf({ gateways, durationMs }: FairnessCase, { visits, commands, bytes }: FairnessOutcome): Told {
  const calls = visits.filter(({ kind }) => kind === 'admitted').length
  const gatewaySeconds = (gateways * durationMs) / 1_000
  const forCalls = ({ charges, commits, exchanges }: FairnessOutcome['bytes']): number => charges + commits + exchanges
  const idle = ({ renewals, looks }: FairnessOutcome['bytes']): number => renewals + looks
  return {
    commands: forCalls(commands) / calls,
    bytes: forCalls(bytes) / calls,
    idleCommands: idle(commands) / gatewaySeconds,
    idleBytes: idle(bytes) / gatewaySeconds,
  }
}

if (import.meta.main) await printAll()

async function printAll(): Promise<void> {
  const rows: Record<string, object> = {}
  const grown: Told[] = []
  const contended: Contended[] = []
  const sizes = [1, 2, 3, 4, 6, 8, 12, 16]
  for (const gateways of sizes) {
    const [g, c] = [await grow(gateways), await contend(gateways)]
    grown.push(g)
    contended.push(c)
    rows[gateways] = {
      over: c.over,
      'unfair by': percent(c.unfairness),
      used: percent(c.used),
      'commands a call': g.commands.toFixed(2),
      'bytes a call': g.bytes.toFixed(0),
      'commands a call that waits': c.told.commands.toFixed(2),
      'bytes a call that waits': c.told.bytes.toFixed(0),
      'commands a gateway and second': g.idleCommands.toFixed(1),
      'bytes a gateway and second': g.idleBytes.toFixed(0),
    }
  }
  console.log('gateways that share one limit')
  console.table(rows)
  const stranded = await printStranded()
  const spread = (all: readonly number[]): number => Math.max(...all) / Math.min(...all)
  const calls = (what: 'commands' | 'bytes'): number => spread(grown.map((told) => told[what]))
  bar(
    'calls above a limit in the worst window',
    Math.max(stranded.over, ...contended.map(({ over }) => over)),
    { atMost: 0 },
    '',
  )
  bar('furthest from a due', 100 * Math.max(...contended.map(({ unfairness }) => unfairness)), { atMost: 5 }, '%')
  bar('commands a call, the most by the least', calls('commands'), { atMost: 1.05 }, '')
  bar('bytes a call, the most by the least', calls('bytes'), { atMost: 1.05 }, '')
  bar('commands a call that waits, at most', Math.max(...contended.map(({ told }) => told.commands)), { atMost: 3 }, '')
  bar('idle commands, the most by the least', spread(grown.map((told) => told.idleCommands)), { atMost: 1.05 }, '')
  bar('stranded while Redis is there', 100 * stranded.shared, { atMost: 1 }, '%')
  bar('a burst waits for leases', stranded.burstMs, { atMost: 750 }, 'ms')
  bar('the same where a gateway was killed', stranded.killedMs, { atMost: 4_000 }, 'ms')
}

async function printStranded() {
  const rows: Record<string, object> = {}
  let [over, shared, burstMs, killedMs] = [0, 0, 0, 0]
  for (const requests of [16, 64, 300]) {
    for (const gateways of [4, 16]) {
      const row: Record<string, string> = {}
      for (const isSpread of [true, false]) {
        for (const weather of ['shared', 'away', 'moved'] as const) {
          if (isSpread && weather === 'moved') continue
          const found = await strand({ gateways, requests, isSpread, weather })
          over = Math.max(over, found.over)
          if (weather === 'shared') shared = Math.max(shared, found.part)
          row[`${weather}, calls at ${isSpread ? 'all' : 'one'}`] = percent(found.part)
        }
      }
      const half = await strand({ gateways, requests, isSpread: true, weather: 'moved' }, 0.5)
      over = Math.max(over, half.over)
      row['moved, half used before'] = percent(half.part)
      const [waits, killed] = [await burst(gateways, requests, false), await burst(gateways, requests, true)]
      burstMs = Math.max(burstMs, waits)
      killedMs = Math.max(killedMs, killed)
      rows[`${requests} a minute, ${gateways} gateways`] = {
        ...row,
        'burst, ms': waits.toFixed(0),
        'killed, ms': killed.toFixed(0),
      }
    }
  }
  console.log('the part of a limit that nobody could use, and how long leases kept a burst from it')
  console.table(rows)
  return { over, shared, burstMs, killedMs }
}

function percent(part: number): string {
  return `${(100 * part).toFixed(1)} %`
}
