import type { LookupFunction } from 'node:net'
import { createLocalJWKSet, createRemoteJWKSet, customFetch, errors, type JWTVerifyGetKey } from 'jose'
import { Agent, fetch } from 'undici'
import type { IssuerConfig } from '../schema/issuer-schema.ts'
import type { Clock } from '../time/clock.ts'

const TIMEOUT_MS = 5_000
const LARGEST_ANSWER = 262_144

/** Nobody can say whether a token is right: its issuer's keys were never had. */
export class KeysUnavailableError extends Error {}

/**
 * The public keys of one issuer: kept, asked for again when they are old, and when a token names one that is not among
 * them, though not more often than the cooldown lets. While the issuer can't be asked, those that are known go on.
 */
export class IssuerKeys {
  readonly #remote: ReturnType<typeof createRemoteJWKSet>
  readonly #agent: Agent
  readonly #clock: Clock
  readonly #cooldownMs: number
  #failedAt = -Infinity

  constructor({ jwks, refresh, cooldown }: IssuerConfig, clock: Clock, lookup: LookupFunction) {
    this.#clock = clock
    this.#cooldownMs = cooldown
    const agent = new Agent({ connect: { timeout: TIMEOUT_MS, lookup }, maxResponseSize: LARGEST_ANSWER })
    this.#agent = agent
    this.#remote = createRemoteJWKSet(new URL(jwks), {
      cacheMaxAge: refresh,
      cooldownDuration: cooldown,
      timeoutDuration: TIMEOUT_MS,
      [customFetch]: (url: string, options: object) => fetch(url, { ...options, dispatcher: agent }),
    })
  }

  /** The key of a token, for `jwtVerify`. Throws a `KeysUnavailableError` if there are none at all. */
  readonly find: JWTVerifyGetKey = async (header, token) => {
    const isFailing = this.#clock.now() - this.#failedAt < this.#cooldownMs
    if (!isFailing) {
      try {
        return await this.#remote(header, token)
      } catch (error) {
        // It answered, and has no such key.
        if (error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWKSMultipleMatchingKeys) throw error
        if (error instanceof errors.JOSENotSupported) throw error
        this.#failedAt = this.#clock.now()
      }
    }
    const known = this.#remote.jwks()
    if (known === undefined) throw new KeysUnavailableError()
    return createLocalJWKSet(known)(header, token)
  }

  close(): void {
    void this.#agent.close()
  }
}
