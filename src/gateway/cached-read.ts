import { type Fields, onlyValue } from '../http/fields.ts'
import { cacheStatus, type CacheStatus, type ForwardReason } from '../cache/cache-status.ts'
import { Capture } from '../cache/capture.ts'
import { agreesWithHead, isAbout, validatorsOf } from '../cache/conditional.ts'
import { type Entry, keptHeaders, toFields, updatedHeaders } from '../cache/entry.ts'
import { type Directives, parseDirectives } from '../cache/fields.ts'
import type { Flight, Landed } from '../cache/flights.ts'
import { Turns } from '../time/turns.ts'
import { type Freshness, freshnessOf, type NotKept } from '../cache/freshness.ts'
import type { SharedCache } from '../cache/open-cache.ts'
import type { CachePolicy } from '../schema/cache-policy.ts'
import { keepMsOf } from '../cache/store.ts'
import { isContent, mayStandIn, bypassReasonOf, useOf } from '../cache/use.ts'
import type { Cancellation } from '../time/cancellation.ts'
import type { CacheResult } from '../observe/metrics.ts'
import type { Route } from '../routing/route.ts'
import { hasBody } from '../upstream/body.ts'
import { responseHeaders } from '../upstream/headers.ts'
import type { Account } from './account.ts'
import { CachePlace } from './cache-place.ts'
import { type Admitting, type Answering, Call, type Identifying, type Target } from './call.ts'
import { Failure, type FailureFacts, FAILURES } from './failure.ts'
import { type Forwarded, GONE, refused } from './forwarded.ts'
import { nullResponse } from './null-response.ts'
import type { ResponseObserver } from './response-observer.ts'
import { countInCache, type StoredAnswer } from './stored-answer.ts'

/** The statuses that stale-if-error covers (RFC 5861 §4). */
const ERRORS = new Set([500, 502, 503, 504])

/** What the cache says of a call. */
export type CacheAnswer =
  /** A stored answer answers it. If `refresh` is given, the upstream is asked for a new one meanwhile. */
  | { readonly kind: 'hit'; readonly answer: StoredAnswer; readonly refresh: Refresh | undefined }
  /** The upstream must be asked. The observer, if there is one, stores or invalidates answers. */
  | { readonly kind: 'miss'; readonly observer: ResponseObserver | undefined }
  /** The upstream must be asked whether the stored answer is still valid. That answer may also stand in for an error. */
  | { readonly kind: 'revalidate'; readonly observer: ResponseObserver }
  /** The client has gone, or wants only a stored answer, and there is none. */
  | Forwarded

/** A call for no client, which asks the upstream for a new answer. */
export interface Refresh {
  readonly call: Call
  readonly target: Target
  readonly observer: ResponseObserver
}

/**
 * A read of a cached route: looks the stored answer up, and stores the answer of the upstream if that is allowed. One class,
 * although it is long, because look-up, revalidation and storing share the entry, the place and the flight.
 */
export class CachedRead implements ResponseObserver {
  /** Set while an entry is revalidated. */
  conditions: readonly string[] | undefined
  readonly #call: Admitting & Answering
  readonly #target: Target
  readonly #policy: CachePolicy
  readonly #shared: SharedCache
  readonly #wanted: Directives
  readonly #place: CachePlace
  #reason: ForwardReason = 'uri-miss'
  /** Why the cache is bypassed, or the answer is not stored. */
  #detail: string | undefined
  /** The stored answer, if it must be revalidated first. */
  #entry: Entry | undefined
  #flight: Flight | undefined
  #capture: Capture | undefined
  #landed: Landed | undefined
  #sentAt = 0
  /** Whether the call is made for no client. */
  #isBackground = false

  constructor(
    call: Admitting & Answering,
    target: Target,
    policy: CachePolicy,
    shared: SharedCache,
    place = new CachePlace(call, target, policy, shared.store),
  ) {
    this.#call = call
    this.#target = target
    this.#policy = policy
    this.#shared = shared
    this.#wanted = parseDirectives(call.request.headers['cache-control'])
    this.#place = place
  }

  async lookUp(): Promise<CacheAnswer> {
    const call = this.#call
    const { headers } = call.request
    this.#detail = bypassReasonOf(headers, this.#wanted) ?? (hasBody(call.request) ? 'body' : undefined)
    if (this.#detail !== undefined) {
      if (this.#wanted.has('only-if-cached')) return refused(NOT_CACHED)
      this.#reason = 'bypass'
      this.#count('bypass')
      return { kind: 'miss', observer: this }
    }
    const entry = await this.#place.find()
    if (this.#place.isVarying) this.#reason = 'vary-miss'
    if (call.isGone) return GONE
    if (entry !== undefined) {
      const use = useOf(entry, headers, this.#wanted, call.clock.now())
      if (use === 'fresh' || use === 'while-revalidate') {
        const refresh = use === 'while-revalidate' ? this.#refreshOf(entry) : undefined
        this.#countSaved()
        return {
          kind: 'hit',
          answer: this.#stored(entry, use === 'fresh' ? 'hit' : 'stale', { forwarded: undefined }),
          refresh,
        }
      }
      this.#entry = entry
      this.#reason = use
    }
    if (this.#wanted.has('only-if-cached')) return refused(NOT_CACHED)
    return this.#joinOrAsk()
  }

  /** Waits for the answer to an identical read that is under way, or becomes the read that others wait for. */
  async #joinOrAsk(): Promise<CacheAnswer> {
    const call = this.#call
    const { generation, key } = this.#place
    const { flights } = this.#shared
    if (generation !== undefined && call.request.method === 'GET') {
      const other = isContent(call.request.headers, this.#wanted) ? flights.find(key, generation) : undefined
      const landed = other && (await this.#await(other))
      if (call.isGone) return GONE
      if (landed !== undefined && this.#place.isAnswer(landed)) {
        this.#countSaved()
        const status = { forwarded: this.#reason, isCollapsed: true }
        return { kind: 'hit', answer: this.#stored(landed.entry, 'collapsed', status), refresh: undefined }
      }
      // If the other call ended because its client left or had less patience, the first that waited takes its place, and the rest wait
      // for that one. After any other end each asks for itself: in a row, the gateway might refuse one after the other.
      if (other !== undefined && other.patienceMs < this.#patienceMs(other) && this.#hasTimeAfter(other))
        return this.#joinOrAsk()
      if (other === undefined) this.#flight = flights.begin(key, generation, call.clock.now())
    }
    if (this.#entry === undefined) return { kind: 'miss', observer: this }
    this.conditions = validatorsOf(this.#entry)
    return { kind: 'revalidate', observer: this }
  }

  /** How long the call has time for a flight's answer, in milliseconds. Until the flight is sent, its longest wait counts, too. */
  #patienceMs({ isSent }: Flight): number {
    const { maxWaitMs, timeoutMs } = this.#target.requestOptions
    return isSent ? timeoutMs : Math.min(maxWaitMs, timeoutMs)
  }

  /**
   * Whether the call has time to take part in another flight after this one. If it has a timeout and the flight was sent, its time may be
   * nearly spent: a flight of its own would soon end, and fail the calls that wait for it.
   */
  #hasTimeAfter({ patienceMs, isSent }: Flight): boolean {
    return patienceMs === -Infinity || !isSent || this.#target.requestOptions.timeoutMs === Infinity
  }

  /** Ends the flight, however the call ended. The reads that wait get the answer, or learn that there is none. */
  [Symbol.dispose](): void {
    this.#flight?.end(this.#landed)
  }

  conclude(end: Forwarded): Forwarded | StoredAnswer {
    const { isGone, clock, startedAt } = this.#call
    if (this.#flight !== undefined && isGone) this.#flight.patienceMs = -Infinity
    else if (this.#flight !== undefined && end.kind === 'refused') {
      const patienceMs = this.#patienceMs(this.#flight)
      // A call that was sent may have ended because of the upstream. Then its patience matters only if its time was over.
      if (!this.#flight.isSent || clock.now() - startedAt >= patienceMs) this.#flight.patienceMs = patienceMs
    }
    if (isGone) return GONE
    const entry = this.#entry
    if (end.kind !== 'refused' || entry === undefined || !this.#standsInFor(end.failure, entry)) return end
    this.#landed = this.#place.landing(entry)
    const forwarded = this.#call.attempts > 0 ? this.#reason : undefined
    return this.#stored(entry, 'stale', { forwarded, detail: end.failure.kind })
  }

  replace(status: number, fields: Fields): StoredAnswer | { readonly kind: 'ask-again' } | undefined {
    const entry = this.#entry
    if (entry === undefined) return undefined
    if (status === 304) return this.conditions === undefined ? undefined : this.#confirmed(entry, fields)
    const isBad = ERRORS.has(status) || (status === 429 && this.#policy.staleOnThrottled)
    if (!isBad || !mayStandIn(entry, this.#call.clock.now())) return undefined
    this.#landed = this.#place.landing(entry)
    return this.#stored(entry, 'stale', { forwardedStatus: status, detail: 'stale-if-error' })
  }

  /** Handles a 304, by which the entry is updated (RFC 9111 §4.3.4). */
  #confirmed(entry: Entry, fields: Fields): StoredAnswer | { readonly kind: 'ask-again' } {
    if (!isAbout(entry, fields)) {
      // The 304 is about another version than the stored one, so that is dropped, and the whole answer is requested.
      this.#place.drop()
      this.conditions = undefined
      this.#entry = undefined
      return { kind: 'ask-again' }
    }
    const { clock } = this.#call
    const headers = updatedHeaders(entry.headers, keptHeaders(responseHeaders(fields, true), clock.wall()))
    const age = fields['age'] === undefined ? {} : { age: fields['age'] }
    const freshness = this.#freshnessOf(entry.status, { ...toFields(headers), ...age })
    if (typeof freshness === 'string') {
      // With the fields of the 304, such as a cookie, the answer may not be stored. It is for this client alone.
      this.#place.drop()
      const own = { ...entry, headers, bornAt: clock.now() }
      return this.#stored(own, 'revalidated', { forwardedStatus: 304, isStored: false })
    }
    const updated = { ...entry, headers, ...freshness }
    const isStored = this.#place.keep(updated)
    this.#landed = this.#place.landing(updated)
    return this.#stored(updated, 'revalidated', { forwardedStatus: 304, isStored })
  }

  #stored(entry: Entry, result: CacheResult, status: Partial<CacheStatus>): StoredAnswer {
    const counted = this.#isBackground ? undefined : result
    return { kind: 'stored', entry, result: counted, status: { forwarded: this.#reason, ...status } }
  }

  sent(): void {
    this.#sentAt = this.#call.clock.now()
    if (this.#flight !== undefined) this.#flight.isSent = true
  }

  begin(status: number, reason: string, fields: Fields, headers: string[]): void {
    if (this.#reason !== 'bypass') {
      this.#count(this.#place.generation === undefined ? 'unavailable' : 'miss')
      const captured = this.#captureOf(status, reason, fields, headers)
      if (captured instanceof Capture) this.#capture = captured
      else {
        this.#detail = captured
        this.#notForOthers(status)
      }
    }
    const isStored = this.#capture !== undefined
    this.#call.cacheStatus = cacheStatus({ forwarded: this.#reason, isStored, detail: this.#detail })
    headers.push('Cache-Status', this.#call.cacheStatus)
  }

  piece(chunk: Buffer): void {
    if (this.#capture === undefined || this.#capture.add(chunk)) return
    this.#capture = undefined
    this.#outdated(200, 'too-large')
    this.#notForOthers(200)
  }

  end(): void {
    if (this.#capture === undefined) return
    const { entry } = this.#capture
    this.#place.keep(entry)
    this.#landed = this.#place.landing(entry)
    this.#flight?.end(this.#landed)
  }

  slow(): void {
    this.#flight?.close()
  }

  get isAwaited(): boolean {
    return this.#flight?.isAwaited ?? false
  }

  lastWaiterGone(): Cancellation | undefined {
    return this.#flight?.lastWaiterGone()
  }

  /**
   * Makes the call that refreshes a stale entry; undefined for a HEAD, if nothing may be stored, or if no flight may begin, for example
   * because one is under way. The call does not wait for quota, and has no timeout, because no client waits for it.
   */
  #refreshOf(entry: Entry): Refresh | undefined {
    const { generation, key } = this.#place
    const { id, request, snapshot, clock } = this.#call
    if (generation === undefined || request.method !== 'GET') return undefined
    const flight = this.#shared.flights.begin(key, generation, clock.now())
    if (flight === undefined) return undefined
    const call: Identifying = new Call(id, request, nullResponse(), snapshot, clock, () => undefined)
    const alone = { maxWaitMs: 0, timeoutMs: Infinity, mayRetry: false, comesBack: false as const }
    const requestOptions = { ...this.#target.requestOptions, ...alone }
    const target: Target = { ...this.#target, requestOptions }
    call.target = target
    const observer = new CachedRead(call, target, this.#policy, this.#shared, this.#place)
    observer.#isBackground = true
    observer.#reason = 'stale'
    observer.#entry = entry
    observer.#flight = flight
    observer.conditions = validatorsOf(entry)
    return { call, target, observer }
  }

  /**
   * Waits for another call's answer; undefined if that call ends without one, or is not sent within the time that this one may wait, or
   * if this call's time is over or its client has gone.
   */
  async #await(flight: Flight): Promise<Landed | undefined> {
    const call = this.#call
    const since = call.clock.now()
    const { promise, resolve } = Promise.withResolvers<Landed | undefined>()
    using waits = new DisposableStack()
    waits.defer(flight.join(resolve))
    waits.use(call.gone.subscribe(() => resolve(undefined)))
    const { maxWaitMs, timeoutMs } = this.#target.requestOptions
    const timer = call.clock.schedule(Math.max(0, maxWaitMs - call.waitedMs), () => {
      if (!flight.isSent) resolve(undefined)
    })
    waits.defer(() => timer.cancel())
    if (timeoutMs !== Infinity) {
      const late = call.clock.schedule(call.startedAt + timeoutMs - since, () => resolve(undefined))
      waits.defer(() => late.cancel())
    }
    const landed = await promise
    await Turns.of(call.clock).pass()
    call.waitedMs += call.clock.now() - since
    return landed
  }

  /** Makes the reads that wait ask for themselves. Unless the status is an error or 304, the next reads do not wait at all. */
  #notForOthers(status: number): void {
    if (this.#flight === undefined) return
    // A 304 answers the client's own conditions, and says nothing of other answers.
    if (status < 400 && status !== 304) this.#shared.flights.goAlone(this.#place.key, this.#call.clock.now())
    this.#flight.end(undefined)
  }

  /** A capture of the answer, or why it is not stored; undefined for a HEAD, whose answer is never stored. */
  #captureOf(
    status: number,
    reason: string,
    fields: Fields,
    headers: readonly string[],
  ): Capture | NotKept | undefined {
    const { maxEntryBytes } = this.#shared
    if (this.#place.generation === undefined) return 'unavailable'
    if (this.#call.request.method !== 'GET') {
      if (status === 200 && this.#entry !== undefined && !agreesWithHead(this.#entry, fields)) this.#place.drop()
      return undefined
    }
    const now = this.#call.clock.now()
    const freshness = this.#freshnessOf(status, fields)
    if (typeof freshness === 'string') return this.#outdated(status, freshness)
    const head = { status, reason, headers: keptHeaders(headers, this.#call.clock.wall()), ...freshness }
    if (keepMsOf(head, now) === 0) return this.#outdated(status, 'no-lifetime')
    if (Number(onlyValue(fields['content-length']) ?? 0) > maxEntryBytes) return this.#outdated(status, 'too-large')
    // In HTTP/2 a body needs no length. `Attempt` adds `connection` to HTTP/1.1 answers of an upstream that may speak HTTP/2.
    const isFramed =
      hasLength(status, fields) || (this.#target.upstream.config.http2 && fields['connection'] === undefined)
    return isFramed ? new Capture(head, maxEntryBytes) : this.#outdated(status, 'no-length')
  }

  /** Drops the stored answer, because a newer one came that is not stored; keeps it after a 5xx. Returns `why`. */
  #outdated(status: number, why: NotKept): NotKept {
    if (this.#entry !== undefined && status < 500) this.#place.drop()
    return why
  }

  #freshnessOf(status: number, fields: Fields): Freshness | NotKept {
    const { snapshot, request, clock } = this.#call
    const { account, route } = this.#target
    // If clients have keys, a client's Authorization holds its key, which is for the gateway and not for the upstream.
    const isAuthorized =
      isCredentialInAuthorization(route, account) || (snapshot.callers.isOpen && 'authorization' in request.headers)
    const times = { sentAt: this.#sentAt, now: clock.now(), wall: clock.wall() }
    const exchanged = { wanted: this.#wanted, isAuthorized, status, fields, ...times }
    return freshnessOf(exchanged, this.#policy)
  }

  #standsInFor({ kind }: Failure, entry: Entry): boolean {
    const { trouble }: FailureFacts = FAILURES[kind]
    if (trouble === undefined || (trouble === 'quota' && !this.#policy.staleOnThrottled)) return false
    return mayStandIn(entry, this.#call.clock.now())
  }

  #count(result: CacheResult): void {
    if (!this.#isBackground) countInCache(result, this.#call, this.#target)
  }

  /** Counts the charges that the cache saved. */
  #countSaved(): void {
    const { client, admissionPolicy } = this.#target
    admissionPolicy.spending.save(client, this.#call.id)
  }
}

/** Whether the credential is in Authorization. Then a shared cache may store less (RFC 9111 §3.5). */
export function isCredentialInAuthorization(route: Route, account: Account): boolean {
  if (route.credential === 'none' || account.credential === undefined) return false
  return route.credential === 'bearer' || account.credential.headerNames.includes('authorization')
}

const NOT_CACHED: Failure = new Failure(
  'not_cached',
  'the request wants an answer from the cache only, and there is none that may be given',
)

/** Whether the end of an HTTP/1.1 body can be told from a broken connection. */
function hasLength(status: number, fields: Fields): boolean {
  return status === 204 || fields['content-length'] !== undefined || fields['transfer-encoding'] !== undefined
}
