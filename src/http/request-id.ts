import type { IncomingHttpHeaders } from 'node:http'
import { onlyMember } from './fields.ts'

/** Whether a text may name a request in a log, a header or a URL: 1 to 128 visible ASCII characters. */
export function isRequestId(text: string): boolean {
  return /^[\x21-\x7e]{1,128}$/.test(text)
}

/** The id that the client itself gives a request, if it is one that may name it. */
export function requestIdOf(headers: IncomingHttpHeaders): string | undefined {
  const given = headers['x-correlation-id'] ?? headers['x-request-id']
  // An id may contain a comma, but no blank. Node joins repeated fields with a comma and a blank, so that `onlyMember` takes
  // such a value apart.
  const id = typeof given === 'string' && !given.includes(' ') ? given : onlyMember(given)
  return id !== undefined && isRequestId(id) ? id : undefined
}
