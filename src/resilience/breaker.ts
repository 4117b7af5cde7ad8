/*
 * src/resilience: when to retry, when to hedge, and when to stop calling an upstream at all.
 * It imports only time, and decides: it never sends anything.
 * A change here must prove its states under a stepped clock (test/resilience).
 */

import type { Clock } from '../time/clock.ts'

export type BreakerState = 'closed' | 'half-open' | 'open'

/**
 * The permission to send one call. What it reports counts only if the breaker has not changed its state meanwhile: a
 * call that began before an opening says nothing about the time after it. Only the first report of a probe counts.
 * Declared with `using`, it counts as `abandoned` at the end of its scope unless it has reported before.
 */
export interface BreakerPermit extends Disposable {
  /** Whether the call probes whether the upstream works again. */
  readonly isProbe: boolean
  /** The response headers arrived in time and are no failure. The body may still break off. */
  answered(): void
  /** After `answered`: the whole response arrived, or its body came for long, or until its client left. May be called again. */
  completed(): void
  /** The call failed: instead of `answered`, or instead of `completed` if the body broke off. */
  failed(failure: BreakerFailure): void
  /** The call says nothing about the upstream: the client left, or the gateway refused it. */
  abandoned(): void
}

/** How a call failed, for the log line of an opening. */
export interface BreakerFailure {
  /** Such as "status 503". */
  readonly because: string
  readonly correlationId: string
}

export interface BreakerOptions {
  readonly clock: Clock
  /** How many failures in a row open the breaker. */
  readonly failures: number
  /** How long the breaker stays open, in milliseconds: twice as long each time it opens again soon, up to `maxResetMs`. */
  readonly resetMs: number
  readonly maxResetMs: number
  /**
   * How many calls may probe the upstream at once, and how many must succeed. If `resetMs` has passed since the latest probe
   * began, one more may probe.
   */
  readonly probes: number
  onChange(state: BreakerState, change: BreakerChange): void
}

export interface BreakerChange {
  /** How long the breaker stays open, in milliseconds; undefined if it is not open, or stays open until it is closed by hand. */
  readonly forMs: number | undefined
  readonly isByHand: boolean
  /** The failure that opened the breaker; undefined if it is not open, or was opened by hand. */
  readonly failure: BreakerFailure | undefined
}

type State =
  | { readonly kind: 'closed'; readonly first: BreakerPermit; readonly retry: BreakerPermit }
  /** `until` is Infinity if the breaker was opened by hand. It then stays open until it is closed by hand. */
  | { readonly kind: 'open'; readonly until: number }
  | { readonly kind: 'half-open'; probing: number; succeeded: number; probedAt: number }

/** How long a client is told to wait while other calls probe. */
const PROBE_SOON_MS = 1_000

/**
 * Stops calls to an upstream that keeps failing. After `failures` in a row it opens for a while, and then lets a few
 * calls probe. It needs no timers: it checks whether an opening is over when somebody asks. No library that we know fits:
 * each opens by a rate over time, counts calls that began before an opening, or lacks several probes, growing pauses and a
 * clock that can be stepped.
 */
export class Breaker {
  readonly #options: BreakerOptions
  #state: State = this.#closed()
  /** How often in a row it opened again soon after an opening, and how long the last opening was. */
  #again = 0
  #lastMs = 0
  #closedAt = -Infinity
  #openedBy: BreakerFailure | undefined

  constructor(options: BreakerOptions) {
    this.#options = options
  }

  get state(): BreakerState {
    this.#look()
    return this.#state.kind
  }

  /** Whether a call that came now would be refused. */
  get isRefusing(): boolean {
    return this.#state.kind !== 'closed' && !this.#mayProbe()
  }

  /** Whether it was opened by hand. It then stays open until it is closed by hand. */
  get isHeld(): boolean {
    return this.#state.kind === 'open' && this.#state.until === Infinity
  }

  /** The failure that opened it; undefined while it is closed, and if it was opened by hand. */
  get openedBy(): BreakerFailure | undefined {
    return this.#openedBy
  }

  /** Milliseconds until a call may probe the upstream again. It is a guess while others probe, or if it was opened by hand. */
  get retryAfterMs(): number {
    const state = this.#state
    if (state.kind !== 'open') return PROBE_SOON_MS
    if (state.until === Infinity) return this.#options.resetMs
    return Math.max(PROBE_SOON_MS, state.until - this.#options.clock.now())
  }

  /**
   * Returns a permit to send a call; undefined if the breaker refuses it. While it is closed, a failed retry does not count:
   * one client that keeps requesting the one thing that fails must not block the upstream for all others.
   */
  enter({ isRetry }: { isRetry: boolean }): BreakerPermit | undefined {
    const state = this.#state
    if (state.kind === 'closed') return isRetry ? state.retry : state.first
    return this.#mayProbe() ? this.#probe() : undefined
  }

  /** Opens it until it is closed by hand. */
  hold(): void {
    this.#change({ kind: 'open', until: Infinity }, { isByHand: true })
  }

  /** Closes it by hand, now. From then on failures may open it again. */
  close(): void {
    this.#again = 0
    this.#change(this.#closed(), { isByHand: true })
  }

  #look(): void {
    const state = this.#state
    if (state.kind !== 'open' || state.until > this.#options.clock.now()) return
    this.#change({ kind: 'half-open', probing: 0, succeeded: 0, probedAt: -Infinity })
  }

  #mayProbe(): boolean {
    this.#look()
    const state = this.#state
    if (state.kind !== 'half-open') return false
    const { probes, resetMs, clock } = this.#options
    // A probe may be an upload that takes hours and reports nothing meanwhile. Without one more, no other call would get through.
    return state.probing + state.succeeded < probes || state.probedAt + resetMs <= clock.now()
  }

  /** One permit for all calls while it is closed, and one for their retries. */
  #closed(): State {
    let inARow = 0
    const first: BreakerPermit = {
      isProbe: false,
      answered: nothing,
      completed: () => void (inARow = 0),
      failed: (failure) => {
        if (++inARow === this.#options.failures && this.#state === state) this.#open(failure)
      },
      abandoned: nothing,
      [Symbol.dispose]: nothing,
    }
    const state: State = { kind: 'closed', first, retry: { ...first, failed: nothing } }
    return state
  }

  #probe(): BreakerPermit {
    const state = this.#state as State & { kind: 'half-open' }
    state.probing++
    state.probedAt = this.#options.clock.now()
    let isTold = false
    const once =
      <T extends unknown[]>(tell: (...what: T) => void) =>
      (...what: T): void => {
        if (isTold) return
        isTold = true
        state.probing--
        if (this.#state === state) tell(...what)
      }
    const abandoned = once(nothing)
    return {
      isProbe: true,
      answered: once(() => {
        if (++state.succeeded < this.#options.probes) return
        this.#closedAt = this.#options.clock.now()
        this.#change(this.#closed())
      }),
      completed: nothing,
      failed: once((failure: BreakerFailure) => this.#open(failure)),
      abandoned,
      [Symbol.dispose]: abandoned,
    }
  }

  #open(failure: BreakerFailure): void {
    const { clock, resetMs, maxResetMs } = this.#options
    const now = clock.now()
    const isSoon = this.#state.kind === 'half-open' || now - this.#closedAt < this.#lastMs
    this.#again = isSoon ? this.#again + 1 : 0
    this.#lastMs = Math.max(resetMs, Math.min(maxResetMs, resetMs * 2 ** this.#again))
    this.#change({ kind: 'open', until: now + this.#lastMs }, { failure })
  }

  #change(state: State, { isByHand = false, failure }: { isByHand?: boolean; failure?: BreakerFailure } = {}): void {
    this.#state = state
    if (state.kind !== 'half-open') this.#openedBy = failure
    const forMs = state.kind === 'open' && state.until !== Infinity ? this.#lastMs : undefined
    this.#options.onChange(state.kind, { forMs, isByHand, failure })
  }
}

function nothing(): void {}
