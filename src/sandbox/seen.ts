import { createHash, hash } from 'node:crypto'
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { hasBody, readBody } from './body.ts'
import type { Question } from './identify.ts'

/** A request as it came. What is learned after its head is filled in later. */
export interface SeenRequest {
  /** When its head had been received: milliseconds since 1970 of a clock that never goes back. */
  readonly at: number
  readonly method: string
  /** The request target, byte for byte. */
  readonly url: string
  readonly headers: IncomingHttpHeaders
  /** Names and values in turn, in the order and the case in which they were sent. */
  readonly rawHeaders: readonly string[]
  /** As far as the body has come. */
  bodyBytes: number
  /** In hex; null until the body has come to its end. */
  bodySha256: string | null
  readonly class: string
  readonly charges: readonly string[]
  readonly account: string
  /** Null until an answer is begun, which with some faults is never. */
  status: number | null
}

const SEEN_KEPT = 10_000
const EMPTY_SHA256 = hash('sha256', '', 'hex')

/** The latest requests; the oldest are overwritten. */
export class SeenLog {
  #entries: SeenRequest[] = []
  #next = 0

  add(at: number, request: IncomingMessage, { method, route, account }: Question): SeenRequest {
    const { url = '', headers, rawHeaders } = request
    const bodySha256 = hasBody(request) ? null : EMPTY_SHA256
    const head = { at, method, url, headers, rawHeaders, class: route.class, charges: route.charges, account }
    const entry: SeenRequest = { ...head, bodyBytes: 0, bodySha256, status: null }
    this.#entries[this.#next] = entry
    this.#next = (this.#next + 1) % SEEN_KEPT
    return entry
  }

  latest(limit = SEEN_KEPT): SeenRequest[] {
    // Until it is full the log ends where the next one goes, and there is nothing behind.
    const inOrder = [...this.#entries.slice(this.#next), ...this.#entries.slice(0, this.#next)]
    return inOrder.slice(Math.max(0, inOrder.length - limit))
  }

  clear(): void {
    this.#entries = []
    this.#next = 0
  }
}

/** As `readBody`, and notes how long the body is and its hash. */
export async function receive(request: IncomingMessage, seen: SeenRequest): Promise<string | undefined> {
  const hash = createHash('sha256')
  const body = await readBody(request, (piece) => {
    seen.bodyBytes += piece.length
    hash.update(piece)
  })
  if (body !== undefined) seen.bodySha256 = hash.digest('hex')
  return body
}
