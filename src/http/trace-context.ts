import { randomFillSync } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'

/** The span of another program that asked for this one, as its request names it (W3C Trace Context §3). */
export interface RemoteParent {
  readonly traceId: string
  readonly spanId: string
  readonly isSampled: boolean
  /** The value of `tracestate`. */
  readonly state: string | undefined
}

/** What a new trace has to know: which part of the calls without a parent is sampled, and whether failures are kept besides. */
export interface TraceRule {
  readonly sample: number
  readonly failures: boolean
}

/** Any version but ff, which is forbidden; of later ones only the fields of version 00 are read (§3.2). */
const TRACEPARENT = /^(?!ff)([\da-f]{2})-(?!0{32})([\da-f]{32})-(?!0{16})([\da-f]{16})-([\da-f]{2})(-.*)?$/
const SAMPLED = 1
/** The last 56 bits of an id are random in all programs, which take the same traces by comparing them (OpenTelemetry, `rv`). */
const RANDOM_DIGITS = 14
const RANDOM_VALUES = 2 ** 56

/** The trace of a call, and the ids of its spans. Ids are had at once, because they go upstream; spans are made when it has ended. */
export class TraceContext {
  readonly parent: RemoteParent | undefined
  readonly traceId: string
  /** Whether its spans are exported however the call ends. */
  readonly isSampled: boolean
  readonly #keepsFailure: boolean
  readonly #spanIds: string

  /** Sampled as its parent is; without one, by its own id. */
  constructor(headers: IncomingHttpHeaders, { sample, failures }: TraceRule) {
    const ids = randomHex()
    this.parent = readParent(headers)
    this.traceId = this.parent?.traceId ?? ids.slice(0, 32)
    this.#spanIds = ids.slice(32)
    this.#keepsFailure = failures
    this.isSampled = this.parent?.isSampled ?? isWithin(this.traceId, sample)
  }

  /** Of the call itself with 0, of its attempts with their numbers from 1. */
  spanId(number: number): string {
    if (number === 0) return this.#spanIds
    const last = (Number.parseInt(this.#spanIds.slice(12), 16) + number) & 0xff_ff
    return this.#spanIds.slice(0, 12) + last.toString(16).padStart(4, '0')
  }

  /** Whether its spans are exported. A failure is, even if nothing else of its trace is. */
  isKept(hasFailed: boolean): boolean {
    return this.isSampled || (hasFailed && this.#keepsFailure)
  }

  /** The value of `traceparent` in an attempt. Its flag says what was decided when the call came: how it ends, nobody knows yet. */
  traceparent(attempt: number): string {
    return `00-${this.traceId}-${this.spanId(attempt)}-${this.isSampled ? '01' : '00'}`
  }
}

function readParent({ traceparent, tracestate }: IncomingHttpHeaders): RemoteParent | undefined {
  // Several of them are joined by Node, and so none.
  const fields = typeof traceparent === 'string' ? TRACEPARENT.exec(traceparent) : null
  if (fields === null) return undefined
  const [, version, traceId, spanId, flags, rest] = fields
  if (version === '00' && rest !== undefined) return undefined
  const isSampled = (Number.parseInt(flags!, 16) & SAMPLED) !== 0
  return { traceId: traceId!, spanId: spanId!, isSampled, state: tracestate?.toString() }
}

function isWithin(traceId: string, share: number): boolean {
  return Number.parseInt(traceId.slice(-RANDOM_DIGITS), 16) >= (1 - share) * RANDOM_VALUES
}

const ID_BYTES = 24
const pool = Buffer.alloc(ID_BYTES * 256)
let used = pool.length

/** The digits of 24 random bytes. Many are drawn at once, which takes a tenth of the time. */
function randomHex(): string {
  if (used === pool.length) {
    randomFillSync(pool)
    used = 0
  }
  return pool.toString('hex', used, (used += ID_BYTES))
}
