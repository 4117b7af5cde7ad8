import type { Metric, Registry } from '@prometheus-io/client'
import type { TimeSlice } from './time-slice.ts'

/**
 * Counters and histograms for the request path. The client library looks up labels by their values at every
 * observation, three times with an exemplar, and a call makes four observations. Here the user of a series looks it up
 * once, and the library reads the values when it is scraped.
 */
export type Labels = Readonly<Record<string, string>>

/** Labels of one account and class. */
export interface ClassLabels {
  readonly upstream: string
  readonly account: string
  readonly class: string
}

interface Value {
  readonly labels: Labels
  readonly metricName: string
  readonly value: number
  readonly exemplar?: { readonly labelSet: Labels; readonly value: number; readonly timestamp: number } | undefined
}

/** The length that OpenMetrics allows for the names and values of an exemplar's labels together. */
const EXEMPLAR_CHARACTERS = 128 - 'correlation_id'.length
/** How many of these characters a trace id takes. */
const TRACE_CHARACTERS = 'trace_id'.length + 32

/** The text of the exemplar behind a value: a blank, `#` and the rest; empty if there is none. */
export function exemplarText(exemplar: Value['exemplar'] | null): string {
  if (exemplar === undefined || exemplar === null) return ''
  return ` # {${textOf(exemplar.labelSet)}} ${exemplar.value} ${exemplar.timestamp}`
}

/** The last observation with a correlation id. */
class Exemplar {
  #id = ''
  #traceId: string | undefined
  #value = 0
  #at = 0

  set(id: string, value: number, traceId: string | undefined, at: number): void {
    this.#id = id
    this.#traceId = traceId
    this.#value = value
    this.#at = at
  }

  /** Undefined also where the id does not fit: cut, it would lead to a call that does not exist. */
  get(): Value['exemplar'] {
    if (this.#id === '' || this.#id.length > EXEMPLAR_CHARACTERS) return undefined
    return { labelSet: this.#labels(), value: this.#value, timestamp: this.#at / 1_000 }
  }

  /** The trace is left out where both do not fit. */
  #labels(): Labels {
    const id = this.#id
    if (this.#traceId === undefined || id.length > EXEMPLAR_CHARACTERS - TRACE_CHARACTERS) return { correlation_id: id }
    return { correlation_id: id, trace_id: this.#traceId }
  }
}

export class CounterSeries {
  /** Changed since it was last sent to another process. */
  isUnsent = true
  readonly #labels: Labels
  #text: string | undefined
  readonly #exemplar = new Exemplar()
  #count = 0

  constructor(labels: Labels) {
    this.#labels = labels
  }

  /**
   * `id` and `traceId` are those of the call. `at` is the time of day in ms, which a caller that counts much at once
   * reads only once.
   */
  increment(id?: string, by = 1, traceId?: string, at?: number): void {
    this.#count += by
    this.isUnsent = true
    if (id !== undefined) this.#exemplar.set(id, by, traceId, at ?? Date.now())
  }

  values(name: string): Value[] {
    return [{ labels: this.#labels, metricName: name, value: this.#count, exemplar: this.#exemplar.get() }]
  }

  write(name: string): string {
    this.#text ??= textOf(this.#labels)
    const labels = this.#text === '' ? '' : `{${this.#text}}`
    return `${name}_total${labels} ${this.#count}${exemplarText(this.#exemplar.get())}\n`
  }
}

export class HistogramSeries {
  /** Changed since it was last sent to another process. */
  isUnsent = true
  readonly #labels: Labels
  #text: string | undefined
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

  /** Observes milliseconds. The series is in seconds. */
  observeMs(ms: number, id?: string, traceId?: string, at?: number): void {
    const seconds = ms / 1_000
    let bucket = 0
    while (bucket < this.#bounds.length && seconds > this.#bounds[bucket]!) bucket++
    this.#counts[bucket]!++
    this.#sum += seconds
    this.isUnsent = true
    if (id !== undefined) this.#exemplars[bucket]!.set(id, seconds, traceId, at ?? Date.now())
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

  write(name: string): string {
    const labels = (this.#text ??= textOf(this.#labels))
    const before = labels === '' ? '' : `${labels},`
    let lines = ''
    let count = 0
    for (let i = 0; i < this.#counts.length; i++) {
      count += this.#counts[i]!
      const le = i < this.#bounds.length ? this.#bounds[i] : '+Inf'
      lines += `${name}_bucket{${before}le="${le}"} ${count}${exemplarText(this.#exemplars[i]!.get())}\n`
    }
    const own = labels === '' ? '' : `{${labels}}`
    return `${lines}${name}_sum${own} ${this.#sum}\n${name}_count${own} ${count}\n`
  }
}

/** One series of a metric. */
interface Series {
  isUnsent: boolean
  /** Its values, for another process that adds them up. */
  values(name: string): Value[]
  /** Its lines in the OpenMetrics format. */
  write(name: string): string
}

/** How many values are told in one turn of the event loop. */
const VALUES_A_TURN = 400

export class Family<S extends Series = Series> {
  readonly name: string
  readonly help: string
  readonly type: 'counter' | 'histogram'
  readonly aggregator = 'sum'
  readonly #series = new Map<string, S>()
  readonly #create: (labels: Labels) => S
  readonly #shown: (labels: Labels) => Labels

  /** `shown` returns the labels under which a series appears, which bounds their number. */
  constructor(
    registry: Registry,
    { name, help, type }: { name: string; help: string; type: 'counter' | 'histogram' },
    create: (labels: Labels) => S,
    shown: (labels: Labels) => Labels = (labels) => labels,
  ) {
    this.name = name
    this.help = help
    this.type = type
    this.#create = create
    this.#shown = shown
    registry.registerMetric(this as unknown as Metric<string>)
  }

  /** The series of these labels, made if there is none. Whoever uses it often keeps it. */
  of(labels: Labels): S {
    const shown = this.#shown(labels)
    return this.#series.getOrInsertComputed(Object.values(shown).join('\n'), () => this.#create(shown))
  }

  /** What the library reads. It has a different type for each kind of metric. */
  get(): object {
    const { name, help, type, aggregator } = this
    return { name, help, type, aggregator, values: [...this.#series.values()].flatMap((series) => series.values(name)) }
  }

  /**
   * The values that changed since the last call, in pieces that are each small enough for one turn of the event loop.
   */
  *unsent(): Generator<CountPiece> {
    const { name, help, type } = this
    let values: Value[] = []
    let looked = 0
    for (const series of this.#series.values()) {
      looked++
      if (series.isUnsent) {
        series.isUnsent = false
        values.push(...series.values(name))
      }
      if (values.length < VALUES_A_TURN && looked < LOOKED_AT_A_TURN) continue
      yield { name, help, type, values }
      values = []
      looked = 0
    }
    yield { name, help, type, values }
  }

  /** The text of all series in the OpenMetrics format, in pieces that each end with the time slice. */
  *pieces(slice: TimeSlice): Generator<string> {
    let text = `# HELP ${this.name} ${this.help}\n# TYPE ${this.name} ${this.type}\n`
    for (const series of this.#series.values()) {
      text += series.write(this.name)
      if (!slice.isEnough(text)) continue
      yield text
      text = ''
    }
    yield text
  }
}

const LOOKED_AT_A_TURN = 10_000

/** Some values of a counter or a histogram, as another process gets them. */
export interface CountPiece {
  readonly name: string
  readonly help: string
  readonly type: 'counter' | 'histogram'
  readonly values: readonly CountValue[]
}

export interface CountValue {
  readonly labels?: Labels | undefined
  /** Labels that the library keeps apart, since all values of a histogram have them. */
  readonly sharedLabels?: Labels | undefined
  readonly metricName?: string | undefined
  readonly value: number
  readonly exemplar?: Value['exemplar'] | null
}

/** The text of labels between braces. Some labels of the library are numbers. */
export function textOf(labels: Readonly<Record<string, string | number>>): string {
  return Object.entries(labels)
    .map(([name, value]) => `${name}="${escape(String(value))}"`)
    .join(',')
}

function escape(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('"', '\\"')
}

export function counterFamily(
  registry: Registry,
  name: string,
  help: string,
  shown?: (labels: Readonly<Labels>) => Readonly<Labels>,
): Family<CounterSeries> {
  // The library appends `_total` to the values, as OpenMetrics wants it.
  const about = { name: `sluice_${name}`, help, type: 'counter' as const }
  return new Family(registry, about, (labels) => new CounterSeries(labels), shown)
}
