import type { IncomingMessage } from 'node:http'

/** Of more, Node would leave out those behind the 2,000th without a word. */
export const MOST_FIELDS = 1_000
export const HEAD_TOO_LARGE = 'the request line and headers are larger than server.maxHeaderBytes allows'

/** What is wrong with a request that Node's parser let through, if anything. */
export function whyMalformed(request: IncomingMessage, maxHeaderBytes: number): string | undefined {
  const { httpVersion, rawHeaders } = request
  if (rawHeaders.length > 2 * MOST_FIELDS) return `a request has at most ${MOST_FIELDS} header fields`
  const hosts = countHosts(rawHeaders)
  // RFC 9112 §3.2: who reads the first one and who the last do not agree where it goes.
  if (hosts > 1) return 'the request must have one Host only'
  if (isHttp2(request)) {
    // Its parser only announces the bound.
    return headBytes(request) > maxHeaderBytes ? HEAD_TOO_LARGE : undefined
  }
  const coding = request.headers['transfer-encoding']
  if (coding !== undefined) {
    // RFC 9112 §6.1: who speaks 1.0 does not know chunks, so its framing is faulty.
    if (httpVersion === '1.0') return 'a request of HTTP/1.0 must not have a Transfer-Encoding'
    // The parser undoes the chunks alone: what is below them would go on as if it were the body.
    if (coding.toLowerCase() !== 'chunked')
      return 'of the transfer codings only chunked is understood: a compressed body is announced by Content-Encoding'
  }
  // The parser also takes lines without a version, and those that call themselves 2.0.
  if (httpVersion !== '1.1' && httpVersion !== '1.0') return 'of HTTP in words only 1.0 and 1.1 are understood'
  if (hosts === 0 && httpVersion === '1.1') return 'the request must have a Host'
  return undefined
}

/** Whether it came in a stream of HTTP/2; what a request line says of its version proves nothing. */
export function isHttp2(request: IncomingMessage): boolean {
  return 'stream' in request
}

/** As the bound is meant that was announced to the client (RFC 9113 §6.5.2): with 32 for each field. */
function headBytes({ url = '', rawHeaders }: IncomingMessage): number {
  let bytes = url.length + rawHeaders.length * 16
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
