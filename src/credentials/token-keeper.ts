import type { Clock, Random } from '../time/clock.ts'
import { Turns } from '../time/turns.ts'
import { backoffOf } from '../resilience/backoff.ts'
import { Refusals } from './refusals.ts'
import type { SecretLook } from './secret-look.ts'

/**
 * An access token. Its times are those of `Clock.now`, so that its lifetime does not change when the wall clock is set.
 */
export interface Token {
  readonly text: string
  readonly expiresAt: number
  /** When it is to be renewed, before it expires. */
  readonly renewAt: number
  /**
   * Only for a token that the gateway itself dated: how far the wall clock was ahead of `Clock.now` at that time, in
   * milliseconds.
   */
  readonly wallAheadMs?: number
}

/** Vendors tolerate dates that are off by a few seconds, but may refuse more than this. */
const MOST_OFF_MS = 2_000

/** Whether the wall clock was set since the token was dated. */
function isMisdated({ wallAheadMs }: Token, clock: Clock): boolean {
  return wallAheadMs !== undefined && Math.abs(clock.wall() - clock.now() - wallAheadMs) > MOST_OFF_MS
}

/** No token is available now. Says why, and when it makes sense to ask again. */
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
  /** Reads again the secrets that the token is made from. A renewal waits until a pending look has ended. */
  readonly look?: Pick<SecretLook, 'pending'>
  /** Gets a new token, or one that another instance got meanwhile and that `isWanted` accepts. */
  obtain(isWanted: (token: Token) => boolean): Promise<Token>
  /** Called after each renewal, with its error; with undefined if it succeeded. */
  onRenewal(error: unknown): void
}

/**
 * Holds a token that expires, and renews it when a call asks for it. One renewal runs at a time, however many calls wait
 * for it. No call waits while the old token is valid and not refused. After a renewal that failed, the next one is
 * tried with exponential backoff, and the old token is used until it expires.
 */
export class TokenKeeper {
  readonly #options: TokenKeeperOptions
  #token: Token | undefined
  /** The upstream refuses the token, though it has not expired. */
  #isRefused = false
  /** What the token is made from has changed since the latest renewal began. */
  #isOutdated = false
  /** The number of the token, from 1; 0 before the first. */
  version = 0
  #renewal: Promise<void> | undefined
  #failures = 0
  #error: unknown
  /** After a failed renewal, when the next one may be tried. */
  #renewAgainAt = -Infinity
  readonly #refusals: Refusals

  constructor(options: TokenKeeperOptions) {
    this.#options = options
    this.#refusals = new Refusals(options.clock)
  }

  /** The token, which may have expired; undefined before the first. */
  get text(): string | undefined {
    return this.#token?.text
  }

  /**
   * Resolves once there is a token to use; undefined if there is one now. Rejects with a `CredentialUnavailableError`
   * if none can be had.
   */
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
    const renewal = (this.#renewal ??= this.#renewNow().finally(() => (this.#renewal = undefined)))
    if (isValid && !this.#isRefused) return undefined
    return renewal.then(async () => {
      await Turns.of(clock).pass()
      // A refused token that has not expired is used if there is no other.
      if (this.#token === undefined || clock.now() >= this.#token.expiresAt) throw this.#unavailable()
    })
  }

  /**
   * Call it when the upstream answered 401 to a call with the token of that version. Returns whether the call should be
   * sent again, after `ready`. It should not if another token was refused shortly before: then a new token does not help.
   */
  refused(version: number): boolean {
    if (version !== this.version || this.#isRefused) return true
    return (this.#isRefused = this.#refusals.isReason())
  }

  /** Call it when a secret that the token is made from has changed. The next call begins a renewal, even if the token is valid. */
  renewSoon(): void {
    this.#isOutdated = true
    if (this.#token !== undefined) this.#token = { ...this.#token, renewAt: -Infinity }
    this.#renewAgainAt = -Infinity
  }

  async #renewNow(): Promise<void> {
    const { clock, random, look, obtain, onRenewal } = this.#options
    if (look?.pending !== undefined) await look.pending
    const old = this.#token
    this.#isOutdated = false
    try {
      this.#token = await obtain((token) => token.text !== old?.text && clock.now() < token.renewAt)
      this.version++
      this.#failures = 0
      this.#renewAgainAt = -Infinity
      onRenewal(undefined)
    } catch (error) {
      this.#error = error
      // The delay is random, so that instances that failed together do not try again together. It is at least half of
      // the backoff, so that none tries again at once.
      this.#renewAgainAt = clock.now() + backoffOf(++this.#failures) * (0.5 + random() / 2)
      onRenewal(error)
    }
    this.#isRefused = false
    if (this.#isOutdated) this.renewSoon()
  }

  #unavailable(): CredentialUnavailableError {
    const leftMs = Math.max(0, this.#renewAgainAt - this.#options.clock.now())
    const why = this.#error instanceof Error ? this.#error.message : 'no token could be had'
    return new CredentialUnavailableError(why, leftMs, this.#error)
  }
}
