import type { Try } from '../observe/log.ts'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Client } from '../clients/client.ts'
import { Cancellation } from '../time/cancellation.ts'
import type { Member } from '../time/roster.ts'
import type { Clock } from '../time/clock.ts'
import type { CacheResult } from '../observe/metrics.ts'
import type { Credential } from '../credentials/credential.ts'
import type { TraceContext } from '../http/trace-context.ts'
import type { LimitUsage } from '../ledger/ledger.ts'
import type { Admission, WaitRecord } from '../queue/admission.ts'
import type { BreakerState } from '../resilience/breaker.ts'
import type { Route } from '../routing/route.ts'
import type { Account } from './account.ts'
import type { AdmissionPolicy } from './admission-policies.ts'
import type { Candidate } from './candidates.ts'
import type { Refused } from './forwarded.ts'
import type { PriceList, Tariff } from './price-list.ts'
import type { Failure } from './failure.ts'
import type { Snapshot, Upstream } from './snapshot.ts'
import type { Upgrade } from './upgrade.ts'
import type { RequestOptions } from './request-options.ts'

/** Where a call goes and on whose behalf. Known once it is identified. */
export interface Target {
  readonly client: Client
  readonly upstream: Upstream
  readonly account: Account
  readonly route: Route
  /** Undefined if the route wants none. */
  readonly credential: Credential | undefined
  readonly admissionPolicy: AdmissionPolicy
  /** The prices in money that hold for the call; undefined where they are not known, or not needed. */
  readonly tariff?: Tariff
  /** Credentials of a pool that may take the call, the best first; undefined if there is no choice. */
  readonly candidates: readonly Candidate[] | undefined
  /** Host and port by which the client called the gateway; undefined if it did not say so (HTTP/1.0). */
  readonly host: string | undefined
  /** Path and query below the upstream's URL, byte for byte as the client sent them. */
  readonly path: string
  readonly query: string
  /** The normalized path, by which the route was found. */
  readonly normalPath: string
  readonly requestOptions: RequestOptions
}

/** The charge of a call to the budgets of its client, team and organisation; see budget.ts. */
export interface Spend {
  /** Whether `enter` has not been called yet, because the request's body tells what to reserve. */
  readonly isPending: boolean
  readonly readsBody: boolean
  /** Undefined if calls of the upstream cost no money. */
  readonly prices: PriceList | undefined
  /** Charges the call. Resolves with a refusal if a budget is used up, or the quota store can't be reached. */
  enter(target: Target, body: Buffer | undefined): Promise<Refused | undefined>
  /** From now on the upstream may have seen a byte of an attempt. */
  sent(): void
  /** An attempt was answered. */
  answered(status: number): void
  /** The answer that the client gets was whole. `money`: what it has cost, in billionths. */
  settle(money: number): void
}

/** How the client addressed the gateway, as far as a trusted load balancer says so. */
export interface Addressed {
  readonly scheme?: 'http' | 'https' | undefined
  readonly host?: string | undefined
  /** What the balancer took off the front of the path. */
  readonly prefix?: string | undefined
}
export type AddressedBy = (request: IncomingMessage) => Addressed

/** One wait of a call in a queue. */
export interface Wait {
  readonly record: WaitRecord
  /** From the call's arrival to the end of the wait. */
  readonly endedMs: number
  readonly waitedMs: number
  readonly ended: Admission['kind']
  /** The number, from 1, of the attempt that it came before. */
  readonly attempt: number
}

/**
 * One client's call, from its arrival to its log line. Every stage may read all of it. A stage writes only what it finds out: its
 * functions take the call by a type in which only those fields can be written. See `Arriving`, `Identifying`, `Admitting`, `Sending`
 * and `Answering`.
 */
export class Call implements Member<Call> {
  readonly id: string
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly snapshot: Snapshot
  readonly clock: Clock
  readonly startedAt: number
  before: Call | undefined
  after: Call | undefined
  isListed = false
  /** Cancelled when the client has gone: it closed its connection before the response was complete. */
  readonly gone = new Cancellation()

  // Arriving
  /** Where it comes from: its connection, or what a load balancer that is trusted says. */
  readonly address: string | undefined
  /** What a load balancer that is trusted says of how the client addressed the gateway. */
  readonly addressedBy: AddressedBy | undefined
  /** Given if the client asks for a WebSocket. */
  readonly upgrade: Upgrade | undefined
  /** Undefined without `telemetry.traces`. */
  readonly trace: TraceContext | undefined
  /** Set if the client was refused in the middle of the call, because the rest of the call is not HTTP. */
  readonly malformed: Failure | undefined
  /** Whether it was recorded. Its client may still read the rest of the response. */
  readonly isRecorded: boolean = false

  // Identifying
  readonly client: Client | undefined
  readonly upstream: Upstream | undefined
  readonly route: Route | undefined
  /** The part of the path that named the upstream, as it was sent. */
  readonly prefix: string = ''
  /** The rest of the path, as it was sent. */
  readonly path: string = ''
  readonly target: Target | undefined

  // Admitting
  /** Time in admission queues, and behind another call that asks for the same, in milliseconds. */
  readonly waitedMs: number = 0
  /** Each wait in a queue, and each refusal to wait. */
  readonly waits: Wait[] | undefined
  /** Usage of the limits that the call was charged to, or was refused for, at that moment. */
  readonly usage: readonly LimitUsage[] = []
  /** Usage of the budgets of its client, team and organisation, at the moment of the charge or the refusal. */
  readonly budgetUsage: readonly LimitUsage[] = []
  /** What the call costs each limit of `budgetUsage`, in that order. */
  readonly budgetUnits: readonly number[] = []
  /** The charge to its budgets; undefined if it has none and costs no money. */
  readonly spend: Spend | undefined
  /** Limits that would have refused it if they were enforced. */
  readonly wouldDeny: string[] | undefined
  /** Whether its quota was decided without the store. */
  readonly isStoreDegraded: boolean = false

  // Sending
  readonly attempts: number = 0
  /** How each attempt was answered. */
  readonly tries: Try[] = []
  /** The request's body, if it has one. */
  readonly body: { readonly receivedBytes: number } | undefined
  /** Time from each dispatch to the headers of its response, in milliseconds, over all attempts. */
  readonly upstreamMs: number = 0
  /** Time spent on receiving the request's body and on getting a credential, in milliseconds. */
  readonly receivingMs: number = 0
  /** Time asleep between attempts, in milliseconds. */
  readonly sleptMs: number = 0
  /** The state of the breaker that refused the call, or for which its latest attempt is a probe. */
  readonly breaker: BreakerState | undefined

  // Answering
  /** Bytes of the response's body that went out. */
  readonly responseBytes: number = 0
  /** The gateway's own time until the response's head was made, in milliseconds. */
  readonly overheadMs: number | undefined
  /** What the cache did for the call; undefined if it took no part. */
  readonly cached: CacheResult | undefined
  /** The value of Cache-Status in the response. */
  readonly cacheStatus: string | undefined
  /** Called when the upstream's answer begins to go to the client. */
  readonly onHead: (() => void) | undefined

  constructor(
    id: string,
    request: IncomingMessage,
    response: ServerResponse,
    snapshot: Snapshot,
    clock: Clock,
    onClosed: (call: Call) => void,
  ) {
    this.id = id
    this.request = request
    this.response = response
    this.snapshot = snapshot
    this.clock = clock
    this.startedAt = clock.now()
    // Not the request's signal: Fastify aborts it as soon as the body has been read.
    response.once('close', () => {
      onClosed(this)
      if (!response.writableFinished) this.gone.cancel()
    })
  }

  get isGone(): boolean {
    return this.gone.isCancelled
  }

  /** Milliseconds since the call's arrival that were spent neither upstream nor waiting for anybody. */
  get gatewayMs(): number {
    const elapsedMs = this.clock.now() - this.startedAt
    return Math.max(0, elapsedMs - this.waitedMs - this.upstreamMs - this.receivingMs - this.sleptMs)
  }
}

/** The call for functions that write some of its fields. */
type Writing<Field extends keyof Call> = Omit<Call, Field> & { -readonly [Name in Field]: Call[Name] }

/** Written by the forward proxy, for a CONNECT. */
export type Tunnelling = Writing<'client' | 'body' | 'responseBytes' | 'overheadMs'>
/** Written by the server, which takes the call from a connection. */
export type Arriving = Writing<'address' | 'addressedBy' | 'upgrade' | 'trace' | 'malformed' | 'isRecorded'>
/** Written by identify.ts, and when another credential of a pool changes the target. */
export type Identifying = Writing<'client' | 'upstream' | 'route' | 'prefix' | 'path' | 'target'>
/** Written by admit.ts, and by the cache while the call waits for another call. */
export type Admitting = Writing<'waitedMs' | 'waits' | 'usage' | 'wouldDeny' | 'isStoreDegraded'>
/** Written by budget.ts, which forwards the call within its budgets. */
export type Budgeting = Answering & Writing<'budgetUsage' | 'budgetUnits' | 'spend'>
/** Written by forward.ts and its attempts. */
export type Sending = Writing<'attempts' | 'body' | 'upstreamMs' | 'receivingMs' | 'sleptMs' | 'breaker'>
/** Written by whoever writes the response: a delivery, a stored answer, a refusal. */
export type Answering = Writing<'responseBytes' | 'overheadMs' | 'cached' | 'cacheStatus' | 'onHead'>
