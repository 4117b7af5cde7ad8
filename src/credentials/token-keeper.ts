import type { Clock, Random } from '../time/clock.ts'
import { backoffOf } from '../resilience/backoff.ts'
import { Refusals } from './refusals.ts'

/** Its times are those of `Clock.now`: however the wall clock is set, it lasts as long as was said when it was had. */
export interface Token {
  readonly text: string
  readonly expiresAt: number
  /** When to get another one, before this one expires. */
  readonly renewAt: number
  /** For one with dates of our own making in it: how far the wall clock was ahead of `Clock.now` then. */
  readonly wallAheadMs?: number
}

/** Dates in a token that are off by more than this may be refused; vendors allow for a few seconds. */
const MOST_OFF_MS = 2_000

/** Whether it bears dates of a wall clock that has been set since. */
function isMisdated({ wallAheadMs }: Token, clock: Clock): boolean {
  return wallAheadMs !== undefined && Math.abs(clock.wall() - clock.now() - wallAheadMs) > MOST_OFF_MS
}

/** Why no token can be had now, and when it makes sense to ask again. */
export class CredentialUnavailableError extends Error {
  readonly retryAfterMs: number

  constructor(message: string, retryAfterMs: number, cause: unknown) {
    super(message, { cause })
    this.retryAfterMs = retryAfterMs
  }
}

export interface TokenKeeperOptions {
  readonly clock: Clock
  readonly random: Random
  /** Gets a token of its own, or one that another instance got meanwhile: one that `isWanted`. */
  obtain(isWanted: (token: Token) => boolean): Promise<Token>
  onRenewal(error: unknown): void
}

/**
 * Holds a token that expires. It is renewed once however many wait for it; while the old one is valid nobody waits. If it
 * can't be renewed, that is tried again with exponential back-off, and the old one serves for as long as it is valid.
 */
export class TokenKeeper {
  readonly #options: TokenKeeperOptions
  #token: Token | undefined
  /** The upstream does not take the token, though it has not expired. */
  #isRefused = false
  #version = 0
  #renewal: Promise<void> | undefined
  #failures = 0
  #error: unknown
  /** Not before, after a failure. */
  #renewAgainAt = -Infinity
  readonly #refusals: Refusals

  constructor(options: TokenKeeperOptions) {
    this.#options = options
    this.#refusals = new Refusals(options.clock)
  }

  /** How often there was another token. */
  get version(): number {
    return this.#version
  }

  /** The token, valid or not; undefined before the first. */
  get text(): string | undefined {
    return this.#token?.text
  }

  /** Undefined while there is a token to be used; else when there is one. Rejects with a `CredentialUnavailableError`. */
  ready(): Promise<void> | undefined {
    const { clock } = this.#options
    const now = clock.now()
    const token = this.#token
    const isMisfit = token !== undefined && isMisdated(token, clock)
    if (token !== undefined && !this.#isRefused && now < token.renewAt && !isMisfit) return undefined
    const isValid = token !== undefined && now < token.expiresAt && !isMisfit
    if (now < this.#renewAgainAt && this.#renewal === undefined) {
      return isValid ? undefined : Promise.reject(this.#unavailable())
    }
    const renewal = this.#renew()
    if (isValid && !this.#isRefused) return undefined
    return renewal.then(() => {
      // A refused one that is still valid may serve yet, if there is no other.
      if (this.#token === undefined || clock.now() >= this.#token.expiresAt) throw this.#unavailable()
    })
  }

  /**
   * The upstream answered 401 to a call with the token of that version. Whether it makes sense to send the call again,
   * once `ready`: not if it was refused a moment ago and a new token has not helped.
   */
  refused(version: number): boolean {
    if (version !== this.#version || this.#isRefused) return true
    return (this.#isRefused = this.#refusals.isReason())
  }

  /** What the token is made of has changed: the one there is will be replaced. */
  renewSoon(): void {
    if (this.#token !== undefined) this.#token = { ...this.#token, renewAt: -Infinity }
    this.#renewAgainAt = -Infinity
  }

  #renew(): Promise<void> {
    return (this.#renewal ??= this.#renewNow().finally(() => (this.#renewal = undefined)))
  }

  async #renewNow(): Promise<void> {
    const { clock, random, obtain, onRenewal } = this.#options
    const old = this.#token
    try {
      this.#token = await obtain((token) => token.text !== old?.text && clock.now() < token.renewAt)
      this.#version++
      this.#failures = 0
      this.#renewAgainAt = -Infinity
      onRenewal(undefined)
    } catch (error) {
      this.#error = error
      // At least half of it, so that those who failed together do not come back together, nor at once.
      this.#renewAgainAt = clock.now() + backoffOf(++this.#failures) * (0.5 + random() / 2)
      onRenewal(error)
    }
    this.#isRefused = false
  }

  #unavailable(): CredentialUnavailableError {
    const leftMs = Math.max(0, this.#renewAgainAt - this.#options.clock.now())
    const why = this.#error instanceof Error ? this.#error.message : 'no token could be had'
    return new CredentialUnavailableError(why, leftMs, this.#error)
  }
}
