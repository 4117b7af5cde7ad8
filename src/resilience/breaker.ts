import CircuitBreaker from 'opossum'
import type { Clock } from '../clock.ts'

export type BreakerState = 'closed' | 'half-open' | 'open'

/** Leave to send one call. What it is told first counts, and only if the breaker's state has not changed meanwhile. */
export interface BreakerPermit {
  succeeded(): void
  failed(): void
  /** Nothing was learnt about the upstream: the client left, or the gateway itself refused the call. */
  abandoned(): void
}

export interface BreakerOptions {
  readonly clock: Clock
  /** Failures in a row that open it. */
  readonly failures: number
  readonly resetMs: number
  onChange(state: BreakerState): void
}

/** How soon another call may probe the upstream after one that told nothing. */
const PROBE_AGAIN_MS = 1_000

/**
 * Stops calls to an upstream that keeps failing: after `failures` in a row none for `resetMs`, then one that probes.
 * opossum keeps the state and its times, and runs the probe; while closed, failures are only counted here, for opossum
 * opens by a rate and takes three times as long a call.
 */
export class Breaker {
  readonly #clock: Clock
  readonly #failures: number
  readonly #resetMs: number
  readonly #circuit: CircuitBreaker<[Promise<void>], void>
  #inARow = 0
  #refusesUntil = 0
  /** What calls of the present closed state tell; replaced with every change, so that late results tell nobody. */
  #closedPermit: BreakerPermit = this.#countingPermit()

  constructor({ clock, failures, resetMs, onChange }: BreakerOptions) {
    this.#clock = clock
    this.#failures = failures
    this.#resetMs = resetMs
    this.#circuit = new CircuitBreaker((result: Promise<void>) => result, {
      timeout: false,
      resetTimeout: resetMs,
      enableSnapshots: false,
      rollingPercentilesEnabled: false,
    })
    const changed = (): void => {
      this.#inARow = 0
      this.#closedPermit = this.#countingPermit()
      onChange(this.state)
    }
    this.#circuit.on('open', changed)
    this.#circuit.on('halfOpen', changed)
    this.#circuit.on('close', changed)
  }

  get state(): BreakerState {
    if (this.#circuit.opened) return 'open'
    return this.#circuit.halfOpen ? 'half-open' : 'closed'
  }

  /** Whether a call that came now would be refused. */
  get isRefusing(): boolean {
    return !this.#circuit.closed && !this.#circuit.pendingClose
  }

  /** Milliseconds until a call may probe the upstream again; a second while one is probing. */
  get retryAfterMs(): number {
    return Math.max(PROBE_AGAIN_MS, this.#refusesUntil - this.#clock.now())
  }

  /**
   * Leave to send a call, or undefined while the breaker refuses. Repeats of a call that failed don't count as failures:
   * one client that asks for the one thing that fails must not close the upstream to all others.
   */
  enter({ isRepeat }: { isRepeat: boolean }): BreakerPermit | undefined {
    if (this.#circuit.closed) return isRepeat ? { ...this.#closedPermit, failed: () => undefined } : this.#closedPermit
    return this.isRefusing ? undefined : this.#probingPermit()
  }

  close(): void {
    this.#circuit.shutdown()
  }

  /** One for all calls while closed: each tells it once. */
  #countingPermit(): BreakerPermit {
    const permit: BreakerPermit = {
      succeeded: () => {
        if (permit === this.#closedPermit) this.#inARow = 0
      },
      failed: () => {
        if (permit === this.#closedPermit && ++this.#inARow >= this.#failures) this.#open(this.#resetMs)
      },
      abandoned: () => undefined,
    }
    return permit
  }

  #probingPermit(): BreakerPermit {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    // opossum sees the rejection before it ends here.
    this.#circuit.fire(promise).catch(() => undefined)
    this.#refusesUntil = 0
    let isTold = false
    const first = (tell: () => void) => (): void => {
      if (isTold) return
      isTold = true
      tell()
    }
    return {
      succeeded: first(resolve),
      failed: first(() => {
        this.#refusesUntil = this.#clock.now() + this.#resetMs
        reject(new Error('the probe failed'))
      }),
      // opossum waits for the result of this probe for ever, and lets no other through.
      abandoned: first(() => this.#open(Math.min(PROBE_AGAIN_MS, this.#resetMs))),
    }
  }

  #open(forMs: number): void {
    this.#refusesUntil = this.#clock.now() + forMs
    const { options } = this.#circuit as unknown as { options: { resetTimeout: number } }
    options.resetTimeout = forMs
    this.#circuit.open()
    options.resetTimeout = this.#resetMs
  }
}
