import type { Limit } from '../../src/ledger/limit.ts'
import type { ChargeSet } from '../../src/ledger/ledger.ts'

/** A call as the upstream sees it. */
export interface Arrival {
  readonly chargeSet: ChargeSet
  /** When it is counted; Infinity if it never arrives. */
  at: number
  /** Until when it is one of those at once. */
  until: number
}

/** Counts every call once, exactly, and tells afterwards how many there were in the worst window. */
export class Upstream {
  readonly #arrivals: Arrival[] = []
  /** Its clock less the world's. */
  readonly #offsetMs: number

  constructor(offsetMs: number) {
    this.#offsetMs = offsetMs
  }

  expect(arrival: Arrival): void {
    this.#arrivals.push(arrival)
  }

  /** Most units of a limit in any of its windows, or at once. */
  worst(limit: Limit): Worst {
    const counted = this.#arrivals
      .filter(({ chargeSet, at }) => at < Infinity && chargeSet.limits.includes(limit))
      .map(({ chargeSet, at, until }) => ({ at, until, units: chargeSet.units[chargeSet.limits.indexOf(limit)]! }))
      .sort((a, b) => a.at - b.at)
    switch (limit.kind) {
      case 'rolling':
        return worstRolling(counted, limit.windowMs)
      case 'calendar':
        return worstCalendar(counted, limit.windowMs, this.#offsetMs)
      case 'concurrent':
        return worstAtOnce(counted)
      case 'smoothing':
        return { units: 0, at: 0 } // of which the upstream knows nothing
    }
  }
}

export interface Worst {
  readonly units: number
  /** The instant at which there were so many. */
  readonly at: number
}

interface Counted {
  readonly at: number
  readonly until: number
  readonly units: number
}

/** Of all windows `(t - windowMs, t]`. */
function worstRolling(counted: readonly Counted[], windowMs: number): Worst {
  let worst = { units: 0, at: 0 }
  let [sum, first] = [0, 0]
  for (const { at, units } of counted) {
    sum += units
    while (counted[first]!.at <= at - windowMs) sum -= counted[first++]!.units
    if (sum > worst.units) worst = { units: sum, at }
  }
  return worst
}

function worstCalendar(counted: readonly Counted[], windowMs: number, offsetMs: number): Worst {
  let worst = { units: 0, at: 0 }
  const windows = new Map<number, number>()
  for (const { at, units } of counted) {
    const window = Math.floor((at + offsetMs) / windowMs)
    const sum = (windows.get(window) ?? 0) + units
    windows.set(window, sum)
    if (sum > worst.units) worst = { units: sum, at }
  }
  return worst
}

function worstAtOnce(counted: readonly Counted[]): Worst {
  let worst = { units: 0, at: 0 }
  let sum = 0
  const steps = counted
    .filter(({ at, until }) => until > at)
    .flatMap(({ at, until, units }) => [
      { time: at, units },
      { time: until, units: -units },
    ])
    .sort((a, b) => a.time - b.time || a.units - b.units)
  for (const { time, units } of steps) {
    sum += units
    if (sum > worst.units) worst = { units: sum, at: time }
  }
  return worst
}
