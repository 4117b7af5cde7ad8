import type { Credential } from '../credentials/credential.ts'
import type { Fields } from '../http/fields.ts'
import type { Config, UpstreamConfig } from '../schema/schema.ts'
import type { ClassMetrics } from '../observe/call-metrics.ts'
import { reportedLimit, readFeedback, type LimitReport } from '../ledger/feedback.ts'
import type { LimitUsage } from '../ledger/ledger.ts'
import type { Permit } from '../queue/permit.ts'
import { retryAfterOf } from '../http/retry-after.ts'
import type { Call } from './call.ts'

/** The head of a response, as it came. */
export interface ResponseHead {
  readonly status: number
  readonly fields: Fields
  /** How long it took from the dispatch. */
  readonly tookMs: number
  /** It refuses the call for rate, although its status does not say so. */
  readonly isDisguised: boolean
}

/** What it needs to know of the call. */
export type FeedbackCall = Pick<Call, 'id' | 'clock'> & {
  readonly snapshot: { readonly config: Pick<Config, 'store'> }
}
/** And of where it went. */
export interface FeedbackTarget {
  readonly upstream: { readonly config: { readonly throttle: Omit<UpstreamConfig['throttle'], 'when' | 'retry'> } }
  readonly account: { throttledAt: number }
  readonly credential?: Pick<Credential, 'quotaTold' | 'othersInMs'> | undefined
  readonly admissionPolicy: { readonly metrics: Pick<ClassMetrics, 'throttled'> }
}

/** Where a response does not say when more comes back, one call finds out after so large a part of the window. */
const LOOK_AFTER = 20

/**
 * Takes to heart what a response says of quotas. Where the upstream says that less remains than was thought, it is believed.
 * Where it refuses the call because there were too many, the account pauses, and less of the limit is used for a while, at
 * all gateways; unless the refusal says itself until when nothing remains, which is believed in place of that. Returns in how many
 * milliseconds the account's calls may go on, or undefined if the call was not refused so, or because of one credential of several.
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
    // While quotas are kept without the store nobody knows what all gateways have used.
    const number = permit.isLocal ? -1 : reportedLimit(report, permit.limits, ofRequests === 1)
    // Of tokens and the like some may remain, but fewer than the call wants.
    const isRefusal = isThrottled && report.remaining < (permit.chargeSet.units[number] ?? 1)
    // Where a limit fills up evenly, some of it comes back long before its reset, which is when it is full.
    let untilMs = report.resetMs === undefined ? retryAfterMs : Math.min(report.resetMs, retryAfterMs ?? Infinity)
    // One that is over already says nothing of when calls are accepted again: they would be refused one after the other.
    if (isRefusal && untilMs === 0) untilMs = target.upstream.config.throttle.pause
    const windowMs = tellLedger(report, number, permit, head.tookMs, isRefusal, untilMs)
    if (!isRefusal) continue
    end.isApplied ||= windowMs !== undefined
    if (report.resetMs !== undefined && report.resetMs > 0)
      end.resetMs = Math.max(end.resetMs ?? 0, Math.min(untilMs ?? 0, windowMs ?? Infinity))
  }
  return isThrottled ? throttled(call, target, permit, head, retryAfterMs, end) : undefined
}

/** Tells one credential of several what its own quota is. The window that ends last has most to lose; any may be used up. */
function tellCredential(credential: Pick<Credential, 'quotaTold'>, reports: readonly LimitReport[]): void {
  const endsInMs = Math.max(...reports.map(({ resetMs = 0 }) => resetMs))
  const usedUpMs = Math.max(...reports.map(({ remaining, resetMs = 0 }) => (remaining <= 0 ? resetMs : 0)))
  credential.quotaTold?.(endsInMs, usedUpMs)
}

/** What a refusal says of its end, beside a Retry-After. */
interface End {
  /** It is about one of the call's limits, and the ledger was told. */
  isApplied: boolean
  /** Until a limit by which nothing remains has some again. */
  resetMs: number | undefined
}

/** Many statuses can say it, but most of them also say other things. */
function isThrottling(
  { status, fields }: ResponseHead,
  reports: readonly LimitReport[],
  statuses: readonly number[],
): boolean {
  if (!statuses.includes(status)) return false
  return status === 429 || fields['retry-after'] !== undefined || reports.some(({ remaining }) => remaining === 0)
}

/** The window of the limit of which the ledger was told, and for which it believes it at most; undefined if it was not. */
function tellLedger(
  report: LimitReport,
  number: number,
  permit: Permit,
  tookMs: number,
  isRefused: boolean,
  untilMs: number | undefined,
): number | undefined {
  const usage = permit.usage[number]
  if (usage === undefined) return undefined
  const { windowMs, bucketMs } = usage.limit
  // Of a limit that is split over regions, the upstream counts what the others use, too. What remains may all be ours.
  const requests = usage.share ?? usage.limit.requests
  const units = requests - Math.min(report.remaining, requests)
  // As of the charge: what the ledger knows by now decides. Where there is nothing to say it is not asked.
  const isKnown = usage.effective !== undefined
  if (!isRefused && !isKnown && units <= usage.used) return undefined
  const tolerance = Math.ceil((requests * (tookMs + bucketMs)) / windowMs)
  const resetMs = untilMs ?? windowMs / LOOK_AFTER
  permit.applyFeedback({ kind: 'counted', limit: number, units, tolerance, resetMs, isRefused })
  return windowMs
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
  // On its way when another call was told: there is nothing new in it.
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
  // A limit that is known holds calls back by itself; for one that is not, all of the account's have to wait.
  const wantedMs = retryAfterMs ?? (isApplied ? 0 : resetMs)
  const pauseMs = Math.min(wantedMs ?? (isKnown ? 0 : pause), maxPause, othersInMs)
  if (pauseMs > 0) permit.applyFeedback({ kind: 'pause', ms: pauseMs })
  return isApplied ? Math.max(pauseMs, resetMs ?? 0) : pauseMs
}

/** Whether the gateway let through more than the limit knowingly. */
function isOurDoing({ snapshot }: FeedbackCall, permit: Permit): boolean {
  if (permit.isLocal && snapshot.config.store.onOutage === 'open') return true
  return permit.usage.some(({ limit, used }) => !limit.isEnforced && used > limit.requests)
}

/** Which of them is most probably the one that the upstream means. */
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
