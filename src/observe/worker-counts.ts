import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Registry } from '@prometheus-io/client'
import { type CountPiece, type CountValue, exemplarText, Family, textOf } from './series.ts'

/** How many values are merged or written in one turn of the event loop: about a millisecond of work. */
const VALUES_A_TURN = 1_000

interface Metric {
  readonly help: string
  readonly type: CountPiece['type']
  /** Values by the text of their lines up to the value. */
  readonly values: Map<string, CountValue>
  /** Per series: the total of all processes when this worker first sent it. It is added to what the worker sends. */
  readonly added: Map<string, number>
}

/**
 * Metrics of something that all processes have in common. Each process that uses it counts the same, so the greatest
 * count is that of all together.
 */
const SEEN_BY_ALL = new Set(['sluice_quota_low', 'sluice_budget_low'])

function together(name: string, a: number, b: number): number {
  return SEEN_BY_ALL.has(name) ? Math.max(a, b) : a + b
}

/** Metrics by their names. */
type Counts = Map<string, Metric>

/**
 * What workers have counted: the latest values of each that runs, and the sums of those that have ended. So counters
 * and histograms never decrease, whatever happens to a worker. No operation holds the event loop for long, however many
 * series there are.
 */
export class WorkerCounts {
  readonly #running = new Map<number, Counts>()
  /** The counts of ended workers that are not all in the sums yet. */
  readonly #ending = new Set<Counts>()
  readonly #ended: Counts = new Map()

  /** Takes the values that a worker sends. If messages arrive out of order, the greater value counts. */
  note(worker: number, { name, help, type, values }: CountPiece): void {
    const known = this.#running.getOrInsertComputed(worker, () => new Map())
    const base = type === 'counter' ? name.replace(/_total$/, '') : name
    const metric = known.getOrInsertComputed(base, () => ({
      help,
      type,
      values: new Map<string, CountValue>(),
      added: new Map<string, number>(),
    }))
    for (const told of values) {
      const line = lineOf(base, type, told)
      const before = metric.values.get(line)
      const value = SEEN_BY_ALL.has(base) ? this.#goingOn(metric, { base, line, told }) : told
      if (before === undefined || value.value >= before.value) metric.values.set(line, value)
    }
  }

  /**
   * Lets a worker that began later go on from the count of the others. Otherwise the greatest count would stand still
   * until the worker has caught up.
   */
  #goingOn({ added }: Metric, { base, line, told }: { base: string; line: string; told: CountValue }): CountValue {
    const offset = added.getOrInsertComputed(line, () =>
      Math.max(0, totalOf(line, base, this.#sources).value - told.value),
    )
    return { ...told, value: told.value + offset }
  }

  /** The sums come last, so that a value that moves there meanwhile is still found. */
  get #sources(): readonly Counts[] {
    return [...this.#running.values(), ...this.#ending, this.#ended]
  }

  /** Keeps what an ended worker has counted. Resolves when all of it is in the sums. */
  async end(worker: number): Promise<void> {
    const counts = this.#running.get(worker)
    if (counts === undefined) return
    this.#running.delete(worker)
    this.#ending.add(counts)
    let merged = 0
    for (const [name, { help, type, values }] of counts) {
      const sums = this.#ended.getOrInsertComputed(name, () => ({
        help,
        type,
        values: new Map(),
        added: new Map(),
      })).values
      for (const [line, value] of values) {
        const before = sums.get(line)
        sums.set(line, before === undefined ? value : { ...value, value: together(name, before.value, value.value) })
        values.delete(line)
        if (++merged % VALUES_A_TURN === 0) await nextTurn()
      }
    }
    this.#ending.delete(counts)
  }

  /** What all workers have counted together, in the OpenMetrics format, in pieces. Each series has its latest exemplar. */
  async *exposition(): AsyncGenerator<string, void, void> {
    const sources = this.#sources
    const names = new Set(sources.flatMap((counts) => [...counts.keys()]))
    for (const name of names) {
      const { help, type } = sources.find((counts) => counts.has(name))!.get(name)!
      let text = `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`
      const written = new Set<string>()
      let lines = 0
      for (const counts of sources) {
        for (const line of counts.get(name)?.values.keys() ?? []) {
          if (written.has(line)) continue
          written.add(line)
          text += lineWithSum(line, name, sources)
          // The lines of a histogram belong together, and this is the last of them.
          if (++lines < VALUES_A_TURN || (type === 'histogram' && !line.startsWith(`${name}_count`))) continue
          yield text
          text = ''
          lines = 0
          await nextTurn()
        }
      }
      yield text
    }
  }
}

/** Whether a metric only grows: a counter or a histogram. */
export function isCount({ type }: { readonly type?: unknown }): boolean {
  return type === 'counter' || type === 'histogram'
}

/** The changes of the counters and histograms of a registry since the last call, in pieces. */
export async function* unsentCounts(registry: Registry): AsyncGenerator<CountPiece, void, void> {
  for (const metric of registry.getMetricsAsArray() as unknown as ({ type?: unknown; get(): unknown } | Family)[]) {
    if (metric instanceof Family) yield* metric.unsent()
    else if (isCount(metric)) yield (await metric.get()) as CountPiece
  }
}

function lineOf(
  name: string,
  type: CountPiece['type'],
  { metricName = name, labels, sharedLabels }: CountValue,
): string {
  const series = type === 'counter' ? `${name}_total` : metricName
  const text = textOf({ ...sharedLabels, ...labels })
  return text === '' ? series : `${series}{${text}}`
}

function lineWithSum(line: string, name: string, sources: readonly Counts[]): string {
  const { value, exemplar } = totalOf(line, name, sources)
  return `${line} ${value}${exemplarText(exemplar)}\n`
}

function totalOf(line: string, name: string, sources: readonly Counts[]): Pick<CountValue, 'value' | 'exemplar'> {
  let sum = 0
  let exemplar: CountValue['exemplar']
  for (const counts of sources) {
    const value = counts.get(name)?.values.get(line)
    if (value === undefined) continue
    sum = together(name, sum, value.value)
    if (value.exemplar && value.exemplar.timestamp > (exemplar?.timestamp ?? 0)) exemplar = value.exemplar
  }
  return { value: sum, exemplar }
}
