import type { Secret } from '../schema/secret.ts'
import type { Clock } from '../time/clock.ts'
import { Refusals } from './refusals.ts'

/**
 * Reads the secrets of a credential from their sources again, because an upstream refused them. One look runs at a time, however many
 * calls were refused, and each refused call waits for its end. No other call waits, unless it needs a new token, because a source may
 * be away for long.
 */
export class SecretLook {
  readonly #secrets: readonly Secret[]
  readonly #refusals: Refusals
  #pending: Promise<void> | undefined

  constructor(secrets: readonly Secret[], clock: Clock) {
    this.#secrets = secrets
    this.#refusals = new Refusals(clock)
  }

  /** The look that goes on now; undefined if there is none. Never rejects. */
  get pending(): Promise<void> | undefined {
    return this.#pending
  }

  /** Begins a look, if a secret can change and no look began shortly before. Returns whether a look goes on now. */
  begin(): boolean {
    if (this.#pending !== undefined) return true
    // Asked here and not in the constructor: a secret gets its `lookAgain` only after the credential was made.
    const changeable = this.#secrets.filter(({ lookAgain }) => lookAgain !== undefined)
    if (changeable.length === 0 || !this.#refusals.isReason()) return false
    const looks = changeable.map((secret) => secret.lookAgain!())
    this.#pending = Promise.allSettled(looks).then(() => (this.#pending = undefined))
    return true
  }
}
