import type { Credential } from '../credentials/credential.ts'
import type { Fields } from '../http/fields.ts'
import type { Config, UpstreamConfig } from '../schema/schema.ts'
import type { ClassMetrics } from '../observe/call-metrics.ts'
import { reportedLimit, readFeedback, type LimitReport } from '../ledger/feedback.ts'
import type { LimitUsage } from '../ledger/ledger.ts'
import { BUCKETS, windowLengthMs } from '../ledger/limit.ts'
import type { Permit } from '../queue/permit.ts'
import { retryAfterOf } from '../http/retry-after.ts'
import type { EpochMs } from '../time/clock.ts'
import type { Call } from './call.ts'

/** The head of a response, as it came. */
export interface ResponseHead {
  readonly status: number
  readonly fields: Fields
  /** Milliseconds from the dispatch of the attempt to this head. */
  readonly tookMs: number
  /** Whether it refuses the call for rate although its status does not say so. */
  readonly isDisguised: boolean
}

/** What `applyFeedback` needs to know of the call. */
export type FeedbackCall = Pick<Call, 'id' | 'clock'> & {
  readonly snapshot: { readonly config: Pick<Config, 'store'> }
}
/** What `applyFeedback` needs to know of where the call went. */
export interface FeedbackTarget {
  readonly upstream: { readonly config: { readonly throttle: Omit<UpstreamConfig['throttle'], 'when' | 'retry'> } }
  readonly account: { throttledAt: number }
  readonly credential?: Pick<Credential, 'quotaTold' | 'othersInMs'> | undefined
  readonly admissionPolicy: { readonly metrics: Pick<ClassMetrics, 'throttled'> }
}

/** If a response does not say when more comes back, a call finds out after the window divided by this. */
const LOOK_AFTER = 20

/**
 * Applies what a response says of quotas. If the upstream says that less remains than was thought, it is believed. If it refuses the
 * call for rate, the account pauses, and all gateways use less of the limit for a while. If the refusal itself says until when
 * nothing remains, that is believed instead. Returns in how many milliseconds the account's calls may go on. Returns undefined if the
 * call was not refused for rate, or if another credential of the pool can take calls now.
 */
export function applyFeedback(
  call: FeedbackCall,
  target: FeedbackTarget,
  permit: Permit,
  head: ResponseHead,
): number | undefined {
  const reports = readFeedback(head.fields, call.clock.wall())
  if (reports.length > 0 && target.credential?.quotaTold !== undefined) tellCredential(target.credential, reports)
  const { statuses } = target.upstream.config.throttle
  const isThrottled = head.isDisguised || (head.status >= 400 && isThrottling(head, reports, statuses))
  const retryAfterMs = isThrottled ? retryAfterOf(head.fields, call.clock.wall()) : undefined
  const end: End = { isApplied: false, resetMs: undefined }
  let ofRequests = 0
  for (let i = 0; i < reports.length; i++) if (reports[i]!.unit === undefined) ofRequests++
  for (let i = 0; i < reports.length; i++) {
    const report = reports[i]!
    // Without the store nobody knows what all gateways have used, so the report is applied to no limit.
    const number = permit.isLocal ? -1 : reportedLimit(report, permit.limits, ofRequests === 1)
    // After a refusal some units may remain, such as tokens, but fewer than the call needs.
    const isRefusal = isThrottled && report.remaining < (permit.chargeSet.units[number] ?? 1)
    // A limit that fills up evenly is full only at its reset. Some of it comes back long before, when Retry-After says.
    let untilMs = report.resetMs === undefined ? retryAfterMs : Math.min(report.resetMs, retryAfterMs ?? Infinity)
    // A reset that is over already does not tell when calls are accepted again. Without a pause, one call after the other would be
    // refused.
    if (isRefusal && untilMs === 0) untilMs = target.upstream.config.throttle.pause
    const answered = { tookMs: head.tookMs, at: call.clock.wall() }
    const windowMs = tellLedger(report, number, permit, answered, isRefusal, untilMs)
    if (!isRefusal) continue
    end.isApplied ||= windowMs !== undefined
    if (report.resetMs !== undefined && report.resetMs > 0)
      end.resetMs = Math.max(end.resetMs ?? 0, Math.min(untilMs ?? 0, windowMs ?? Infinity))
  }
  return isThrottled ? throttled(call, target, permit, head, retryAfterMs, end) : undefined
}

/** Tells a credential of a pool when the last of its windows ends, and for how long any of them is used up. */
function tellCredential(credential: Pick<Credential, 'quotaTold'>, reports: readonly LimitReport[]): void {
  const endsInMs = Math.max(...reports.map(({ resetMs = 0 }) => resetMs))
  const usedUpMs = Math.max(...reports.map(({ remaining, resetMs = 0 }) => (remaining <= 0 ? resetMs : 0)))
  credential.quotaTold?.(endsInMs, usedUpMs)
}

/** What a refusal says, besides Retry-After, of when calls are accepted again. */
interface End {
  /** Whether the refusal is about one of the call's limits, and the ledger was told. */
  isApplied: boolean
  /** Milliseconds until the limits of which nothing remains have some again; undefined if that is not said. */
  resetMs: number | undefined
}

/** Whether a response refuses the call for rate. Statuses other than 429 also say other things, so they need more evidence. */
function isThrottling(
  { status, fields }: ResponseHead,
  reports: readonly LimitReport[],
  statuses: readonly number[],
): boolean {
  if (!statuses.includes(status)) return false
  return status === 429 || fields['retry-after'] !== undefined || reports.some(({ remaining }) => remaining === 0)
}

/**
 * Tells the ledger of a report. Returns the window of the limit, in milliseconds, for which the ledger believes the report at most;
 * undefined if the ledger was not told.
 */
function tellLedger(
  report: LimitReport,
  number: number,
  permit: Permit,
  answered: { readonly tookMs: number; readonly at: EpochMs },
  isRefused: boolean,
  untilMs: number | undefined,
): number | undefined {
  const usage = permit.usage[number]
  if (usage === undefined) return undefined
  const { windowMs } = usage.limit
  // If regions share the limit, the upstream also counts what the others use. All that remains may be this region's.
  const requests = usage.share ?? usage.limit.requests
  const units = requests - Math.min(report.remaining, requests)
  // The usage is as of the charge, so the ledger decides by what it knows now. It is not asked if there is nothing to tell.
  const isKnown = usage.effective !== undefined
  const { tookMs, at } = answered
  const isVague = isNearBorder(usage, tookMs, at)
  if (!isRefused && (isVague || (!isKnown && units <= usage.used))) return undefined
  const tolerance = isVague ? requests : Math.ceil((requests * (tookMs + windowMs / BUCKETS)) / windowMs)
  const resetMs = untilMs ?? windowMs / LOOK_AFTER
  permit.applyFeedback({ kind: 'counted', limit: number, units, tolerance, resetMs, isRefused })
  return windowMs
}

/**
 * Whether a call that was answered `at`, `tookMs` after it was sent, came so near to the border of a calendar window that the upstream
 * may tell of the other one.
 */
function isNearBorder({ limit, resetMs }: LimitUsage, tookMs: number, at: EpochMs): boolean {
  const { kind, countingToleranceMs } = limit
  if (kind !== 'calendar') return false
  const sinceBeginMs = windowLengthMs(limit, at - tookMs + resetMs) - resetMs
  return sinceBeginMs <= countingToleranceMs || resetMs <= tookMs + countingToleranceMs
}

function throttled(
  call: FeedbackCall,
  target: FeedbackTarget,
  permit: Permit,
  head: ResponseHead,
  retryAfterMs: number | undefined,
  { isApplied, resetMs }: End,
): number | undefined {
  const { upstream, account, admissionPolicy } = target
  const { pause, maxPause } = upstream.config.throttle
  const now = call.clock.now()
  // This call was on its way already when another was refused, so its refusal says nothing new.
  const isKnown = now - head.tookMs < account.throttledAt
  const isOurs = isOurDoing(call, permit)
  const { throttled } = admissionPolicy.metrics
  ;(isKnown || isOurs ? throttled.explained : throttled.unexplained).increment(call.id)
  const { othersInMs = Infinity } = target.credential ?? {}
  if (othersInMs === 0) return undefined
  if (!isOurs && !isApplied && resetMs === undefined) {
    const limit = fullestOf(permit.usage)
    if (limit !== undefined) permit.applyFeedback({ kind: 'refused', limit })
  }
  if (!isKnown) account.throttledAt = now
  // A known limit holds its own calls back. If the limit is not known, all calls of the account have to wait.
  const wantedMs = retryAfterMs ?? (isApplied ? 0 : resetMs)
  const pauseMs = Math.min(wantedMs ?? (isKnown ? 0 : pause), maxPause, othersInMs)
  if (pauseMs > 0) permit.applyFeedback({ kind: 'pause', ms: pauseMs })
  return isApplied ? Math.max(pauseMs, resetMs ?? 0) : pauseMs
}

/** Whether the gateway knowingly let through more than the limit. */
function isOurDoing({ snapshot }: FeedbackCall, permit: Permit): boolean {
  if (permit.isLocal && snapshot.config.store.onOutage === 'open') return true
  return permit.usage.some(({ limit, used }) => !limit.isEnforced && used > limit.requests)
}

/** The index of the limit that the upstream most probably means, the fullest; undefined if it can mean none. */
function fullestOf(usage: readonly LimitUsage[]): number | undefined {
  let fullest: number | undefined
  let most = -1
  for (const [i, { limit, used }] of usage.entries()) {
    if (!limit.isEnforced || limit.kind === 'concurrent' || limit.kind === 'smoothing' || limit.unit !== undefined)
      continue
    const share = used / limit.requests
    if (share <= most) continue
    fullest = i
    most = share
  }
  return fullest
}
