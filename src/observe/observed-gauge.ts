import type { Metric, Registry } from '@prometheus-io/client'
import { budgetsByFullness } from './bounded-budgets.ts'
import type { BoundedLabels } from './bounded-labels.ts'
import { COMBINE, fullerOf, GAUGES, type GaugeOf, type Observed, type ObservedUsage } from './gauges.ts'
import { type Labels, textOf } from './series.ts'
import { TimeSlice } from './time-slice.ts'

interface GaugeValue {
  readonly labels: Labels
  readonly value: number
}

/**
 * Registers the gauges. They show nothing while `observed` returns undefined. `bounded` limits how many clients and accounts
 * their labels name. It is not applied to a gauge that is `isBounded`, whose labels are bounded already.
 *
 * `scrape` is any object: gauges that are given the same one share one answer of the quota store.
 */
export function registerGauges(registry: Registry, bounded: BoundedLabels, observed: () => Observed | undefined): void {
  const scrapes = new WeakMap<object, Observed>()
  for (const gauge of GAUGES) {
    const values = (scrape: object): Promise<Iterable<GaugeValue>> | [] => {
      const now = observed()
      if (now === undefined) return []
      const asked = scrapes.getOrInsertComputed(scrape, () => askedOnce(now, bounded))
      return valuesOf(gauge, asked, bounded)
    }
    registry.registerMetric(new ObservedGauge(gauge, values) as unknown as Metric<string>)
  }
}

/** A gauge whose values are looked up at each scrape. It pauses between values where there are many, so that calls go on. */
export class ObservedGauge {
  readonly name: string
  readonly help: string
  readonly type = 'gauge'
  readonly aggregator: keyof typeof COMBINE
  readonly #values: (scrape: object) => Promise<Iterable<GaugeValue>> | []

  constructor(
    { name, help, combine = 'max' }: GaugeOf,
    values: (scrape: object) => Promise<Iterable<GaugeValue>> | [],
  ) {
    this.name = `sluice_${name}`
    this.help = help
    this.aggregator = combine
    this.#values = values
  }

  /** What the library and `gaugesOf` read. Without a `scrape` the gauge shares no answer of the quota store with others. */
  async get(scrape: object = {}): Promise<object> {
    const { name, help, type, aggregator } = this
    return { name, help, type, aggregator, values: [...(await this.#values(scrape))] }
  }

  /** Its text in the OpenMetrics format. A piece ends when the time slice is over, or when the piece is large enough. */
  async *pieces(slice: TimeSlice, scrape: object): AsyncGenerator<string, void, void> {
    let text = `# HELP ${this.name} ${this.help}\n# TYPE ${this.name} gauge\n`
    for (const { labels, value } of await this.#values(scrape)) {
      const own = textOf(labels)
      text += `${this.name}${own === '' ? '' : `{${own}}`} ${value}\n`
      if (!slice.isEnough(text)) continue
      yield text
      text = ''
    }
    yield text
  }
}

/**
 * An object like `observed` that asks the quota store once for usage and once for budgets, and bounds the labels of both.
 * It inherits the rest. So `observed` must be a plain object: inherited methods can't reach #private fields of a class.
 */
function askedOnce(observed: Observed, bounded: BoundedLabels): Observed {
  return Object.assign(Object.create(observed) as Observed, {
    usage: once(() => usagesOf(observed, bounded)),
    budgets: once(async () => budgetsByFullness(await observed.budgets(), bounded.maxClients)),
  })
}

function once<T>(ask: () => Promise<T>): () => Promise<T> {
  let asked: Promise<T> | undefined
  return () => (asked ??= ask())
}

async function valuesOf(
  { combine = 'max', isBounded = false, show }: GaugeOf,
  observed: Observed,
  bounded: BoundedLabels,
): Promise<Iterable<GaugeValue>> {
  const values = new Map<string, GaugeValue>()
  const slice = new TimeSlice()
  for await (const [labels, value] of show(observed)) {
    const shown = isBounded ? labels : bounded.of(labels)
    const key = Object.values(shown).join('\n')
    const known = values.get(key)
    values.set(key, { labels: shown, value: known === undefined ? value : COMBINE[combine](known.value, value) })
    await slice.endIfOver()
  }
  return values.values()
}

/**
 * The usage of each limit, with bounded labels. Limits that then have the same labels and window are merged into one, see
 * `fullerOf`.
 */
async function usagesOf(observed: Observed, bounded: BoundedLabels): Promise<Iterable<ObservedUsage>> {
  const fullest = new Map<string, ObservedUsage>()
  const slice = new TimeSlice()
  for (const usage of await observed.usage()) {
    const { upstream, account } = usage.labels
    const labels = { ...usage.labels, ...bounded.of({ upstream, account }) }
    const key = [...Object.values(labels), usage.window].join('\n')
    const known = fullest.get(key)
    const labelled = { ...usage, labels }
    fullest.set(key, known === undefined ? labelled : fullerOf(known, labelled))
    await slice.endIfOver()
  }
  return [...fullest.values()]
}
