import type { Secret } from '../schema/secret.ts'
import type { Clock } from '../time/clock.ts'
import { Refusals } from './refusals.ts'

/**
 * Another look at where the secrets of a credential come from, because an upstream refused them. There is one at a time, however many calls
 * were refused: each of those waits for its end. Nobody else does, because a source may be away for long.
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

  /** Begins to look, if that is worth it. Returns whether a look goes on now. */
  begin(): boolean {
    if (this.#pending !== undefined) return true
    // The sources are known only once the secrets are followed, which is after the credential was made.
    const changeable = this.#secrets.filter(({ lookAgain }) => lookAgain !== undefined)
    if (changeable.length === 0 || !this.#refusals.isReason()) return false
    const looks = changeable.map((secret) => secret.lookAgain!())
    this.#pending = Promise.allSettled(looks).then(() => (this.#pending = undefined))
    return true
  }
}
