import { hash } from 'node:crypto'
import type { Clock } from '../time/clock.ts'
import type { AccountConfig } from '../schema/schema.ts'
import type { Route } from '../routing/route.ts'
import { buildCredential, type CredentialPlace, type CredentialServices } from './build.ts'
import type { Credential, RequestHead, Unproven } from './credential.ts'
import { type Affinity, type CredentialSet, type Expiry, expiryOf, type Pool } from './credential-set.ts'

const USUAL_QUARANTINE_MS = 60_000
const USUAL_AFFINITY = { header: 'X-Sluice-Session', maxWait: 5_000 }
/** The ends of windows are compared in this unit, because upstreams state them in whole seconds. */
const SAME_END_MS = 1_000

/**
 * Several credentials of one account. `choose` in the configuration says which one is used first:
 * - `expires-first`: the one whose quota comes back soonest, because what is unused of that quota is lost then;
 * - `least-used`: the one with the fewest calls in flight;
 * - `round-robin`: each in turn.
 *
 * A credential that the upstream refuses is quarantined. If all are, the one whose quarantine ends first is used.
 */
export class CredentialPool implements CredentialSet, Pool {
  readonly name: string
  readonly headerNames: readonly string[]
  readonly order: Pool['order']
  readonly affinity: Affinity | undefined
  readonly #members: readonly Member[]
  readonly #configs: readonly object[]
  readonly #clock: Clock
  #turn = 0

  constructor(
    place: CredentialPlace,
    configs: NonNullable<AccountConfig['credentials']>,
    { choose = 'expires-first', quarantine = USUAL_QUARANTINE_MS, affinity }: NonNullable<AccountConfig['pool']> = {},
    services: CredentialServices,
  ) {
    this.name = `${place.upstream}/${place.account}`
    this.order = choose
    this.#clock = services.clock
    this.#configs = configs
    const { header, maxWait } = { ...USUAL_AFFINITY, ...affinity }
    this.affinity = affinity && { header: header.toLowerCase(), maxWaitMs: maxWait }
    this.#members = configs.map(({ name, ...config }) => {
      const inner = buildCredential(place, config, services)
      const onQuarantine = (status: number | undefined): void => {
        const message = 'a credential of a pool is refused and left out for a while'
        services.logger?.warn({ credential: `${this.name}#${name}`, status }, message)
      }
      const others = (self: Member): Member[] => this.#members.filter((one) => one !== self)
      const options = { quarantine, clock: services.clock, onQuarantine, others }
      return new Member(`${this.name}#${name}`, name, inner, options)
    })
    this.headerNames = [...new Set(this.#members.flatMap(({ headerNames }) => headerNames))]
  }

  get pool(): Pool {
    return this
  }

  get members(): readonly string[] {
    return this.#members.map(({ member }) => member)
  }

  choose(): Credential {
    return this.ranked(undefined, () => undefined)[0]!
  }

  ranked(session: string | undefined, endsAt: (member: string) => number | undefined): readonly Credential[] {
    const now = this.#clock.now()
    const turn = this.#turn++ % this.#members.length
    const inTurn = [...this.#members.slice(turn), ...this.#members.slice(0, turn)]
    const usable = inTurn.filter(({ quarantinedUntil }) => quarantinedUntil <= now)
    if (usable.length === 0) return [inTurn.reduce((a, b) => (b.quarantinedUntil < a.quarantinedUntil ? b : a))]
    if (session !== undefined) return inOrderOf(session, usable)
    if (this.order === 'round-robin') return usable
    const urgency = new Map(usable.map((one) => [one, this.order === 'expires-first' ? one.urgency(now, endsAt) : 0]))
    return usable.sort((a, b) => urgency.get(a)! - urgency.get(b)! || a.inFlight - b.inFlight)
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
  onQuarantine(status: number | undefined): void
  others(self: Member): Member[]
}

class Member implements Credential {
  readonly name: string
  readonly headerNames: readonly string[]
  readonly isRenewable = true
  /** Its name within the pool. Limits with `scope: credential` tell the members apart by it. */
  readonly member: string
  inFlight = 0
  quarantinedUntil = -Infinity
  /** When all of its quota comes back, as the upstream said last. */
  #endsAt = -Infinity
  /** Until when nothing of its quota is left, as the upstream said last. */
  #usedUpUntil = -Infinity
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

  ready(wasRefused?: boolean): Promise<void> | undefined {
    return this.#inner.ready?.(wasRefused)
  }

  quotaTold(endsInMs: number, usedUpMs: number): void {
    const now = this.#options.clock.now()
    this.#endsAt = now + endsInMs
    this.#usedUpUntil = now + usedUpMs
  }

  /**
   * Returns the rank of the member; the lowest is used first. Members rank by when their quota comes back. If that is not known, an
   * idle member comes first, because the answer to one call tells of its quota; one with calls in flight comes after the known ones.
   * A member without quota comes last, because the upstream would refuse the call.
   */
  urgency(now: number, endsAt: (member: string) => number | undefined): number {
    if (this.#usedUpUntil > now) return Number.MAX_VALUE
    const end = this.#endsAt > now ? this.#endsAt : (endsAt(this.member) ?? -Infinity)
    if (end > now) return Math.round(end / SAME_END_MS)
    return this.inFlight === 0 ? 0 : Number.MAX_SAFE_INTEGER
  }

  leaveOut(): boolean {
    this.#quarantine(undefined, this.#options.quarantine)
    return this.othersInMs === 0
  }

  #quarantine(status: number | undefined, ms: number): void {
    const { clock, onQuarantine } = this.#options
    const now = clock.now()
    if (this.quarantinedUntil <= now) onQuarantine(status)
    // A refusal that comes late, or says no time, does not end a longer quarantine.
    this.quarantinedUntil = Math.max(this.quarantinedUntil, now + ms)
  }

  get othersInMs(): number {
    const ends = this.#options.others(this).map(({ quarantinedUntil }) => quarantinedUntil)
    return Math.max(0, Math.min(...ends) - this.#options.clock.now())
  }

  take(): Disposable {
    this.inFlight++
    return { [Symbol.dispose]: () => void this.inFlight-- }
  }

  addTo(request: Unproven, route: Route): void {
    this.#inner.addTo(request, route)
  }

  /**
   * After 401 or 403 the call is sent again with another member. After 429 the call's own retry policy decides. A 403 may be about the
   * call and not about the member. So a 403 alone does not quarantine the member: `settled` decides by the answer to the retry.
   */
  refused(status: number, version: number, isRetryable: boolean, retryAfterMs = 0): boolean {
    if (status === 403) return isRetryable && this.othersInMs === 0
    // The upstream may have revoked only the token. The secret that the token was issued for may still be good.
    if (status === 401 && this.#inner.isRenewable && this.#inner.refused(status, version, isRetryable)) return true
    const { quarantine } = this.#options
    this.#quarantine(status, status === 429 && retryAfterMs > 0 ? retryAfterMs : quarantine)
    return status !== 429
  }

  settled(status: number, isSame: boolean): void {
    if (isSame) return
    // A success shows that this member was to blame. An error does not: one member may get 404 where another gets 403.
    if (status < 400) this.#quarantine(403, this.#options.quarantine)
  }
}

/**
 * Sorts the members for one conversation. The hash of member and conversation gives each member a number, and the highest is first
 * (rendezvous hashing). So all gateways find the same order without asking each other. If a member is left out, only the conversations
 * that it came first for go elsewhere.
 */
function inOrderOf(session: string, members: readonly Member[]): readonly Member[] {
  const places = new Map(members.map((one) => [one, hash('sha256', `${one.name}\n${session}`)]))
  return members.toSorted((a, b) => (places.get(a)! < places.get(b)! ? 1 : -1))
}
