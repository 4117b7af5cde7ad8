import type { Metric, Registry } from '@prometheus-io/client'

/**
 * Counters and histograms for the request path. The client library looks labels up by their values at every observation,
 * three times with an exemplar; four observations a call are a tenth of a call's cost. Here a series is looked up once,
 * by whoever will use it, and the library asks for the values when it is scraped.
 */
type Labels = Readonly<Record<string, string>>

interface Value {
  readonly labels: Labels
  readonly metricName: string
  readonly value: number
  readonly exemplar?: { readonly labelSet: Labels; readonly value: number; readonly timestamp: number } | undefined
}

/** OpenMetrics allows this many characters for the label and the value of an exemplar together. */
const EXEMPLAR_CHARACTERS = 128 - 'correlation_id'.length

/** The last observation that a correlation id is known of. */
class Exemplar {
  #id = ''
  #value = 0
  #at = 0

  set(id: string, value: number): void {
    this.#id = id
    this.#value = value
    this.#at = Date.now()
  }

  get(): Value['exemplar'] {
    if (this.#id === '') return undefined
    const labelSet = { correlation_id: this.#id.slice(0, EXEMPLAR_CHARACTERS) }
    return { labelSet, value: this.#value, timestamp: this.#at / 1_000 }
  }
}

export class CounterSeries {
  readonly #labels: Labels
  readonly #exemplar = new Exemplar()
  #count = 0

  constructor(labels: Labels) {
    this.#labels = labels
  }

  increment(id?: string, by = 1): void {
    this.#count += by
    if (id !== undefined) this.#exemplar.set(id, by)
  }

  values(name: string): Value[] {
    return [{ labels: this.#labels, metricName: name, value: this.#count, exemplar: this.#exemplar.get() }]
  }
}

export class HistogramSeries {
  readonly #labels: Labels
  readonly #bounds: readonly number[]
  readonly #counts: number[]
  readonly #exemplars: Exemplar[]
  #sum = 0

  constructor(labels: Labels, bounds: readonly number[]) {
    this.#labels = labels
    this.#bounds = bounds
    this.#counts = Array.from({ length: bounds.length + 1 }, () => 0)
    this.#exemplars = this.#counts.map(() => new Exemplar())
  }

  /** Takes milliseconds; the series is in seconds. */
  observeMs(ms: number, id: string): void {
    const seconds = ms / 1_000
    let bucket = 0
    while (bucket < this.#bounds.length && seconds > this.#bounds[bucket]!) bucket++
    this.#counts[bucket]!++
    this.#sum += seconds
    this.#exemplars[bucket]!.set(id, seconds)
  }

  values(name: string): Value[] {
    let count = 0
    const buckets = this.#counts.map((inBucket, i) => {
      count += inBucket
      const le = i < this.#bounds.length ? String(this.#bounds[i]) : '+Inf'
      const labels = { ...this.#labels, le }
      return { labels, metricName: `${name}_bucket`, value: count, exemplar: this.#exemplars[i]!.get() }
    })
    return [
      ...buckets,
      { labels: this.#labels, metricName: `${name}_sum`, value: this.#sum },
      { labels: this.#labels, metricName: `${name}_count`, value: count },
    ]
  }
}

/** All series of one metric, registered with the library under its name. */
export class Family<S extends { values(name: string): Value[] }> {
  readonly #series = new Map<string, S>()
  readonly #create: (labels: Labels) => S

  constructor(
    registry: Registry,
    { name, help, type }: { name: string; help: string; type: 'counter' | 'histogram' },
    create: (labels: Labels) => S,
  ) {
    this.#create = create
    const get = (): object => ({
      name,
      help,
      type,
      aggregator: 'sum',
      values: [...this.#series.values()].flatMap((series) => series.values(name)),
    })
    registry.registerMetric({ name, help, type, aggregator: 'sum', get } as unknown as Metric<string>)
  }

  /** The series of these labels; made if need be. Keep it where it is used often. */
  of(labels: Labels): S {
    return this.#series.getOrInsertComputed(Object.values(labels).join('\n'), () => this.#create(labels))
  }
}
