import { setTimeout as pause } from 'node:timers/promises'
import type { Clock, EpochMs, Timer } from '../../src/time/clock.ts'

interface Pending {
  readonly at: number
  readonly order: number
  readonly wake: () => void
}

/** A clock that only moves when it is told to, and then wakes whoever is due, in order. */
export class SimulatedClock implements Clock {
  #now: number
  #order = 0
  readonly #pending = new Set<Pending>()

  /** How far the wall clock is ahead of `now`. */
  #wallAheadMs = 0
  readonly boot: string | undefined

  constructor(now = 1_000_000, boot: string | undefined = 'simulated') {
    this.#now = now
    this.boot = boot
  }

  wall(): EpochMs {
    return (this.#now + this.#wallAheadMs) as EpochMs
  }

  /** Sets the wall clock forward, or back. */
  setWall(byMs: number): void {
    this.#wallAheadMs += byMs
  }

  now(): number {
    return this.#now
  }

  schedule(delayMs: number, wake: () => void): Timer {
    const pending = { at: this.#now + Math.max(0, delayMs), order: this.#order++, wake }
    this.#pending.add(pending)
    return { cancel: () => this.#pending.delete(pending) }
  }

  #soon = 0

  soon(run: () => void): void {
    this.#soon++
    setImmediate(() => {
      this.#soon--
      run()
    })
  }

  get timers(): number {
    return this.#pending.size
  }

  /** Milliseconds until each timer is due. */
  get waits(): readonly number[] {
    return [...this.#pending].map(({ at }) => at - this.#now)
  }

  /** Lets `ms` pass. What a timer sets off is finished before the next one wakes. */
  async advance(ms: number): Promise<void> {
    const until = this.#now + ms
    await this.#settled()
    for (let next = this.#next(until); next !== undefined; next = this.#next(until)) {
      this.#pending.delete(next)
      this.#now = Math.max(this.#now, next.at)
      next.wake()
      await this.#settled()
    }
    this.#now = until
  }

  /** Until everything that is ready to run has run. */
  async #settled(): Promise<void> {
    do await new Promise((resolve) => void setImmediate(resolve))
    while (this.#soon > 0)
  }

  #next(until: number): Pending | undefined {
    let next: Pending | undefined
    for (const pending of this.#pending) {
      if (pending.at > until) continue
      if (next === undefined || pending.at < next.at || (pending.at === next.at && pending.order < next.order))
        next = pending
    }
    return next
  }
}

/** Lets time pass little by little until that is done: `stepMs` every few milliseconds of the machine, so that it may be slow. */
export async function stepUntilDone<T>(clock: SimulatedClock, what: Promise<T>, stepMs = 5): Promise<T> {
  let isDone = false
  void what.finally(() => (isDone = true)).catch(() => undefined)
  while (!isDone) {
    await clock.advance(stepMs)
    await pause(10)
  }
  return what
}
