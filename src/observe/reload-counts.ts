import { Gauge, type Registry } from '../packages/prometheus.ts'
import { counterFamily, type CounterSeries } from './series.ts'

/** The outcome of a reload of the configuration. */
export type ReloadResult = 'applied' | 'unchanged' | 'rejected'

/** Counts reloads. With several workers, the first process counts them for all. */
export class ReloadCounts {
  readonly #counts: Readonly<Record<ReloadResult, CounterSeries>>
  readonly #succeeded: Gauge
  readonly #succeededAt: Gauge

  /** The configuration that the process starts with counts as the first success. */
  constructor(registry: Registry) {
    const family = counterFamily(registry, 'config_reload', 'Reloads of the configuration, by what became of them.')
    this.#counts = {
      applied: family.of({ result: 'applied' }),
      unchanged: family.of({ result: 'unchanged' }),
      rejected: family.of({ result: 'rejected' }),
    }
    const registers = [registry]
    this.#succeeded = new Gauge({
      name: 'sluice_config_last_reload_successful',
      help: '1 if the latest reload of the configuration succeeded, 0 if it was rejected.',
      registers,
    })
    this.#succeededAt = new Gauge({
      name: 'sluice_config_last_reload_success_timestamp_seconds',
      help: 'When the configuration in force was last read, in Unix seconds.',
      registers,
    })
    this.#succeed()
  }

  count(result: ReloadResult): void {
    this.#counts[result].increment()
    if (result === 'rejected') this.#succeeded.set(0)
    else this.#succeed()
  }

  #succeed(): void {
    this.#succeeded.set(1)
    this.#succeededAt.set(Date.now() / 1_000)
  }
}
