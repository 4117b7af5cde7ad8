import type { IncomingMessage } from 'node:http'
import { originalUrl } from './access-line.ts'

/** The most fields of a request. Node drops every field after the 2,000th without notice, so the bound is well below that. */
export const MOST_FIELDS = 1_000
export const HEAD_TOO_LARGE = 'the request line and headers are larger than server.maxHeaderBytes allows'

/** A Host as RFC 9110 §7.2 allows it: `uri-host [ ":" port ]`, with the characters of RFC 3986 §3.2.2. It may be empty. */
const HOST =
  /^(?:[\w.~!$&'()*+,;=-]*(?:%[\da-fA-F]{2}[\w.~!$&'()*+,;=-]*)*|\[(?:[\da-fA-F:.]+|[vV][\da-fA-F]+\.[\w.~!$&'()*+,;=:-]+)\])(?::0*(?:[1-5]?\d{0,4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5]))?$/

/** Why a request must be refused although Node's parser accepted it; undefined if it is well-formed. */
export function whyMalformed(request: IncomingMessage, maxHeaderBytes: number): string | undefined {
  const { httpVersion, rawHeaders } = request
  if (rawHeaders.length > 2 * MOST_FIELDS) return `a request has at most ${MOST_FIELDS} header fields`
  const hosts = countHosts(rawHeaders)
  // RFC 9112 §3.2: a server that reads the first Host and one that reads the last would send the request to different places.
  if (hosts > 1) return 'the request must have one Host only'
  const { host } = request.headers
  if (host !== undefined && !HOST.test(host))
    return 'the Host must be a name or an address, an IPv6 one in brackets, and after a colon perhaps a port'
  if (isHttp2(request)) {
    // Node announces the bound to a client of HTTP/2, but does not enforce it.
    return headBytes(request) > maxHeaderBytes ? HEAD_TOO_LARGE : undefined
  }
  const coding = request.headers['transfer-encoding']
  if (coding !== undefined) {
    // RFC 9112 §6.1: HTTP/1.0 has no chunks, so it is unclear where the body ends.
    if (httpVersion === '1.0') return 'a request of HTTP/1.0 must not have a Transfer-Encoding'
    // Node's parser decodes only chunked. A body in another coding would go upstream still coded, and no header would say so.
    if (coding.toLowerCase() !== 'chunked')
      return 'of the transfer codings only chunked is understood: a compressed body is announced by Content-Encoding'
  }
  // Node's parser also accepts a request line without a version, and one that says HTTP/2.0.
  if (httpVersion !== '1.1' && httpVersion !== '1.0') return 'of HTTP in words only 1.0 and 1.1 are understood'
  if (hosts === 0 && httpVersion === '1.1') return 'the request must have a Host'
  return undefined
}

/** Whether a request came in a stream of HTTP/2. `httpVersion` does not tell: a request line of HTTP/1.1 can claim any version. */
export function isHttp2(request: IncomingMessage): boolean {
  return 'stream' in request
}

/** The bytes of a head as SETTINGS_MAX_HEADER_LIST_SIZE counts them (RFC 9113 §6.5.2): each field counts 32 more than its text. */
function headBytes(request: IncomingMessage): number {
  const { rawHeaders } = request
  let bytes = originalUrl(request).length + rawHeaders.length * 16
  for (const text of rawHeaders) bytes += text.length
  return bytes
}

function countHosts(rawHeaders: readonly string[]): number {
  let count = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!
    if (name.length === 4 && name.toLowerCase() === 'host') count++
  }
  return count
}
