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
  /** Credentials of a pool that may take it, the best first; undefined if there is but one. */
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

/** What a call is charged to the budgets of its client, its team and its organisation, as budget.ts does it. */
export interface Spend {
  /** It waits for the request's body, which tells what to reserve. */
  readonly isPending: boolean
  readonly readsBody: boolean
  /** Undefined if no budget counts money, or the upstream costs none. */
  readonly prices: PriceList | undefined
  /** Charges the call; or how it ends because a budget is used up, or can't be asked. */
  enter(target: Target, body: Buffer | undefined): Promise<Refused | undefined>
  /** From now on the upstream may have seen a byte of an attempt. */
  sent(): void
  /** An attempt was answered. */
  answered(status: number): void
  /** The answer that the client gets was whole, and has cost so many billionths. */
  settle(money: number): void
}

/** How the client addressed the gateway, where a load balancer that is trusted says so. */
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
 * One client's call, from its arrival to its log line. All may read it. Each stage of its way writes what it finds out, and says so
 * by the type by which its functions take the call: see `Arriving`, `Identifying`, `Admitting`, `Sending` and `Answering`.
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
  /** Why the client was refused in the middle of the call: the rest of it is not HTTP. */
  readonly malformed: Failure | undefined

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
  /** The limits that it was charged to, or for which it was refused, as of then. */
  readonly usage: readonly LimitUsage[] = []
  /** The budgets of its client, team and organisation, as of then, and what it was charged to each. */
  readonly budgetUsage: readonly LimitUsage[] = []
  readonly budgetUnits: readonly number[] = []
  /** What it is charged to them; undefined if there are none. */
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

/** The forward proxy, of a CONNECT. */
export type Tunnelling = Writing<'client' | 'body' | 'responseBytes' | 'overheadMs'>
/** The server, which takes the call from a connection. */
export type Arriving = Writing<'address' | 'addressedBy' | 'upgrade' | 'trace' | 'malformed'>
/** identify.ts; another credential of a pool changes the target. */
export type Identifying = Writing<'client' | 'upstream' | 'route' | 'prefix' | 'path' | 'target'>
/** admit.ts; the cache while it waits for another call. */
export type Admitting = Writing<'waitedMs' | 'waits' | 'usage' | 'wouldDeny' | 'isStoreDegraded'>
/** budget.ts, around all that. */
export type Budgeting = Answering & Writing<'budgetUsage' | 'budgetUnits' | 'spend'>
/** forward.ts and its attempts. */
export type Sending = Writing<'attempts' | 'body' | 'upstreamMs' | 'receivingMs' | 'sleptMs' | 'breaker'>
/** Whoever writes the response: a delivery, a stored answer, a refusal. */
export type Answering = Writing<'responseBytes' | 'overheadMs' | 'cached' | 'cacheStatus' | 'onHead'>
