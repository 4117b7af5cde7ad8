import { createRequire } from 'node:module'
import type { LookupFunction } from 'node:net'
import type * as Jose from 'jose'
import { Agent, fetch } from 'undici'
import type { IssuerConfig } from '../schema/issuer-schema.ts'
import type { Clock } from '../time/clock.ts'

const TIMEOUT_MS = 5_000
const LARGEST_ANSWER = 262_144

const require = createRequire(import.meta.url)

/** The library for JWTs, loaded with the first issuer: a gateway without one should not hold it. */
export function jose(): typeof Jose {
  return require('jose') as typeof Jose
}

/** A token can't be verified, because the keys of its issuer could never be fetched. */
export class KeysUnavailableError extends Error {}

/**
 * The public keys of one issuer. They are cached, and fetched again when they are old or when a token names an unknown
 * key, though at most once per cooldown. While the issuer can't be reached, the cached ones stay in use.
 */
export class IssuerKeys {
  readonly #remote: ReturnType<typeof Jose.createRemoteJWKSet>
  readonly #agent: Agent
  readonly #clock: Clock
  readonly #cooldownMs: number
  #failedAt = -Infinity

  constructor({ jwks, refresh, cooldown }: IssuerConfig, clock: Clock, lookup: LookupFunction) {
    this.#clock = clock
    this.#cooldownMs = cooldown
    const agent = new Agent({ connect: { timeout: TIMEOUT_MS, lookup }, maxResponseSize: LARGEST_ANSWER })
    this.#agent = agent
    const { createRemoteJWKSet, customFetch } = jose()
    this.#remote = createRemoteJWKSet(new URL(jwks), {
      cacheMaxAge: refresh,
      cooldownDuration: cooldown,
      timeoutDuration: TIMEOUT_MS,
      [customFetch]: (url: string, options: object) => fetch(url, { ...options, dispatcher: agent }),
    })
  }

  /** Finds the key of a token, for `jwtVerify`. Throws a `KeysUnavailableError` if no keys were ever fetched. */
  readonly find: Jose.JWTVerifyGetKey = async (header, token) => {
    const { createLocalJWKSet, errors } = jose()
    const isFailing = this.#clock.now() - this.#failedAt < this.#cooldownMs
    if (!isFailing) {
      try {
        return await this.#remote(header, token)
      } catch (error) {
        // The issuer answered, and it has no such key.
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
