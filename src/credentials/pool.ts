import type { Clock } from '../time/clock.ts'
import type { AccountConfig } from '../schema/schema.ts'
import type { Route } from '../routing/route.ts'
import { buildCredential, type CredentialPlace, type CredentialServices } from './build.ts'
import type { Credential, RequestHead, Unproven } from './credential.ts'
import { type CredentialSet, type Expiry, expiryOf } from './credential-set.ts'

const USUAL_QUARANTINE_MS = 60_000

/**
 * Several credentials of one account. They are used in turn, or each time the one with the fewest calls in flight. One
 * that the upstream refuses is quarantined. If all are, the one whose quarantine ends first is used.
 */
export class CredentialPool implements CredentialSet {
  readonly name: string
  readonly headerNames: readonly string[]
  readonly #members: readonly Member[]
  readonly #configs: readonly object[]
  readonly #isByUse: boolean
  readonly #clock: Clock
  #turn = 0

  constructor(
    place: CredentialPlace,
    configs: NonNullable<AccountConfig['credentials']>,
    { choose = 'least-used', quarantine = USUAL_QUARANTINE_MS }: NonNullable<AccountConfig['pool']> = {},
    services: CredentialServices,
  ) {
    this.name = `${place.upstream}/${place.account}`
    this.#clock = services.clock
    this.#isByUse = choose === 'least-used'
    this.#configs = configs
    this.#members = configs.map(({ name, ...config }) => {
      const inner = buildCredential(place, config, services)
      const onQuarantine = (status: number): void => {
        const message = 'a credential of a pool is refused and left out for a while'
        services.logger?.warn({ credential: `${this.name}#${name}`, status }, message)
      }
      const hasOthers = (): boolean => this.#members.length - this.quarantined > 0
      const options = { quarantine, clock: services.clock, onQuarantine, hasOthers }
      return new Member(`${this.name}#${name}`, name, inner, options)
    })
    this.headerNames = [...new Set(this.#members.flatMap(({ headerNames }) => headerNames))]
  }

  choose(): Credential {
    const now = this.#clock.now()
    const count = this.#members.length
    const first = this.#turn++ % count
    let chosen: Member | undefined
    let soonest: Member | undefined
    for (let i = 0; i < count; i++) {
      const member = this.#members[(first + i) % count]!
      if (member.quarantinedUntil > now) {
        if (soonest === undefined || member.quarantinedUntil < soonest.quarantinedUntil) soonest = member
      } else if (chosen === undefined || (this.#isByUse && member.inFlight < chosen.inFlight)) chosen = member
    }
    return (chosen ?? soonest)!
  }

  get quarantined(): number {
    const now = this.#clock.now()
    return this.#members.filter(({ quarantinedUntil }) => quarantinedUntil > now).length
  }

  get expiries(): readonly Expiry[] {
    return this.#members.flatMap(({ name }, i) => expiryOf(name, this.#configs[i]!))
  }
}

interface MemberOptions {
  readonly quarantine: number
  readonly clock: Clock
  onQuarantine(status: number): void
  hasOthers(): boolean
}

class Member implements Credential {
  readonly name: string
  readonly headerNames: readonly string[]
  readonly isRenewable = true
  /** Its name within the pool, by which limits with `scope: credential` tell it from the other members. */
  readonly member: string
  inFlight = 0
  quarantinedUntil = -Infinity
  readonly #inner: Credential
  readonly #options: MemberOptions

  constructor(name: string, member: string, inner: Credential, options: MemberOptions) {
    this.name = name
    this.member = member
    this.headerNames = inner.headerNames
    this.#inner = inner
    this.#options = options
  }

  get version(): number {
    return this.#inner.version
  }

  get exposed(): string {
    return this.#inner.exposed
  }

  whyNot(request: RequestHead): string | undefined {
    return this.#inner.whyNot?.(request)
  }

  ready(): Promise<void> | undefined {
    return this.#inner.ready?.()
  }

  /** Asked once this member is quarantined itself. */
  get hasOthers(): boolean {
    return this.#options.hasOthers()
  }

  take(): Disposable {
    this.inFlight++
    return { [Symbol.dispose]: () => void this.inFlight-- }
  }

  addTo(request: Unproven, route: Route): void {
    this.#inner.addTo(request, route)
  }

  /** After 401 or 403 the call is sent again with another member. After 429 the call's own retry policy decides. */
  refused(status: number, version: number, isRetryable: boolean, retryAfterMs = 0): boolean {
    // The upstream may have revoked the token. The credential that it was issued to may be good.
    if (status === 401 && this.#inner.isRenewable && this.#inner.refused(status, version, isRetryable)) return true
    const { quarantine, clock, onQuarantine } = this.#options
    const now = clock.now()
    if (this.quarantinedUntil <= now) onQuarantine(status)
    this.quarantinedUntil = now + (status === 429 && retryAfterMs > 0 ? retryAfterMs : quarantine)
    return status !== 429
  }
}
