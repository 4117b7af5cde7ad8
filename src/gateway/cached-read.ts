import { unitsByClass } from '../ledger/ledger.ts'
import { type Fields, onlyValue } from '../http/fields.ts'
import { cacheStatus, type CacheStatus, type ForwardReason } from '../cache/cache-status.ts'
import { Capture } from '../cache/capture.ts'
import { headersOf304, isAbout, isNotModified, validatorsOf } from '../cache/conditional.ts'
import { type Entry, keptHeaders, toFields, updatedHeaders } from '../cache/entry.ts'
import { type Directives, parseDirectives } from '../cache/fields.ts'
import type { Flight, Landed } from '../cache/flights.ts'
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
import { Call, type Target } from './call.ts'
import { Failure, TROUBLE_OF } from './failure.ts'
import { type Forwarded, GONE } from './forwarded.ts'
import { nullResponse } from './null-response.ts'
import type { ResponseObserver, Send, Intercepted } from './response-observer.ts'
import { ownHeaders } from './own-headers.ts'

const DELIVERED: Forwarded = { kind: 'delivered' }
/** RFC 5861 §4. */
const ERRORS = new Set([500, 502, 503, 504])

/** A read of a cached route: answered from what is kept, or forwarded, and then its answer is kept if it may be. */
export class CachedRead implements ResponseObserver {
  /** Set while an entry is asked about. */
  conditions: readonly string[] | undefined
  readonly #call: Call
  readonly #target: Target
  readonly #policy: CachePolicy
  readonly #shared: SharedCache
  readonly #wanted: Directives
  readonly #place: CachePlace
  #reason: ForwardReason = 'uri-miss'
  /** Why the cache is left out, or the answer not kept. */
  #detail: string | undefined
  /** What is kept, when it can't be given without asking. */
  #entry: Entry | undefined
  #flight: Flight | undefined
  #capture: Capture | undefined
  #landed: Landed | undefined
  #sentAt = 0
  /** It is made for no client. */
  #isBackground = false

  constructor(
    call: Call,
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

  async run(send: Send): Promise<Forwarded> {
    const call = this.#call
    const { headers } = call.request
    this.#detail = bypassReasonOf(headers, this.#wanted) ?? (hasBody(call.request) ? 'body' : undefined)
    if (this.#detail !== undefined) {
      this.#reason = 'bypass'
      this.#count('bypass')
      return this.#forward(send)
    }
    const entry = await this.#place.find()
    if (this.#place.isVarying) this.#reason = 'vary-miss'
    if (call.isGone) return GONE
    if (entry !== undefined) {
      const use = useOf(entry, headers, this.#wanted, call.clock.now())
      if (use === 'fresh' || use === 'while-revalidate') {
        if (use === 'while-revalidate') void this.#refresh(entry, send)
        this.#countSaved()
        return this.#give(entry, use === 'fresh' ? 'hit' : 'stale', { forwarded: undefined })
      }
      this.#entry = entry
      this.#reason = use
    }
    if (this.#wanted.has('only-if-cached')) return { kind: 'refused', failure: NOT_CACHED }
    return this.#fetch(send)
  }

  /** Waits for another call's answer to the same, or asks for it. */
  async #fetch(send: Send): Promise<Forwarded> {
    const call = this.#call
    const { generation, key } = this.#place
    const { flights } = this.#shared
    if (generation !== undefined && call.request.method === 'GET') {
      const other = isContent(call.request.headers, this.#wanted) ? flights.find(key, generation) : undefined
      const landed = other && (await this.#await(other))
      if (call.isGone) return GONE
      if (landed !== undefined && this.#place.isAnswer(landed)) {
        this.#countSaved()
        return this.#give(landed.entry, 'collapsed', { forwarded: this.#reason, isCollapsed: true })
      }
      if (other === undefined) this.#flight = flights.begin(key, generation, call.clock.now())
    }
    // Those that wait for it must hear of its end, whatever that is.
    try {
      if (this.#entry !== undefined) this.conditions = validatorsOf(this.#entry)
      return await this.#forward(send)
    } finally {
      this.#flight?.end(this.#landed)
    }
  }

  async #forward(send: Send): Promise<Forwarded> {
    const call = this.#call
    const result = await send(call, this.#target, this)
    if (call.isGone) return GONE
    if (result.kind === 'intercepted') return this.#replace(result, send)
    const entry = this.#entry
    if (result.kind !== 'refused' || entry === undefined || !this.#standsInFor(result.failure, entry)) return result
    const { kind } = result.failure
    this.#landed = this.#place.landing(entry)
    return this.#give(entry, 'stale', { forwarded: call.attempts > 0 ? this.#reason : undefined, detail: kind })
  }

  /** Answers with what is kept in the place of what came. */
  #replace({ status, fields }: Intercepted, send: Send): Promise<Forwarded> | Forwarded {
    const entry = this.#entry!
    if (status !== 304) {
      this.#landed = this.#place.landing(entry)
      return this.#give(entry, 'stale', { forwarded: this.#reason, forwardedStatus: status, detail: 'stale-if-error' })
    }
    if (!isAbout(entry, fields)) {
      // What it is about is not here, and so it has to be asked for as a whole.
      this.conditions = undefined
      this.#entry = undefined
      return this.#forward(send)
    }
    const updated = this.#updated(entry, fields)
    const isStored = this.#place.keep(updated)
    this.#landed = this.#place.landing(updated)
    return this.#give(updated, 'revalidated', { forwarded: this.#reason, forwardedStatus: 304, isStored })
  }

  intercepts(status: number): boolean {
    const entry = this.#entry
    if (entry === undefined) return false
    if (status === 304) return this.conditions !== undefined
    const isBad = ERRORS.has(status) || (status === 429 && this.#policy.staleOnThrottled)
    return isBad && mayStandIn(entry, this.#call.clock.now())
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

  /** Asks for an entry anew that was given already; only where there is quota to spare, and once. */
  async #refresh(entry: Entry, send: Send): Promise<void> {
    const { generation, key } = this.#place
    if (generation === undefined) return
    const flight = this.#shared.flights.begin(key, generation, this.#call.clock.now())
    if (flight === undefined) return
    let read: CachedRead | undefined
    try {
      read = this.#refreshing(entry, flight)
      await read.#forward(send)
    } catch (error) {
      this.#shared.report(error)
    } finally {
      flight.end(read === undefined ? undefined : read.#landed)
    }
  }

  #refreshing(entry: Entry, flight: Flight): CachedRead {
    const { id, request, snapshot, clock } = this.#call
    const call = new Call(id, request, nullResponse(), snapshot, clock, () => undefined)
    const target: Target = {
      ...this.#target,
      requestOptions: { ...this.#target.requestOptions, maxWaitMs: 0, mayRetry: false },
    }
    call.target = target
    const read = new CachedRead(call, target, this.#policy, this.#shared, this.#place)
    read.#isBackground = true
    read.#reason = 'stale'
    read.#entry = entry
    read.#flight = flight
    read.conditions = validatorsOf(entry)
    return read
  }

  /** Waits for another call's answer; in vain where that is not sent in the time that this one may wait. */
  async #await(flight: Flight): Promise<Landed | undefined> {
    const call = this.#call
    const since = call.clock.now()
    const { promise, resolve } = Promise.withResolvers<Landed | undefined>()
    using waits = new DisposableStack()
    waits.defer(flight.join(resolve))
    waits.use(call.gone.subscribe(() => resolve(undefined)))
    const timer = call.clock.schedule(this.#target.requestOptions.maxWaitMs, () => {
      if (!flight.isSent) resolve(undefined)
    })
    waits.defer(() => timer.cancel())
    const landed = await promise
    call.waitedMs += call.clock.now() - since
    return landed
  }

  /** Those that wait go on by themselves, and those that come next do not wait. */
  #notForOthers(status: number): void {
    if (this.#flight === undefined) return
    if (status < 400) this.#shared.flights.goAlone(this.#place.key, this.#call.clock.now())
    this.#flight.end(undefined)
  }

  /** Undefined for a HEAD, of which nothing is ever kept. */
  #captureOf(
    status: number,
    reason: string,
    fields: Fields,
    headers: readonly string[],
  ): Capture | NotKept | undefined {
    const { maxEntryBytes } = this.#shared
    if (this.#place.generation === undefined) return 'unavailable'
    if (this.#call.request.method !== 'GET') return undefined
    const now = this.#call.clock.now()
    const freshness = this.#freshnessOf(status, fields)
    if (typeof freshness === 'string') return this.#outdated(status, freshness)
    const head = { status, reason, headers: keptHeaders(headers, this.#call.clock.wall()), ...freshness }
    if (keepMsOf(head, now) === 0) return this.#outdated(status, 'no-lifetime')
    if (Number(onlyValue(fields['content-length']) ?? 0) > maxEntryBytes) return 'too-large'
    const isFramed =
      hasLength(status, fields) || (this.#target.upstream.config.http2 && fields['connection'] === undefined)
    return isFramed ? new Capture(head, maxEntryBytes) : 'no-length'
  }

  /** What is kept is older than an answer that is not, and must not come back. */
  #outdated(status: number, why: NotKept): NotKept {
    if (this.#entry !== undefined && status < 500) this.#place.drop()
    return why
  }

  #freshnessOf(status: number, fields: Fields): Freshness | NotKept {
    const { snapshot, request, clock } = this.#call
    const { account, route } = this.#target
    // Where there are clients, it is the key of one, and meant for the gateway; the place of an answer is the client's own.
    const isAuthorized =
      isCredentialInAuthorization(route, account) || (snapshot.callers.isOpen && 'authorization' in request.headers)
    const times = { sentAt: this.#sentAt, now: clock.now(), wall: clock.wall() }
    const exchanged = { wanted: this.#wanted, isAuthorized, status, fields, ...times }
    return freshnessOf(exchanged, this.#policy)
  }

  /** The entry as a 304 confirms it (RFC 9111 §4.3.4). */
  #updated(entry: Entry, fields: Fields): Entry {
    const kept = keptHeaders(responseHeaders(fields, true), this.#call.clock.wall())
    const headers = updatedHeaders(entry.headers, kept)
    const age = fields['age'] === undefined ? {} : { age: fields['age'] }
    const freshness = this.#freshnessOf(entry.status, { ...toFields(headers), ...age })
    return { ...entry, headers, ...(typeof freshness === 'string' ? NOT_TO_BE_KEPT : freshness) }
  }

  #standsInFor({ kind }: Failure, entry: Entry): boolean {
    const trouble = TROUBLE_OF[kind]
    if (trouble === undefined || (trouble === 'quota' && !this.#policy.staleOnThrottled)) return false
    return mayStandIn(entry, this.#call.clock.now())
  }

  /** Answers with what is kept; with a 304 where that is what the client has. */
  #give(entry: Entry, result: CacheResult, status: CacheStatus): Forwarded {
    const call = this.#call
    const { request, response } = call
    const ageMs = Math.max(0, call.clock.now() - entry.bornAt)
    const isKnown = entry.status === 200 && isNotModified(entry, request.headers, call.clock.wall())
    const headers = isKnown ? headersOf304(entry.headers) : [...entry.headers]
    headers.push('Age', String(Math.floor(ageMs / 1_000)))
    call.cacheStatus = cacheStatus({ ...status, ttlMs: entry.lifetimeMs - ageMs })
    headers.push('Cache-Status', call.cacheStatus)
    if (!isKnown && entry.status !== 204) headers.push('Content-Length', String(entry.body.length))
    this.#count(result)
    ownHeaders(call, headers)
    if (isKnown) response.writeHead(304, headers)
    else response.writeHead(entry.status, entry.reason, headers)
    const body = isKnown || request.method === 'HEAD' ? undefined : entry.body
    call.responseBytes = body?.length ?? 0
    response.end(body)
    return DELIVERED
  }

  #count(result: CacheResult): void {
    if (this.#isBackground) return
    this.#call.cached = result
    this.#target.admissionPolicy.metrics.cached(result).increment(this.#call.id)
  }

  /** The call would have been charged. */
  #countSaved(): void {
    const { chargeSet, metrics } = this.#target.admissionPolicy
    for (const [className, units] of unitsByClass(chargeSet)) metrics.quotaSaved(className, units, this.#call.id)
  }
}

/** Whether the credential travels in Authorization, so that a shared cache must ask for more before it keeps an answer. */
export function isCredentialInAuthorization(route: Route, account: Account): boolean {
  if (route.credential === 'none' || account.credential === undefined) return false
  return route.credential === 'bearer' || account.credential.headerNames.includes('authorization')
}

const NOT_CACHED: Failure = new Failure(
  'not_cached',
  'the request wants an answer from the cache only, and there is none that may be given',
)

const NOT_TO_BE_KEPT: Freshness = {
  bornAt: 0,
  lifetimeMs: 0,
  whileRevalidateMs: 0,
  ifErrorMs: 0,
  isStrict: true,
}

/** Whether the end of a body of HTTP/1.1 can be told from a connection that broke. */
function hasLength(status: number, fields: Fields): boolean {
  return status === 204 || fields['content-length'] !== undefined || fields['transfer-encoding'] !== undefined
}
