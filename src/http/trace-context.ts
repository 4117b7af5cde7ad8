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

/** Which share of the calls without a parent is sampled, and whether the spans of failures are kept besides. */
export interface TraceRule {
  readonly sample: number
  readonly failures: boolean
}

/**
 * Any version but ff, which is forbidden; of later ones only the fields of version 00 are read (§3.2). Node makes one line of two,
 * with a comma.
 */
const TRACEPARENT = /^(?!ff)([\da-f]{2})-(?!0{32})([\da-f]{32})-(?!0{16})([\da-f]{16})-([\da-f]{2})(-[^,]*)?$/
const SAMPLED = 1
/**
 * The last 56 bits of a trace id are random in all programs. Programs that compare them sample the same traces (OpenTelemetry, `rv`).
 */
const RANDOM_VALUES = 2 ** 56
const TRACE_BYTES = 16
const ID_BYTES = 24
/** So many ids are drawn at a time: to ask for random bytes costs more than the bytes. */
const DRAWN = 256

/**
 * The trace of a call, and the ids of its spans. The ids are drawn at once, because they may go upstream. They become text only when
 * somebody reads them. The spans are made when the call has ended.
 */
export class TraceContext {
  readonly parent: RemoteParent | undefined
  /** Whether its spans are exported however the call ends. */
  readonly isSampled: boolean
  readonly #keepsFailure: boolean
  readonly #drawn: Buffer
  readonly #start: number
  #digits: string | undefined

  /** With a parent, it is sampled as the parent is; without one, by its own id. */
  constructor(headers: IncomingHttpHeaders, { sample, failures }: TraceRule) {
    if (used === drawn.length) draw()
    this.#drawn = drawn
    this.#start = used
    used += ID_BYTES
    this.parent = readParent(headers)
    this.#keepsFailure = failures
    this.isSampled = this.parent?.isSampled ?? this.#randomValue() >= (1 - sample) * RANDOM_VALUES
  }

  get traceId(): string {
    return this.parent?.traceId ?? this.#hex().slice(0, TRACE_BYTES * 2)
  }

  /** The id of a span: 0 is the call itself, and its attempts are numbered from 1. */
  spanId(number: number): string {
    const first = this.#hex().slice(TRACE_BYTES * 2)
    if (number === 0) return first
    const last = (Number.parseInt(first.slice(12), 16) + number) & 0xff_ff
    return first.slice(0, 12) + last.toString(16).padStart(4, '0')
  }

  /** Whether its spans are exported. A failure may be kept although the trace is not sampled. */
  isKept(hasFailed: boolean): boolean {
    return this.isSampled || (hasFailed && this.#keepsFailure)
  }

  /**
   * The value of `traceparent` in an attempt. Its flag says what was decided when the call came, because nobody knows yet how it ends.
   */
  traceparent(attempt: number): string {
    return `00-${this.traceId}-${this.spanId(attempt)}-${this.isSampled ? '01' : '00'}`
  }

  #hex(): string {
    return (this.#digits ??= this.#drawn.toString('hex', this.#start, this.#start + ID_BYTES))
  }

  /** The last 56 bits of its trace id. */
  #randomValue(): number {
    const last = this.#start + TRACE_BYTES
    return this.#drawn[last - 7]! * 2 ** 48 + this.#drawn.readUIntBE(last - 6, 6)
  }
}

function readParent({ traceparent, tracestate }: IncomingHttpHeaders): RemoteParent | undefined {
  // Node joins several fields to one text, which matches nothing.
  const fields = typeof traceparent === 'string' ? TRACEPARENT.exec(traceparent) : null
  if (fields === null) return undefined
  const [, version, traceId, spanId, flags, rest] = fields
  if (version === '00' && rest !== undefined) return undefined
  const isSampled = (Number.parseInt(flags!, 16) & SAMPLED) !== 0
  return { traceId: traceId!, spanId: spanId!, isSampled, state: tracestate?.toString() }
}

let drawn = Buffer.alloc(0)
let used = 0

/** Takes another piece of memory each time, because calls under way have their ids in the one before. */
function draw(): void {
  drawn = randomFillSync(Buffer.allocUnsafeSlow(ID_BYTES * DRAWN))
  used = 0
}
