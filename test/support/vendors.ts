import type { SimulatedClock } from './simulated-clock.ts'

/** What a stand-in for a vendor answers. */
export interface Verdict {
  readonly status: number
  readonly headers?: Record<string, string>
  readonly body?: object
  /** How many units it counted; undefined for a refusal. */
  readonly units?: number
  /** Called when the answer is sent: the units that it counts less in the end. */
  readonly refund?: () => number
}

export interface Asked {
  readonly method: string
  readonly path: string
  readonly body: string
}

/** A vendor that counts calls when they arrive. */
export type Vendor = (asked: Asked, now: number) => Verdict

/** So many units in any time of that length. */
export class Rolling {
  readonly #limit: number
  readonly #windowMs: number
  readonly #counted: number[] = []

  constructor(limit: number, windowMs: number) {
    this.#limit = limit
    this.#windowMs = windowMs
  }

  left(now: number): number {
    while (this.#counted.length > 0 && this.#counted[0]! <= now - this.#windowMs) this.#counted.shift()
    return this.#limit - this.#counted.length
  }

  count(now: number): void {
    this.#counted.push(now)
  }
}

/** So many units from one multiple of that length to the next. */
export class Aligned {
  readonly limit: number
  readonly windowMs: number
  #window = -1
  #used = 0

  constructor(limit: number, windowMs: number) {
    this.limit = limit
    this.windowMs = windowMs
  }

  left(now: number): number {
    const window = Math.floor(now / this.windowMs)
    if (window !== this.#window) [this.#window, this.#used] = [window, 0]
    return this.limit - this.#used
  }

  count(now: number, units = 1): void {
    this.left(now)
    this.#used += units
  }

  resetMs(now: number): number {
    return this.windowMs - (now % this.windowMs)
  }
}

/** A bucket of that size that leaks so much in a second. */
export class LeakyBucket {
  readonly size: number
  readonly leak: number
  #level = 0
  #at: number

  constructor(size: number, leak: number, clock: SimulatedClock) {
    this.size = size
    this.leak = leak
    this.#at = clock.wall()
  }

  level(now: number): number {
    this.#level = Math.max(0, this.#level - ((now - this.#at) / 1_000) * this.leak)
    this.#at = now
    return this.#level
  }

  /** Puts in so many units, or takes them out; returns whether they fit. */
  add(now: number, units: number): boolean {
    if (this.level(now) + units > this.size + 1e-9) return false
    this.#level = Math.max(0, this.#level + units)
    return true
  }
}
