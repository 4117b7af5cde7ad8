import type { IncomingHttpHeaders } from 'node:http'
import { onlyMember } from './fields.ts'

/**
 * Whether a text may name a request in a log, a header or a URL: 1 to 128 visible ASCII characters. `.` and `..` may not, because URL
 * parsers remove such segments of a path (RFC 3986 §5.2.4).
 */
export function isRequestId(text: string): boolean {
  return /^(?!\.{1,2}$)[\x21-\x7e]{1,128}$/.test(text)
}

/** The id that the client itself gives a request: the first that may name it. */
export function requestIdOf(headers: IncomingHttpHeaders): string | undefined {
  return usable(headers['x-correlation-id']) ?? usable(headers['x-request-id'])
}

function usable(given: string | string[] | undefined): string | undefined {
  // An id may contain a comma, but no blank. Node joins repeated fields with a comma and a blank, so that `onlyMember` takes
  // such a value apart.
  const id = typeof given === 'string' && !given.includes(' ') ? given : onlyMember(given)
  return id !== undefined && isRequestId(id) ? id : undefined
}
