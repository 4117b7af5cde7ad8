import { hash } from 'node:crypto'
import type { LookupFunction } from 'node:net'
import type * as Jose from 'jose'
import { LRUCache } from 'lru-cache'
import type { Clock } from '../time/clock.ts'
import type { IssuerConfig } from '../schema/issuer-schema.ts'
import { isLocalhost } from '../net/address.ts'
import { guardedLookup } from '../net/guarded-lookup.ts'
import { isAddressAllowed, type NetworkAccess } from './network-access.ts'
import type { Agent } from 'undici'
import { jose } from '../packages/jose.ts'
import { allOfUndici } from '../packages/undici.ts'

/** The outcome of a verification: the claims of a token, or why it was not accepted. */
export type Verdict =
  | { readonly kind: 'valid'; readonly issuer: string; readonly claims: Jose.JWTPayload }
  | { readonly kind: 'invalid'; readonly why: string }
  | { readonly kind: 'unavailable'; readonly issuer: string }

export interface TokenIssuersOptions {
  readonly configs: Readonly<Record<string, IssuerConfig>>
  readonly access: readonly NetworkAccess[]
  readonly clock: Clock
  readonly lookup: LookupFunction | undefined
}

interface Issuer {
  readonly name: string
  readonly config: IssuerConfig
  readonly keys: IssuerKeys
}

/**
 * How long an accepted token is not verified again. Meanwhile it is accepted even if its issuer has withdrawn its key.
 */
const BELIEVED_MS = 60_000
/** How long a rejected token is not verified again. The time is short, because the token's key may be published meanwhile. */
const DISBELIEVED_MS = 1_000
const MOST_KEPT = 10_000
const LONGEST_TOKEN = 16_384

/** Verifies the tokens of several issuers. Each issuer has its own keys and rules. A token names its issuer. */
export class TokenIssuers {
  readonly #clock: Clock
  readonly #issuers = new Map<string, Issuer>()
  /** By the hash of the token. */
  readonly #verdicts = new LRUCache<
    string,
    { readonly verdict: Verdict; readonly until: number; readonly expires: number }
  >({ max: MOST_KEPT })

  constructor({ configs, access, clock, lookup }: TokenIssuersOptions) {
    this.#clock = clock
    for (const [name, config] of Object.entries(configs)) {
      const arePrivateAllowed = config.privateAddresses === 'allow' || isLocalhost(new URL(config.jwks).hostname)
      const isAllowed = (address: string): boolean => isAddressAllowed(address, access, arePrivateAllowed)
      const keys = new IssuerKeys(config, clock, guardedLookup({ isAllowed, lookup }))
      this.#issuers.set(config.issuer, { name, config, keys })
    }
  }

  /** The outcome for a token. Undefined if the text is no token of these issuers. `check` must have ended before. */
  verdictOf(token: string): Verdict | undefined {
    if (!isTokenLike(token)) return undefined
    const known = this.#verdicts.get(hash('sha256', token))
    if (known === undefined || known.until <= this.#clock.now()) return undefined
    return known.expires === Infinity || known.expires > this.#clock.wall() ? known.verdict : undefined
  }

  /** Whether a text claims to be a token of one of these issuers. It need not be valid. */
  isClaimed(token: string): boolean {
    return isTokenLike(token) && this.#issuerOf(token) !== undefined
  }

  /** Verifies a token that was not verified yet. Undefined if there is nothing to wait for. */
  check(token: string): Promise<void> | undefined {
    if (!isTokenLike(token) || this.verdictOf(token) !== undefined) return undefined
    const issuer = this.#issuerOf(token)
    return issuer && this.#check(token, issuer)
  }

  close(): void {
    for (const { keys } of this.#issuers.values()) keys.close()
  }

  async #check(token: string, issuer: Issuer): Promise<void> {
    const verdict = await this.#judge(token, issuer)
    const isValid = verdict.kind === 'valid'
    const until = this.#clock.now() + (isValid ? BELIEVED_MS : DISBELIEVED_MS)
    const expires = isValid ? verdict.claims.exp! * 1_000 + issuer.config.clockTolerance : Infinity
    this.#verdicts.set(hash('sha256', token), { verdict, until, expires })
  }

  async #judge(token: string, { name, config, keys }: Issuer): Promise<Verdict> {
    const { issuer, audience, algorithms, clockTolerance } = config
    const options = {
      issuer,
      audience,
      algorithms,
      clockTolerance: clockTolerance / 1_000,
      currentDate: new Date(this.#clock.wall()),
      requiredClaims: ['exp'],
    }
    try {
      return { kind: 'valid', issuer: name, claims: await claimsOf(token, keys.find, options) }
    } catch (error) {
      if (error instanceof KeysUnavailableError) return { kind: 'unavailable', issuer: name }
      if (error instanceof jose().errors.JOSEError) return { kind: 'invalid', why: reasonOf(error) }
      throw error
    }
  }

  /** The issuer that a token claims to be from. The claim is not verified. */
  #issuerOf(token: string): Issuer | undefined {
    try {
      return this.#issuers.get(jose().decodeJwt(token).iss ?? '')
    } catch {
      return undefined
    }
  }
}

function isTokenLike(text: string): boolean {
  return text.startsWith('eyJ') && text.length <= LONGEST_TOKEN && /^[\w-]+\.[\w-]+\.[\w-]+$/.test(text)
}

/** The claims of a token that is valid. Where the token does not say which key has signed it, each that may have is tried. */
async function claimsOf(
  token: string,
  find: Jose.JWTVerifyGetKey,
  options: Jose.JWTVerifyOptions,
): Promise<Jose.JWTPayload> {
  const { errors, jwtVerify } = jose()
  try {
    return (await jwtVerify(token, find, options)).payload
  } catch (error) {
    if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw error
    for await (const key of error) {
      try {
        return (await jwtVerify(token, key, options)).payload
      } catch (unlike) {
        if (!(unlike instanceof errors.JWSSignatureVerificationFailed)) throw unlike
      }
    }
    throw new errors.JWSSignatureVerificationFailed()
  }
}

/** Why a token is rejected, in words that repeat nothing of it. */
function reasonOf(error: Jose.errors.JOSEError): string {
  const { errors } = jose()
  if (error instanceof errors.JWTExpired) return 'it has expired'
  if (error instanceof errors.JWTClaimValidationFailed) return `its claim ${error.claim} is not what it must be`
  if (error instanceof errors.JWKSNoMatchingKey) return 'its issuer has no such key'
  if (error instanceof errors.JOSEAlgNotAllowed) return 'it is signed in a way that is not allowed'
  if (error instanceof errors.JWSSignatureVerificationFailed) return 'its signature is wrong'
  return `it is not well-formed (${error.code})`
}

const TIMEOUT_MS = 5_000
const LARGEST_ANSWER = 262_144

/** A token can't be verified, because the issuer can't be asked for its key. */
class KeysUnavailableError extends Error {}

/**
 * The public keys of one issuer. They are cached. They are fetched again when they are old, or when a token names an unknown key,
 * but for that at most once per cooldown. While the issuer can't be reached, the cached keys stay in use.
 */
class IssuerKeys {
  readonly #remote: ReturnType<typeof Jose.createRemoteJWKSet>
  readonly #agent: Agent
  readonly #clock: Clock
  readonly #cooldownMs: number
  #failedAt = -Infinity

  constructor({ jwks, refresh, cooldown }: IssuerConfig, clock: Clock, lookup: LookupFunction) {
    this.#clock = clock
    this.#cooldownMs = cooldown
    const { Agent, fetch } = allOfUndici()
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

  /** Finds the key of a token, for `jwtVerify`. Throws a `KeysUnavailableError` if the key is not known and can't be asked for. */
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
    try {
      return await createLocalJWKSet(known)(header, token)
    } catch (error) {
      // The issuer may have such a key by now.
      throw error instanceof errors.JWKSNoMatchingKey ? new KeysUnavailableError() : error
    }
  }

  close(): void {
    void this.#agent.close()
  }
}
