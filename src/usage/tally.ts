import type { Metrics } from '../observe/metrics.ts'
import type { ClassLabels, CounterSeries } from '../observe/series.ts'
import { UNITS_OF_MONEY } from '../schema/price-schema.ts'
import type { DayRow } from './day-row.ts'

export type TallyMetrics = Pick<
  Metrics,
  'quotaCharged' | 'quotaSaved' | 'clientWaits' | 'clientWaitSeconds' | 'moneySpent'
>

/** Counts for one client, account and class, both in the metrics and for the rows of the day. */
export class Tally {
  readonly #labels: ClassLabels
  readonly #client: string
  readonly #metrics: TallyMetrics
  readonly #onChange: (tally: Tally) => void
  #isChanged = false
  #units = 0
  #calls = 0
  #refusals = 0
  #waits = 0
  #waitMs = 0
  #savedUnits = 0
  #spent = 0
  // Each series is made by its first event, so that none is exported before.
  #charged: CounterSeries | undefined
  #saved: CounterSeries | undefined
  #waited: CounterSeries | undefined
  #waitSeconds: CounterSeries | undefined
  #moneySpent: CounterSeries | undefined
  /** The currency of `#moneySpent`. */
  #unit: string | undefined

  /** `onChange` is called with this tally at its first change after each `take`. */
  constructor(labels: ClassLabels, client: string, metrics: TallyMetrics, onChange: (tally: Tally) => void) {
    this.#labels = labels
    this.#client = client
    this.#metrics = metrics
    this.#onChange = onChange
  }

  charge(units: number, id: string): void {
    this.#charged ??= this.#metrics.quotaCharged.of({ ...this.#labels, client: this.#client })
    this.#charged.increment(id, units)
    this.#units += units
    this.#change()
  }

  save(units: number, id: string): void {
    this.#saved ??= this.#metrics.quotaSaved.of({ ...this.#labels, client: this.#client })
    this.#saved.increment(id, units)
    this.#savedUnits += units
    this.#change()
  }

  /** A call waited for its turn, and had it. */
  wait(ms: number, id: string): void {
    this.#waited ??= this.#metrics.clientWaits.of({ ...this.#labels, client: this.#client })
    this.#waitSeconds ??= this.#metrics.clientWaitSeconds.of({ ...this.#labels, client: this.#client })
    this.#waited.increment(id)
    this.#waitSeconds.increment(id, ms / 1_000)
    this.#waits++
    this.#waitMs += ms
    this.#change()
  }

  /** Counts what a call has cost: `money` is in billionths of the currency `unit`. */
  spend(money: number, unit: string, id: string): void {
    if (unit !== this.#unit) {
      this.#unit = unit
      this.#moneySpent = this.#metrics.moneySpent.of({ ...this.#labels, client: this.#client, unit })
    }
    this.#moneySpent!.increment(id, money / UNITS_OF_MONEY)
    this.#spent += money
    this.#change()
  }

  /** Counts a call that has ended, for the rows only. The metric of calls is counted elsewhere. */
  end(isRefused: boolean): void {
    this.#calls++
    if (isRefused) this.#refusals++
    this.#change()
  }

  /** What was counted since the last time, as a row of that day. */
  take(day: string): DayRow {
    const row = {
      day,
      client: this.#client,
      ...this.#labels,
      units: this.#units,
      calls: this.#calls,
      refusals: this.#refusals,
      waits: this.#waits,
      waitMs: Math.round(this.#waitMs),
      savedUnits: this.#savedUnits,
      spent: this.#spent,
    }
    this.#units = this.#calls = this.#refusals = this.#waits = this.#savedUnits = this.#spent = 0
    // What rounding left out is part of the next row.
    this.#waitMs -= row.waitMs
    this.#isChanged = false
    return row
  }

  #change(): void {
    if (this.#isChanged) return
    this.#isChanged = true
    this.#onChange(this)
  }
}
