import type { Try } from '../observe/log.ts'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Client } from '../clients/client.ts'
import { Cancellation } from '../time/cancellation.ts'
import type { Clock } from '../time/clock.ts'
import type { CacheResult } from '../observe/metrics.ts'
import type { Credential } from '../credentials/credential.ts'
import type { LimitUsage } from '../ledger/ledger.ts'
import type { Admission, WaitRecord } from '../queue/admission.ts'
import type { BreakerState } from '../resilience/breaker.ts'
import type { Route } from '../routing/route.ts'
import type { Account } from './account.ts'
import type { AdmissionPolicy } from './admission-policies.ts'
import type { Failure } from './failure.ts'
import type { Snapshot, Upstream } from './snapshot.ts'
import type { Upgrade } from './upgrade.ts'
import type { RequestOptions } from './request-options.ts'

/** Where a call goes and on whose behalf: what is known once it has been identified. */
export interface Target {
  readonly client: Client
  readonly upstream: Upstream
  readonly account: Account
  readonly route: Route
  /** Undefined where the route wants none. */
  readonly credential: Credential | undefined
  readonly admissionPolicy: AdmissionPolicy
  /** Host and port by which the client called the gateway; undefined if it did not say so (HTTP/1.0). */
  readonly host: string | undefined
  /** Path and query below the upstream's URL, byte for byte as the client sent them. */
  readonly path: string
  readonly query: string
  /** The normal form of the path by which the route was found. */
  readonly normalPath: string
  readonly requestOptions: RequestOptions
}

/** One wait of a call in a queue. */
export interface Wait {
  readonly record: WaitRecord
  readonly waitedMs: number
  readonly ended: Admission['kind']
  /** The number, from 1, of the attempt that it came before. */
  readonly attempt: number
}

/** One client's call, from its arrival to its log line. */
export class Call {
  readonly id: string
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly snapshot: Snapshot
  readonly clock: Clock
  readonly startedAt: number
  /** Given where the client asks for a WebSocket. */
  upgrade: Upgrade | undefined
  target: Target | undefined
  /** Where it comes from: its connection, or what a load balancer that is trusted says. */
  address: string | undefined
  client: Client | undefined
  upstream: Upstream | undefined
  route: Route | undefined
  /** What of the path named the upstream, and the rest of it, as it was sent. */
  prefix = ''
  path = ''
  attempts = 0
  /** How each attempt was answered. */
  readonly tries: Try[] = []
  /** What came of its body, and what of the response's body went out. */
  body: { readonly receivedBytes: number } | undefined
  responseBytes = 0
  /** Time spent in admission queues. */
  waitedMs = 0
  /** Why and how it waited, before which attempts; also where it was refused without waiting. */
  waits: Wait[] | undefined
  /** Time in which the upstream had the call, over all attempts, to the headers of each response. */
  upstreamMs = 0
  /** Time spent on collecting the client's body, and asleep between attempts. */
  receivingMs = 0
  sleptMs = 0
  /** The gateway's own time to the response's head; known once that is made. */
  overheadMs: number | undefined
  usage: readonly LimitUsage[] = []
  /** Limits that are not enforced, and would have refused it. */
  wouldDeny: string[] | undefined
  /** The state of the breaker that refused it, or for which its latest attempt is a probe. */
  breaker: BreakerState | undefined
  /** What the cache did for it; undefined where it took no part. */
  cached: CacheResult | undefined
  /** The value of Cache-Status that its client got. */
  cacheStatus: string | undefined
  /** Its quota was judged without the store. */
  isStoreDegraded = false
  /** Cancelled when the client has gone: it closed its connection before the response was complete. */
  readonly gone = new Cancellation()
  /** What the rest of it turned out to be instead of HTTP, for which its client was refused. */
  malformed: Failure | undefined
  /** Called when the upstream's answer begins to go to the client. */
  onHead: (() => void) | undefined

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
    // Not the request's signal: that one aborts as soon as the body has been read.
    response.on('close', () => {
      onClosed(this)
      if (!response.writableFinished) this.gone.cancel()
    })
  }

  get isGone(): boolean {
    return this.gone.isCancelled
  }

  /** Of the time since the call came, what was spent neither upstream nor waiting for anybody. */
  get gatewayMs(): number {
    const elapsedMs = this.clock.now() - this.startedAt
    return Math.max(0, elapsedMs - this.waitedMs - this.upstreamMs - this.receivingMs - this.sleptMs)
  }
}
