import Type, { type Static } from 'typebox'
import { harness } from '../config/presets/harness.ts'
import { parseDuration } from '../schema/units.ts'
import { Arrivals } from './arrivals.ts'
import { checkFields } from './fields.ts'

const LimitSchema = Type.Object({
  requests: Type.Integer({ minimum: 1, expected: 'a whole number, at least 1' }),
  windowMs: Type.Number({ exclusiveMinimum: 0, expected: 'a number of milliseconds above 0' }),
})
const LimitsSchema = Type.Partial(
  Type.Object({ read: LimitSchema, write: LimitSchema, template: LimitSchema, webhook: LimitSchema }),
)

type Limit = Static<typeof LimitSchema>
export type LimitsGiven = Static<typeof LimitsSchema>
type SandboxClass = keyof LimitsGiven

/** Whether a request may be answered. */
export type Verdict =
  | { readonly kind: 'accepted' | 'unauthenticated' }
  /** The request could be accepted `waitMs` milliseconds later. */
  | { readonly kind: 'throttled'; readonly waitMs: number }

export interface Counts {
  /** Each request once. */
  readonly totals: Readonly<Record<'requests' | 'accepted' | 'throttled' | 'unauthenticated', number>>
  /** Each request in every class that it is charged to. */
  readonly accounts: Readonly<Record<string, Partial<Record<SandboxClass, ClassCounts>>>>
}

/** One class of one account since the last reset. */
export interface ClassCounts {
  readonly accepted: number
  readonly throttled: number
  /** The most arrivals, accepted and throttled together, that were ever in one window. */
  readonly worst: number
  readonly limit: number
  readonly windowMs: number
}

/** Accounts beyond these are counted as one: whoever makes up a token per request must not fill the memory. */
const MOST_ACCOUNTS = 10_000
const OTHERS = 'others'

/** The rolling limits of every account, enforced to the request. */
export class Limits {
  readonly #limits = presetLimits()
  readonly #accounts = new Map<string, Map<string, Tally>>()
  #totals = { accepted: 0, throttled: 0, unauthenticated: 0 }

  constructor(limits: LimitsGiven) {
    this.set(limits)
  }

  /** Accepts an arrival if, with it, no class that it is charged to has more than its limit in the window that ends now. */
  arrive(account: string, charges: readonly string[], now: number): Verdict {
    const tallies = this.#talliesOf(account, charges)
    const full = tallies.filter(({ accepted, limit }) => accepted.count(now) >= limit.requests)
    const kind = full.length === 0 ? 'accepted' : 'throttled'
    for (const tally of tallies) record(tally, now, kind)
    this.#totals[kind]++
    if (kind === 'accepted') return { kind }
    const freeAt = Math.max(...full.map(({ accepted, limit }) => accepted.fewerThanAt(limit.requests)))
    return { kind, waitMs: freeAt - now }
  }

  /** A request that proves no account is charged to none, or anyone could use up another's quota. */
  turnAway(): Verdict {
    this.#totals.unauthenticated++
    return { kind: 'unauthenticated' }
  }

  set(given: LimitsGiven): void {
    for (const [name, limit] of Object.entries(checkFields(LimitsSchema, given))) {
      this.#limits.set(name, limit)
      for (const tallies of this.#accounts.values()) {
        const tally = tallies.get(name)
        // A worst count of windows of different lengths would mean nothing.
        if (tally?.limit.windowMs !== limit.windowMs) tallies.delete(name)
        else tally.limit = limit
      }
    }
  }

  counts(): Counts {
    const { accepted, throttled, unauthenticated } = this.#totals
    const totals = { requests: accepted + throttled + unauthenticated, ...this.#totals }
    const accounts = [...this.#accounts].map(([account, tallies]) => [account, countsOf(tallies)] as const)
    return { totals, accounts: Object.fromEntries(accounts) }
  }

  reset(): void {
    this.#accounts.clear()
    this.#totals = { accepted: 0, throttled: 0, unauthenticated: 0 }
  }

  #talliesOf(account: string, charges: readonly string[]): Tally[] {
    const name = this.#accounts.has(account) || this.#accounts.size < MOST_ACCOUNTS ? account : OTHERS
    const ofAccount = this.#accounts.getOrInsertComputed(name, () => new Map<string, Tally>())
    return charges.map((charged) => ofAccount.getOrInsertComputed(charged, () => newTally(this.#limits.get(charged)!)))
  }
}

interface Tally {
  limit: Limit
  readonly accepted: Arrivals
  readonly all: Arrivals
  readonly counts: { accepted: number; throttled: number; worst: number }
}

function newTally(limit: Limit): Tally {
  const { windowMs } = limit
  const counts = { accepted: 0, throttled: 0, worst: 0 }
  return { limit, accepted: new Arrivals(windowMs), all: new Arrivals(windowMs), counts }
}

function record({ accepted, all, counts }: Tally, now: number, kind: 'accepted' | 'throttled'): void {
  if (kind === 'accepted') accepted.add(now)
  counts[kind]++
  all.add(now)
  // A window is at its fullest when one has just arrived.
  counts.worst = Math.max(counts.worst, all.count(now))
}

function countsOf(tallies: Map<string, Tally>): Record<string, ClassCounts> {
  const ofClass = ({ counts, limit: { requests, windowMs } }: Tally) => ({ ...counts, limit: requests, windowMs })
  return Object.fromEntries([...tallies].map(([name, tally]) => [name, ofClass(tally)]))
}

function presetLimits(): Map<string, Limit> {
  const { limits } = harness.config as { limits: Record<SandboxClass, [{ requests: number; window: string }]> }
  return new Map(
    Object.entries(limits).map(([name, [{ requests, window }]]) => [
      name,
      { requests, windowMs: parseDuration(window) },
    ]),
  )
}
