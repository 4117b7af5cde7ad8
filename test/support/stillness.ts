import { readFileSync } from 'node:fs'

const TICK_MS = 50

/**
 * When this process, or one of those given, stood still for so long because the machine gave it no processor: a gap between ticks
 * here; there what Linux counts as waiting, to which the process's own work, however long it takes, adds nothing. On another system
 * only this one is seen.
 */
export class Stillness implements Disposable {
  readonly #leastMs: number
  readonly #now: () => number
  readonly #waited: Map<number, number>
  readonly #stretches: { readonly from: number; readonly until: number }[] = []
  readonly #timer = setInterval(() => this.#tick(), TICK_MS)
  #last: number

  constructor(leastMs: number, now: () => number, pids: readonly number[]) {
    this.#leastMs = leastMs
    this.#now = now
    this.#last = now()
    this.#waited = new Map(pids.map((pid) => [pid, waitedMs(pid)]))
  }

  /** Whether something stood still in that time, or within so long before it. */
  met(began: number, ended: number, clearMs = 0): boolean {
    return this.#stretches.some(({ from, until }) => from <= ended && began <= until + clearMs)
  }

  /** How long anything stood still in all. */
  get ms(): number {
    let [sum, end] = [0, 0]
    for (const { from, until } of this.#stretches.toSorted((a, b) => a.from - b.from)) {
      sum += Math.max(0, until - Math.max(from, end))
      end = Math.max(end, until)
    }
    return sum
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }

  #tick(): void {
    const [from, until] = [this.#last, this.#now()]
    this.#last = until
    if (until - from >= this.#leastMs) this.#stretches.push({ from, until })
    for (const [pid, before] of this.#waited) {
      const after = waitedMs(pid)
      this.#waited.set(pid, after)
      // A wait is counted when it ends, so this one ended since the last tick.
      if (after - before >= this.#leastMs) this.#stretches.push({ from: from - (after - before), until })
    }
  }
}

/** For how long its main thread could have run, but was given no processor. */
function waitedMs(pid: number): number {
  try {
    return Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[1]) / 1e6
  } catch {
    return 0 // it has ended, or this is no Linux
  }
}
