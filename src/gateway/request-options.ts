import type { IncomingHttpHeaders } from 'node:http'
import { parseDuration } from '../schema/units.ts'
import { type Field, joined, onlyMember } from '../http/fields.ts'
import { PRIORITIES, type Priority } from '../ledger/demand.ts'
import { Failure } from './failure.ts'

/** The options that a client sets by `X-Sluice-*` headers, bounded by the configuration. */
export interface RequestOptions {
  readonly maxWaitMs: number
  readonly mayRetry: boolean
  /** The longest time from arrival to response headers, waits included, in milliseconds; Infinity without the header. */
  readonly timeoutMs: number
  readonly priority: Priority
  /** False where nobody makes the call again after a refusal, so that no turn is kept for it. */
  readonly comesBack?: false
}

/** The bounds of the configuration. */
interface Bounds {
  readonly maxWaitMs: number
  readonly priority: Priority
}

/** Reads the options. A malformed value is an error of the client, and is not ignored. */
export function readRequestOptions(
  headers: IncomingHttpHeaders,
  { maxWaitMs, priority }: Bounds,
): RequestOptions | Failure {
  const wait = optionIn(headers['x-sluice-max-wait'])
  const retry = optionIn(headers['x-sluice-retry'])
  const timeout = optionIn(headers['x-sluice-timeout'])
  const urgency = optionIn(headers['x-sluice-priority'])
  if (wait === undefined && retry === undefined && timeout === undefined && urgency === undefined) {
    return { maxWaitMs, mayRetry: true, timeoutMs: Infinity, priority }
  }
  if (wait !== undefined && !/^(0|\d{1,9}(ms|s|m|h))$/.test(wait)) {
    return new Failure('invalid_request', 'X-Sluice-Max-Wait must be 0 or a duration such as 500ms, 5s or 1m')
  }
  if (timeout !== undefined && !/^[1-9]\d{0,8}(ms|s|m|h)$/.test(timeout)) {
    return new Failure('invalid_request', 'X-Sluice-Timeout must be a duration such as 500ms, 5s or 1m')
  }
  if (retry !== undefined && retry !== 'off' && retry !== 'on') {
    return new Failure('invalid_request', 'X-Sluice-Retry must be "on" or "off"')
  }
  const asked = PRIORITIES.indexOf((urgency ?? priority) as Priority)
  if (asked < 0) {
    const message = `X-Sluice-Priority must be one of ${PRIORITIES.join(', ')}`
    return new Failure('invalid_request', message)
  }
  const askedMs = wait === undefined ? maxWaitMs : wait === '0' ? 0 : parseDuration(wait)
  return {
    maxWaitMs: Math.min(askedMs, maxWaitMs),
    mayRetry: retry !== 'off',
    timeoutMs: timeout === undefined ? Infinity : parseDuration(timeout),
    // A call is never more urgent than its client.
    priority: PRIORITIES[Math.max(asked, PRIORITIES.indexOf(priority))]!,
  }
}

/** The value of a field. Equal lines count once. Different lines are joined, and no option can be parsed from that. */
function optionIn(field: Field): string | undefined {
  return field === undefined ? undefined : (onlyMember(field) ?? joined(field))
}
