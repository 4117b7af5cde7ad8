import type { IncomingHttpHeaders } from 'node:http'
import { parseDuration } from '../config/units.ts'
import type { Failure } from './failure.ts'

/** What a client asks for in `X-Sluice-*` headers, within what the configuration allows. */
export interface Wishes {
  readonly maxWaitMs: number
  readonly mayRepeat: boolean
}

/** Reads `X-Sluice-Max-Wait` and `X-Sluice-Retry`; a value that can't be read is the client's error, not ignored. */
export function readWishes(headers: IncomingHttpHeaders, maxWaitMs: number): Wishes | Failure {
  const wait = headers['x-sluice-max-wait']
  const retry = headers['x-sluice-retry']
  if (wait === undefined && retry === undefined) return { maxWaitMs, mayRepeat: true }
  if (wait !== undefined && !/^(0|\d{1,9}(ms|s|m|h))$/.test(String(wait))) {
    return { kind: 'invalid_request', message: 'X-Sluice-Max-Wait must be 0 or a duration such as 500ms, 5s or 1m' }
  }
  if (retry !== undefined && retry !== 'off' && retry !== 'on') {
    return { kind: 'invalid_request', message: 'X-Sluice-Retry must be "on" or "off"' }
  }
  const wished = wait === undefined ? maxWaitMs : wait === '0' ? 0 : parseDuration(String(wait))
  return { maxWaitMs: Math.min(wished, maxWaitMs), mayRepeat: retry !== 'off' }
}
