import type { Metric, Registry } from '@prometheus-io/client'
import { budgetsByFullness } from './bounded-budgets.ts'
import type { BoundedLabels } from './bounded-labels.ts'
import { COMBINE, fullerOf, GAUGES, type GaugeOf, type Observed, type ObservedUsage } from './gauges.ts'
import { type Labels, textOf } from './series.ts'
import { Turn } from './turn.ts'

interface GaugeValue {
  readonly labels: Labels
  readonly value: number
}

/** Registers the gauges. They show nothing while `observed` returns undefined. */
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

/** A gauge whose values are looked up at each scrape, some at a time, so that no number of them delays calls. */
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

  /** What the library reads. Gauges that are given the same `scrape` ask the quota store once. */
  async get(scrape: object = {}): Promise<object> {
    const { name, help, type, aggregator } = this
    return { name, help, type, aggregator, values: [...(await this.#values(scrape))] }
  }

  /** Its text in the OpenMetrics format, in pieces that each end with the turn. */
  async *pieces(turn: Turn, scrape: object): AsyncGenerator<string, void, void> {
    let text = `# HELP ${this.name} ${this.help}\n# TYPE ${this.name} gauge\n`
    for (const { labels, value } of await this.#values(scrape)) {
      const own = textOf(labels)
      text += `${this.name}${own === '' ? '' : `{${own}}`} ${value}\n`
      if (!turn.isEnough(text)) continue
      yield text
      text = ''
    }
    yield text
  }
}

/** The same, but the quota store is asked once for all gauges. */
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
  const turn = new Turn()
  for await (const [labels, value] of show(observed)) {
    const shown = isBounded ? labels : bounded.of(labels)
    const key = Object.values(shown).join('\n')
    const known = values.get(key)
    values.set(key, { labels: shown, value: known === undefined ? value : COMBINE[combine](known.value, value) })
    await turn.endIfOver()
  }
  return values.values()
}

/** The limits under the labels that they appear with. If several share the labels, the fullest counts. */
async function usagesOf(observed: Observed, bounded: BoundedLabels): Promise<Iterable<ObservedUsage>> {
  const fullest = new Map<string, ObservedUsage>()
  const turn = new Turn()
  for (const usage of await observed.usage()) {
    const { upstream, account } = usage.labels
    const labels = { ...usage.labels, ...bounded.of({ upstream, account }) }
    const key = [...Object.values(labels), usage.window].join('\n')
    const known = fullest.get(key)
    const labelled = { ...usage, labels }
    fullest.set(key, known === undefined ? labelled : fullerOf(known, labelled))
    await turn.endIfOver()
  }
  return [...fullest.values()]
}
