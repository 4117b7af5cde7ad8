import type { Clock } from '../time/clock.ts'
import type { CredentialConfig } from '../schema/schema.ts'
import type { Route } from '../routing/route.ts'
import { buildCredential, type CredentialPlace, type CredentialServices, identityOf } from './build.ts'
import type { Credential, RequestHead, Unproven } from './credential.ts'
import { type CredentialSet, type Expiry, expiryOf } from './credential-set.ts'
import { TokenEndpointAwayError } from './oauth2.ts'
import { Secret, secretsIn } from '../schema/secret.ts'

/** Share of the calls that a new credential gets by default. */
const USUAL_CANARY = 0.05
/** How long at most the next credential is not used after a call with it was answered 403, or its token endpoint was down. */
const SUSPICION_MS = 60_000

/** Whether the credential can ever have a next value, from the configuration or from a secret store. */
export function isRotating(config: CredentialConfig): boolean {
  // `check --no-secrets` leaves references unresolved. Then the value of the secret is the reference itself.
  const texts = secretsIn(config).map((secret) => secret.template?.text ?? secret.reveal())
  return config.next !== undefined || texts.some((text) => text.includes('${secret:'))
}

/**
 * The current credential and, during a rotation, the next one. The next one gets its share of the calls until it
 * replaces the current one, or until the upstream refuses it. A call that was refused with the next one is sent again
 * with the current one.
 */
export class Rotation implements CredentialSet {
  readonly name: string
  readonly headerNames: readonly string[]
  readonly #place: CredentialPlace
  readonly #config: CredentialConfig
  readonly #services: CredentialServices
  readonly #current: Credential
  #canary: Canary | undefined
  #identity: string | undefined

  constructor(place: CredentialPlace, config: CredentialConfig, services: CredentialServices) {
    this.#place = place
    this.#config = config
    this.#services = services
    this.#current = buildCredential(place, withoutNext(config), services)
    this.name = this.#current.name
    this.#renew()
    for (const secret of secretsIn(config)) secret.onChange(() => this.#renew())
    const names = [...this.#current.headerNames, ...(this.#canary?.headerNames ?? [])]
    this.headerNames = [...new Set(names)]
  }

  choose(): Credential {
    const canary = this.#canary
    if (canary === undefined || canary.isRolledBack) return this.#current
    return this.#services.random() < (this.#config.canary ?? USUAL_CANARY) ? canary : this.#current
  }

  get expiries(): readonly Expiry[] {
    const next = nextOf(this.#config)
    return [
      ...expiryOf(this.name, withoutNext(this.#config)),
      ...(next === undefined ? [] : expiryOf(`${this.name} next`, next)),
    ]
  }

  /** Puts the next value on trial if it has changed. One that was refused stays refused until it changes. */
  #renew(): void {
    const next = nextOf(this.#config)
    const identity = next && identityOf(next, this.#place.header)
    if (identity === this.#identity) return
    this.#identity = identity
    this.#canary = next && this.#canaryOf(next)
  }

  #canaryOf(next: CredentialConfig): Canary {
    const { clock } = this.#services
    const report = this.#report()
    const canary = new Canary(this.#current, buildCredential(this.#place, next, this.#services), clock, (reason) => {
      // This value may have been replaced while a call with it was in flight. Its refusal says nothing of the new value.
      if (this.#canary === canary) report(reason)
    })
    return canary
  }

  #report(): (status: string) => void {
    const { upstream, account } = this.#place
    const rollbacks = this.#services.metrics.credentialRollbacks.of({ upstream, account })
    return (reason) => {
      rollbacks.increment()
      for (const secret of secretsIn(this.#config)) if (secret.next !== undefined) secret.nextRefused?.()
      const message = 'the new credential is refused: all calls go on with the old one'
      this.#services.logger?.error({ credential: this.name, reason }, message)
    }
  }
}

/** The next credential on trial. Once it is rolled back, it behaves like the current one. */
class Canary implements Credential {
  readonly name: string
  readonly headerNames: readonly string[]
  readonly isRenewable = true
  readonly #old: Credential
  readonly #new: Credential
  readonly #clock: Clock
  readonly #onRollback: (reason: string) => void
  /**
   * `suspected`: a call with the new credential was answered 403, and the same call with the old one is not answered
   * yet.
   */
  #state: 'trusted' | 'suspected' | 'rolled back' = 'trusted'
  #suspectedAt = -Infinity
  /** When its token endpoint was last down. */
  #awayAt = -Infinity

  constructor(old: Credential, next: Credential, clock: Clock, onRollback: (reason: string) => void) {
    this.name = next.name
    this.headerNames = next.headerNames
    this.#old = old
    this.#new = next
    this.#clock = clock
    this.#onRollback = onRollback
  }

  /** Whether the old credential is used instead: for good after a rollback, for a while if it is suspected or can't be had. */
  get isRolledBack(): boolean {
    if (this.#state === 'rolled back') return true
    // If the call that caused the suspicion was given up, nobody will resolve it. So a suspicion ends by itself.
    const since = this.#state === 'suspected' ? Math.max(this.#suspectedAt, this.#awayAt) : this.#awayAt
    return this.#clock.now() - since < SUSPICION_MS
  }

  /** Even versions are those of the new credential, odd ones those of the old. */
  get version(): number {
    return this.isRolledBack ? 2 * this.#old.version + 1 : 2 * this.#new.version
  }

  get exposed(): string {
    return (this.isRolledBack ? this.#old : this.#new).exposed
  }

  whyNot(request: RequestHead): string | undefined {
    return this.#new.whyNot?.(request) ?? this.#old.whyNot?.(request)
  }

  ready(wasRefused?: boolean): Promise<void> | undefined {
    if (this.isRolledBack) return this.#old.ready?.(wasRefused)
    return this.#new.ready?.(wasRefused)?.catch((error: unknown) => {
      // If the token endpoint is down, the credential is not to blame. It is tried again later.
      if (error instanceof Error && error.cause instanceof TokenEndpointAwayError) this.#awayAt = this.#clock.now()
      else this.#rollBack(error instanceof Error ? error.message : 'no token can be had')
      return this.#old.ready?.()
    })
  }

  addTo(request: Unproven, route: Route): void {
    ;(this.isRolledBack ? this.#old : this.#new).addTo(request, route)
  }

  /**
   * A 401 rolls the new credential back. A 403 may be about the call: the call is sent again with the old credential,
   * and `settled` decides by the answer. A 403 to a call that can't be sent again changes nothing.
   */
  refused(status: number, version: number, isRetryable: boolean): boolean {
    if (version % 2 === 1) return this.#old.refused(status, (version - 1) / 2, isRetryable)
    if (status !== 401 && status !== 403) return false
    if (status === 401) this.#rollBack('the upstream answered 401')
    else if (!isRetryable) return false
    else {
      if (this.#state !== 'rolled back') this.#state = 'suspected'
      this.#suspectedAt = this.#clock.now()
    }
    return true
  }

  settled(status: number, _: boolean, version: number): void {
    // An even version says that the retry went out with the new credential: it had waited until the suspicion was over.
    if (this.#state !== 'suspected' || version % 2 === 0) return
    if (status === 401 || status === 403) this.#state = 'trusted'
    else if (status < 400) this.#rollBack('the upstream answered 403, and not so to the old one')
  }

  #rollBack(reason: string): void {
    if (this.#state === 'rolled back') return
    this.#state = 'rolled back'
    this.#onRollback(reason)
  }
}

function withoutNext(config: CredentialConfig): CredentialConfig {
  const { next: _next, canary: _canary, ...rest } = config
  return rest
}

function nextOf(config: CredentialConfig): CredentialConfig | undefined {
  if (config.next !== undefined) return config.next
  if (!secretsIn(config).some((secret) => secret.next !== undefined)) return undefined
  const fields = Object.entries(withoutNext(config)).map(([key, value]: [string, unknown]) => [
    key,
    value instanceof Secret ? (value.next ?? value) : value,
  ])
  return Object.fromEntries(fields) as CredentialConfig
}
