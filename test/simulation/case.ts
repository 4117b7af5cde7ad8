import type { Random } from '../../src/time/clock.ts'
import { type Limit, type LimitSpec, limitOf } from '../../src/ledger/limit.ts'
import { seededRandom } from '../support/seeded-random.ts'
import type { OutagePolicy } from '../../src/ledger/ledger.ts'
import type { Network } from './store.ts'

/** How long calls take, from dispatch to response headers. */
export interface Latency {
  readonly kind: 'uniform' | 'exponential' | 'pareto'
  readonly meanMs: number
  /** Share of calls that take one to three windows. */
  readonly longShare: number
  readonly windowMs: number
}

export interface Load {
  /**
   * `saturated`: calls always wait. `bursts`: many at once, then nothing. `stream`: at random, about as many as fit. `rush`:
   * a single one, and from `rushAtMs` on more than fit, so that it finds leases in the hands of all gateways.
   */
  readonly kind: 'saturated' | 'bursts' | 'stream' | 'rush'
  readonly rushAtMs: number
  readonly latency: Latency
  /** When the upstream counts a call. */
  readonly counts: 'first' | 'last' | 'between' | 'any'
  /** Calls are given up after this. */
  readonly timeoutMs: number
  /** Shares of calls: not sent at all, given up midway, of which the client leaves while it waits. */
  readonly refunds: number
  readonly aborts: number
  readonly leavers: number
}

export type Fault = { readonly atMs: number } & (
  | { readonly kind: 'pause'; readonly gateway: number; readonly ms: number; readonly areTimersFirst: boolean }
  | { readonly kind: 'crash'; readonly gateway: number; readonly ms: number }
  | { readonly kind: 'disconnect'; readonly gateway: number }
  | { readonly kind: 'cut'; readonly gateway: number; readonly ms: number; readonly isReset: boolean }
  | { readonly kind: 'stall'; readonly ms: number }
  | { readonly kind: 'newcomer' }
  /** The wall clock of that gateway's machine is set. */
  | { readonly kind: 'set clock'; readonly gateway: number; readonly ms: number }
  | {
      readonly kind: 'fail-over'
      readonly ms: number
      readonly lostMs: number
      readonly isSilent: boolean
      readonly clockMs?: number
    }
  | { readonly kind: 'restart'; readonly ms: number; readonly isSilent: boolean }
  | { readonly kind: 'lose'; readonly what: (typeof LOSSES)[number] }
)

/** Keys that are gone while every connection stays: all, those of the first partition, or one of these. */
export const LOSSES = ['everything', 'partition', 'limits', 'leases'] as const

/**
 * Within the assumptions that the ledger states. `random`: any; `saturated`: nothing goes wrong, and more is wanted than may be
 * had; `newcomer`: one more gateway begins when a replica has taken over that lacks what was written last; `closed`, `open`:
 * with that for `onOutage`; `shadow`: saturated, and a second limit is not enforced; `many partitions`: so many that leases are
 * renewed more rarely; `set back`: the clock of a replica that takes over is behind; `clock set`: the wall clocks of the gateways'
 * machines are set, both ways, while they run and between two runs; `keys lost`: Redis is flushed, or evicts keys, and at that
 * moment gateways ask that have not used the partition.
 *
 * Outside of them, a gateway that alone is without Redis for longer than its patience; one that finds it again later than the
 * others after it lost what it knew; one that stands still for longer than a window; a replica's clock that is ahead.
 */
const WITHIN = [
  'random',
  'saturated',
  'newcomer',
  'closed',
  'open',
  'shadow',
  'many partitions',
  'set back',
  'clock set',
  'keys lost',
] as const
const OUTSIDE = ['cut off', 'late', 'standing still', 'set ahead'] as const
export const CASE_KINDS = [...WITHIN, ...OUTSIDE]
export type CaseKind = (typeof CASE_KINDS)[number]

export interface Case {
  readonly kind: CaseKind
  readonly seed: number
  readonly store: 'memory' | 'redis'
  /** Clocks of the gateways less the world's. */
  readonly skewsMs: readonly number[]
  readonly onOutage: OutagePolicy
  /** Until then no client comes to the last gateway. */
  readonly idleUntilMs?: number
  /** How many partitions there are, each with these limits. */
  readonly partitions: number
  readonly limits: readonly LimitSpec[]
  /** Per charge set: the numbers of its limits, and the units of a call. */
  readonly chargeSets: readonly { readonly limits: readonly number[]; readonly units: readonly number[] }[]
  readonly network: Network
  readonly load: Load
  readonly faults: readonly Fault[]
  /** The upstream's clock less the world's. */
  readonly upstreamOffsetMs: number
  readonly durationMs: number
}

/** Waits between two faults, so that each finds everything as the assumptions of the ledger want it. */
const RECOVERY_MS = 3_000
/** What a gateway can be without an answer before it may take itself to be alone, less the time until it notices. */
const SHORT_CUT_MS = 500

/** Calls of windows shorter than this may not be renewed in time by a gateway that is without Redis for a moment. */
const RENEWABLE_MS = 1_000

/** The case of that seed. Of random ones every fourth is one of the embedded ledger. */
export function caseOf(kind: CaseKind, seed: number): Case {
  const random = seededRandom(seed)
  for (let i = 0; i < 5; i++) random()
  switch (kind) {
    case 'random':
      return randomCase(seed, random)
    case 'saturated':
      return saturatedCase(seed, random)
    case 'newcomer':
      return newcomerCase(seed, random)
    case 'closed':
    case 'open':
      // Not one of the embedded ledger.
      return { ...randomCase(4 * seed + 1, random), kind, seed, onOutage: kind }
    case 'shadow':
      return shadowCase(seed, random)
    case 'many partitions':
      return manyPartitionsCase(seed, random)
    case 'clock set':
      return setClockCase(seed, random)
    case 'keys lost':
      return keysLostCase(seed, random)
    case 'set back':
    case 'set ahead':
      return clockCase(kind, seed, random)
    default:
      return outsideCase(kind, seed, random)
  }
}

function randomCase(seed: number, random: Random): Case {
  const store = seed % 4 === 0 ? 'memory' : 'redis'
  const gateways = store === 'memory' ? 1 : 1 + pick(random, 4)
  const limits = Array.from({ length: 1 + pick(random, 3) }, (_, i) => randomLimit(random, i))
  const windows = limits.map(({ windowMs }) => windowMs).filter((ms): ms is number => ms !== undefined)
  const windowMs = windows.length === 0 ? 10_000 : Math.min(...windows)
  const longestMs = windows.length === 0 ? 3_000 : Math.max(...windows)
  const countingToleranceMs = Math.min(...limits.map((spec) => limitOf(spec).countingToleranceMs))
  const faults = randomFaults(random, { store, gateways, limits: limits.map(limitOf), longestMs })
  const lastMs = faults.at(-1)?.atMs ?? 0
  const load = randomLoad(random, windowMs, faults[0])
  const isCutOff = faults.some(({ kind }) => kind !== 'pause' && kind !== 'crash')
  const isRenewed = windowMs >= RENEWABLE_MS || !isCutOff
  return {
    kind: 'random',
    seed,
    store,
    // Without Redis the clock of the gateway is the one that counts.
    skewsMs: Array.from({ length: gateways }, () => (store === 'memory' ? 0 : Math.round((random() - 0.5) * 10_000))),
    onOutage: 'lease',
    partitions: 1,
    limits,
    chargeSets: randomChargeSets(random, limits),
    network: { leastMs: random() < 0.5 ? 0.1 : 3, meanMs: [0.2, 1, 4][pick(random, 3)]! },
    load: isRenewed ? load : { ...load, timeoutMs: 0.3 * windowMs },
    faults,
    upstreamOffsetMs: countingToleranceMs * (random() < 0.5 ? 0.999 : random()) * (random() < 0.5 ? 1 : -1),
    durationMs: Math.max(4 * longestMs, lastMs + Math.min(2.5 * longestMs + RECOVERY_MS, 12_000)),
  }
}

const CALM = { refunds: 0, aborts: 0, leavers: 0, timeoutMs: Infinity }

function saturatedCase(seed: number, random: Random): Case {
  const windowMs = [10_000, 60_000][pick(random, 2)]!
  const store = seed % 4 === 0 ? 'memory' : 'redis'
  const gateways = store === 'memory' ? 1 : 1 + pick(random, 4)
  const meanMs = [50, 300, 2_000][pick(random, 3)]!
  const kind = (['uniform', 'exponential'] as const)[pick(random, 2)]!
  return {
    kind: 'saturated',
    seed,
    store,
    skewsMs: Array.from({ length: gateways }, () => 0),
    onOutage: 'lease',
    partitions: 1,
    limits: [{ id: 'only', class: 'any', kind: 'rolling', windowMs, requests: 20 + pick(random, 80) }],
    chargeSets: [{ limits: [0], units: [1] }],
    network: { leastMs: 0.1, meanMs: 0.3 },
    load: { kind: 'saturated', rushAtMs: 0, latency: { kind, meanMs, longShare: 0, windowMs }, counts: 'any', ...CALM },
    faults: [],
    upstreamOffsetMs: 0,
    durationMs: 8.5 * windowMs,
  }
}

function newcomerCase(seed: number, random: Random): Case {
  const { faults, load, ...rest } = outsideCase('cut off', seed, random)
  const { atMs } = faults[0]!
  const ms = 1_000 + random() * 3_000
  const failOver: Fault = { atMs, kind: 'fail-over', ms, lostMs: random() * 1_000, isSilent: random() < 0.5 }
  const newcomer: Fault = { atMs: atMs + ms + random() ** 2 * 1_500, kind: 'newcomer' }
  return { ...rest, kind: 'newcomer', faults: [failOver, newcomer], load: { ...load, kind: 'saturated' } }
}

function shadowCase(seed: number, random: Random): Case {
  const of = saturatedCase(4 * seed + 1, random)
  const shadow: LimitSpec = { ...of.limits[0]!, id: 'shadow', requests: 5, isEnforced: false }
  return {
    ...of,
    kind: 'shadow',
    seed,
    limits: [...of.limits, shadow],
    chargeSets: [{ limits: [0, 1], units: [1, 1] }],
  }
}

function manyPartitionsCase(seed: number, random: Random): Case {
  const of = newcomerCase(seed, random)
  const gateways = of.skewsMs.slice(0, 2)
  const limits = of.limits.map((spec) => ({ ...spec, requests: 2 + pick(random, 3), windowMs: 2_000 }))
  const load = { ...of.load, kind: (['rush', 'stream', 'bursts'] as const)[pick(random, 3)]! }
  return {
    ...of,
    kind: 'many partitions',
    skewsMs: gateways,
    partitions: 600,
    limits,
    load,
    faults: of.faults.slice(0, 1),
  }
}

/** Of many partitions, so many that their leases are renewed more rarely than it takes to return from a loss. */
function keysLostCase(seed: number, random: Random): Case {
  const of = newcomerCase(seed, random)
  const { atMs } = of.faults[0]!
  const partitions = seed % 50 === 0 ? 600 : 1
  const kind = partitions > 1 ? 'stream' : (['saturated', 'bursts', 'stream'] as const)[pick(random, 3)]!
  const faults: Fault[] = [{ atMs, kind: 'lose', what: LOSSES[pick(random, LOSSES.length)]! }]
  if (partitions === 1 && random() < 0.3) faults.push({ atMs: atMs + random() * 300, kind: 'newcomer' })
  if (partitions === 1 && random() < 0.3) {
    faults.push({ atMs: atMs + random() * 3_000, kind: 'lose', what: LOSSES[pick(random, LOSSES.length)]! })
  }
  return {
    ...of,
    kind: 'keys lost',
    partitions,
    limits:
      partitions === 1
        ? of.limits
        : of.limits.map((spec) => ({ ...spec, requests: 2 + pick(random, 3), windowMs: 5_000 })),
    faults,
    idleUntilMs: atMs + (random() < 0.5 ? 0 : random() * 1_500),
    load: { ...of.load, kind },
    durationMs: partitions === 1 ? of.durationMs : atMs + 6_000,
  }
}

/** What is ahead makes everything leave too early, once; what is behind, too late. */
function clockCase(kind: 'set back' | 'set ahead', seed: number, random: Random): Case {
  const of = newcomerCase(seed, random)
  const ms = 100 + random() * 5_000
  const faults = of.faults.map((fault) =>
    fault.kind === 'fail-over' ? { ...fault, clockMs: kind === 'set back' ? -ms : ms } : fault,
  )
  return { ...of, kind, faults: faults.slice(0, 1), durationMs: of.durationMs + ms }
}

/**
 * By up to ten minutes, several times, and of those that crash also before they run again. Without windows of the calendar, of
 * which a wrong clock can't know; every other case is one of the embedded ledger.
 */
function setClockCase(seed: number, random: Random): Case {
  const of = randomCase(seed % 2 === 0 ? 4 * seed : 4 * seed + 1, random)
  const faults: Fault[] = [...of.faults]
  const set = (atMs: number): void => {
    for (const gateway of of.skewsMs.keys()) {
      faults.push({ atMs, kind: 'set clock', gateway, ms: (random() < 0.5 ? -1 : 1) * (100 + random() ** 2 * 600_000) })
    }
  }
  for (let n = 0; n < 4; n++) set(random() * of.durationMs)
  for (const fault of of.faults) if (fault.kind === 'crash') set(fault.atMs + fault.ms / 2)
  const limits = of.limits.map((spec) => (spec.kind === 'calendar' ? { ...spec, kind: 'rolling' as const } : spec))
  return { ...of, kind: 'clock set', seed, limits, faults: faults.toSorted((a, b) => a.atMs - b.atMs) }
}

function outsideCase(kind: 'cut off' | 'late' | 'standing still', seed: number, random: Random): Case {
  const windowMs = [1_000, 2_000, 5_000][pick(random, 3)]!
  const gateways = 2 + pick(random, 3)
  const atMs = windowMs * (1 + random())
  const ms = kind === 'standing still' ? windowMs * (1.1 + random()) : 1_500 + random() * 4_000
  const faults: Fault[] = []
  if (kind === 'standing still') faults.push({ atMs, kind: 'pause', gateway: 0, ms, areTimersFirst: random() < 0.5 })
  else faults.push({ atMs, kind: 'cut', gateway: 0, ms: ms + (kind === 'late' ? 2_500 : 0), isReset: true })
  if (kind === 'late') faults.push({ atMs, kind: 'restart', ms: ms - 1_000, isSilent: random() < 0.5 })
  const load = randomLoad(random, windowMs, faults[0])
  return {
    kind,
    seed,
    store: 'redis',
    skewsMs: Array.from({ length: gateways }, () => Math.round((random() - 0.5) * 10_000)),
    onOutage: 'lease',
    partitions: 1,
    limits: [{ id: 'only', class: 'any', kind: 'rolling', windowMs, requests: 5 + pick(random, 40) }],
    chargeSets: [{ limits: [0], units: [1] }],
    network: { leastMs: 0.1, meanMs: 1 },
    load: { ...load, latency: { ...load.latency, meanMs: windowMs * 0.05, longShare: 0 }, timeoutMs: windowMs / 4 },
    faults,
    upstreamOffsetMs: 0,
    durationMs: atMs + ms + 2_500 + 3 * windowMs,
  }
}

export function pick(random: Random, below: number): number {
  return Math.floor(random() * below)
}

function randomLimit(random: Random, i: number): LimitSpec {
  const kind = (['rolling', 'rolling', 'rolling', 'calendar', 'concurrent'] as const)[pick(random, 5)]!
  const windowMs = [100, 500, 1_000, 2_000, 5_000, 10_000][pick(random, 6)]!
  // Short windows see more calls.
  const most = windowMs < 500 ? 5 : windowMs < 2_000 ? 15 : 60
  return {
    id: `${kind}.${i}`,
    class: 'any',
    kind,
    requests: 2 + Math.floor(random() ** 2 * most),
    ...(kind === 'concurrent' ? {} : { windowMs }),
    countingToleranceMs: [0, 100, 1_000][pick(random, 3)]!,
  }
}

function randomChargeSets(random: Random, limits: readonly LimitSpec[]): Case['chargeSets'] {
  return Array.from({ length: 1 + pick(random, limits.length) }, () => {
    let used = limits.map((_, i) => i).filter(() => random() < 0.75)
    if (used.length === 0) used = [pick(random, limits.length)]
    return {
      limits: used,
      units: used.map((i) => (random() < 0.3 ? 1 + pick(random, Math.min(4, limits[i]!.requests)) : 1)),
    }
  })
}

function randomLoad(random: Random, windowMs: number, fault: Fault | undefined): Load {
  const rushAtMs = fault === undefined ? 1_000 : fault.atMs + random() * 500

  const timeoutMs = windowMs * [0.3, 1.5, 4][pick(random, 3)]!
  return {
    kind: (['saturated', 'bursts', 'stream', 'rush'] as const)[pick(random, 4)]!,
    rushAtMs,
    latency: {
      kind: (['uniform', 'exponential', 'pareto'] as const)[pick(random, 3)]!,
      meanMs: windowMs * [0.02, 0.1, 0.5][pick(random, 3)]!,
      longShare: random() < 0.3 ? 0.1 : 0,
      windowMs,
    },
    counts: (['first', 'last', 'between', 'any'] as const)[pick(random, 4)]!,
    timeoutMs,
    refunds: random() < 0.3 ? 0.1 : 0,
    aborts: random() < 0.3 ? 0.1 : 0,
    leavers: random() < 0.3 ? 0.1 : 0,
  }
}

interface Setting {
  readonly store: 'memory' | 'redis'
  readonly gateways: number
  readonly limits: readonly Limit[]
  readonly longestMs: number
}

function randomFaults(random: Random, { store, gateways, limits, longestMs }: Setting): Fault[] {
  const faults: Fault[] = []
  const count = random() < 0.15 ? 0 : 1 + pick(random, 3)
  // No gateway may stand still for longer than a window, or than one renewal of calls at once.
  const pauseMs = Math.min(
    4_000,
    ...limits.map(({ kind, windowMs, renewMs }) => 0.9 * (kind === 'concurrent' ? renewMs : windowMs)),
  )
  const inFlightLeaseMs = Math.max(...limits.map((limit) => limit.inFlightLeaseMs))
  let atMs = random() * Math.min(longestMs, 3_000)
  let lastCrashMs = -Infinity
  for (let n = 0; n < count; n++) {
    const gateway = pick(random, gateways)
    const kinds =
      store === 'memory'
        ? (['pause', 'crash'] as const)
        : (['pause', 'crash', 'disconnect', 'cut', 'stall', 'fail-over', 'restart'] as const)
    let kind: Fault['kind'] = kinds[pick(random, kinds.length)]!
    // What a dead gateway had charged is known to nobody but Redis.
    if (kind === 'restart' && atMs - lastCrashMs < longestMs + inFlightLeaseMs) kind = 'stall'
    const ms = 20 + random() ** 2 * 4_000
    if (kind === 'pause') {
      faults.push({ atMs, kind, gateway, ms: random() * pauseMs, areTimersFirst: random() < 0.7 })
    } else if (kind === 'crash') faults.push({ atMs, kind, gateway, ms: 50 + random() * 2_000 })
    else if (kind === 'disconnect') faults.push({ atMs, kind, gateway })
    else if (kind === 'cut') faults.push({ atMs, kind, gateway, ms: random() * SHORT_CUT_MS, isReset: random() < 0.5 })
    else if (kind === 'stall') faults.push({ atMs, kind, ms })
    else if (kind === 'fail-over') {
      faults.push({ atMs, kind, ms, lostMs: random() * Math.min(1_000, atMs), isSilent: random() < 0.5 })
    } else faults.push({ atMs, kind, ms, isSilent: random() < 0.5 })
    // Whoever takes over from a dead Redis does so a second later at the soonest, and a new process may find it first.
    if ((kind === 'fail-over' && ms > 1_000) || kind === 'restart') {
      if (random() < 0.5) faults.push({ atMs: atMs + ms + random() ** 2 * 1_500, kind: 'newcomer' })
    }
    const took = kind === 'disconnect' ? 0 : ms
    if (kind === 'crash') lastCrashMs = atMs
    atMs += took + RECOVERY_MS + random() * 1_000
  }
  return faults
}
