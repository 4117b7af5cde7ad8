import type { Metrics } from '../observe/metrics.ts'
import type { ClassLabels, CounterSeries } from '../observe/series.ts'
import { UNITS_OF_MONEY } from '../schema/price-schema.ts'
import type { DayRow } from './day-row.ts'

export type TallyMetrics = Pick<
  Metrics,
  'quotaCharged' | 'quotaSaved' | 'clientWaits' | 'clientWaitSeconds' | 'moneySpent'
>

/** Counts for one client, account and class: in the metrics, and once more for the rows of the day. */
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
  // A series appears with its first event.
  #charged: CounterSeries | undefined
  #saved: CounterSeries | undefined
  #waited: CounterSeries | undefined
  #waitSeconds: CounterSeries | undefined
  #moneySpent: CounterSeries | undefined
  /** The currency of that. */
  #unit: string | undefined

  /** `onChange` is told of the first change after each `take`. */
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

  /** A call has cost so many billionths of a currency. */
  spend(money: number, unit: string, id: string): void {
    if (unit !== this.#unit) {
      this.#unit = unit
      this.#moneySpent = this.#metrics.moneySpent.of({ ...this.#labels, client: this.#client, unit })
    }
    this.#moneySpent!.increment(id, money / UNITS_OF_MONEY)
    this.#spent += money
    this.#change()
  }

  /** A call has ended. The metric of calls is counted by its status and outcome elsewhere. */
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
    // What rounding left out is told the next time.
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
