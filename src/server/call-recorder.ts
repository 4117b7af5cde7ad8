import type { Call } from '../gateway/call.ts'
import { type Failure, FAILURES } from '../gateway/failure.ts'
import type { Forwarded } from '../gateway/forwarded.ts'
import { CallMetrics } from '../observe/call-metrics.ts'
import { hasFailed, type Log } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { RequestHistory } from '../requests/history.ts'
import { aboutRoute, circumstancesOf, unread as unreadRecord } from '../requests/story.ts'
import type { RequestRecord } from '../requests/story.ts'
import type { Clock, EpochMs } from '../time/clock.ts'
import type { Tracing } from '../traces/tracing.ts'
import { CallUsage, type Usage } from '../usage/usage.ts'
import { lineOf, lineOfUnread } from './access-line.ts'

export interface RecorderOptions {
  readonly clock: Clock
  readonly metrics: Metrics
  readonly usage: Usage
  readonly log: Log
  /** Keeps the story of each call, so that it can be asked for later. Without it none are kept. */
  readonly history?: RequestHistory
  /** Without it there are no traces. */
  readonly tracing?: Tracing
}

/** How long a call took, and how much of that time was the gateway's own, in milliseconds. */
export interface CallTimes {
  readonly durationMs: number
  readonly overheadMs: number
}

const SWITCHING = 101
/** Stands for the status of a call whose client got no response. */
export const UNANSWERED = 'none'

/** Counts each call that has ended, logs it, keeps its story and traces it. */
export class CallRecorder {
  readonly #options: RecorderOptions
  /** Counters of calls that were refused before their account was known, by upstream and class. */
  readonly #refused = new Map<string, { readonly metrics: CallMetrics; readonly usage: CallUsage }>()

  constructor(options: RecorderOptions) {
    this.#options = options
  }

  /** The times of a call, if it ends now. */
  timesOf(call: Call): CallTimes {
    return { durationMs: this.#options.clock.now() - call.startedAt, overheadMs: call.overheadMs ?? call.gatewayMs }
  }

  /** Records a call that has just ended. `at` is the time of day, the same for all calls that ended in one step. */
  record(call: Call, result: Forwarded, { durationMs, overheadMs }: CallTimes, at: EpochMs): void {
    const { log, history, tracing } = this.#options
    const failure = call.malformed ?? (result.kind === 'refused' ? result.failure : undefined)
    const status = failure === undefined ? call.response.statusCode : FAILURES[failure.kind].status
    const outcome = failure?.kind ?? result.kind
    const { metrics, usage } =
      call.target?.admissionPolicy ?? this.#countsOfRefusal(call.upstream?.name, call.route?.class)
    const client = call.client?.name ?? 'unknown'
    // A client that left before the response began got no status.
    const seen = outcome === 'client_gone' && !call.response.headersSent ? UNANSWERED : String(status)
    const line = lineOf(call, { client, status: seen, outcome, failure, durationMs, overheadMs })
    const text = JSON.stringify(line)
    log.access(line, text, at)
    const circumstances = circumstancesOf(call, { at, failure })
    history?.add(line, text, circumstances, call.route && aboutRoute(call.route))
    const isTraced = call.trace?.isKept(hasFailed(line)) === true
    const traceId = isTraced ? line.traceId : undefined
    metrics.requests(client, seen, outcome).increment(call.id, 1, traceId, at)
    usage.of(client).end(failure !== undefined)
    // The time that a WebSocket or a tunnel stayed open is not a latency.
    if (status !== SWITCHING && call.request.method !== 'CONNECT')
      metrics.requestDuration.observeMs(durationMs, call.id, traceId, at)
    metrics.gatewayOverhead.observeMs(overheadMs, call.id, traceId, at)
    if (line.requestBytes > 0) metrics.requestBytes.increment(call.id, line.requestBytes, traceId, at)
    if (call.responseBytes > 0) metrics.responseBytes.increment(call.id, call.responseBytes, traceId, at)
    if (isTraced) tracing?.end(call, { line, ...circumstances }, call.trace)
  }

  /** What is known of a call that has not ended. */
  running(call: Call): RequestRecord {
    const { clock } = this.#options
    const client = call.client?.name ?? 'unknown'
    const end = { client, status: UNANSWERED, outcome: 'running', failure: undefined, ...this.timesOf(call) }
    const line = lineOf(call, end)
    const circumstances = circumstancesOf(call, { at: clock.wall(), failure: undefined, isRunning: true })
    return { line, route: call.route && aboutRoute(call.route), ...circumstances }
  }

  /** Records a connection on which no readable request came. */
  unread(
    id: string,
    address: string | undefined,
    { kind, message }: Failure,
    status = String(FAILURES[kind].status),
  ): void {
    const { log, clock, history } = this.#options
    const { metrics, usage } = this.#countsOfRefusal()
    metrics.requests('unknown', status, kind).increment(id)
    usage.of('unknown').end(true)
    const line = lineOfUnread({ correlationId: id, address, status, outcome: kind, reason: message })
    const text = JSON.stringify(line)
    const at = clock.wall()
    log.access(line, text, at)
    history?.add(line, text, unreadRecord(at))
  }

  /**
   * Counters for a refusal whose account is not known. `upstream` and `className` must be known names. A name that only the
   * client made up would let it create series without end.
   */
  #countsOfRefusal(upstream = 'unknown', className = 'unknown'): { metrics: CallMetrics; usage: CallUsage } {
    return this.#refused.getOrInsertComputed(`${upstream}\n${className}`, () => {
      const labels = { upstream, account: 'unknown', class: className }
      const { metrics, usage } = this.#options
      return { metrics: new CallMetrics(metrics, labels), usage: new CallUsage(usage, labels) }
    })
  }
}
