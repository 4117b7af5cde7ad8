import { type Fields, joined } from '../http/fields.ts'
import type { JsonNumbers } from './json-numbers.ts'

const STREAM = /^\s*text\/event-stream\s*(?:;|$)/i
/** Before the first line there may be a byte order mark. */
const FIELD = Buffer.from('\uFEFFdata:')
const LINE = FIELD.indexOf('data:')
const [LF, CR] = [0x0a, 0x0d]

/**
 * Reads the data of each event of a stream of events (WHATWG HTML §9.2.6) as a text of its own. If several events have a value, the
 * last one counts.
 */
export class EventData {
  readonly #numbers: JsonNumbers
  /** How far `FIELD` was found; -1 in a line of another field. */
  #at = 0
  #isEmpty = true
  #wasCr = false

  constructor(numbers: JsonNumbers) {
    this.#numbers = numbers
  }

  write(piece: Uint8Array): void {
    let from = 0
    while (from < piece.length) {
      if (this.#at === FIELD.length) {
        const to = endOfLine(piece, from)
        this.#numbers.write(piece.subarray(from, to))
        from = to
        if (from === piece.length) return
      }
      this.#byte(piece[from++]!)
    }
  }

  #byte(byte: number): void {
    const isSecondOfPair = byte === LF && this.#wasCr
    this.#wasCr = byte === CR
    if (isSecondOfPair) return
    if (byte === LF || byte === CR) {
      if (this.#isEmpty) this.#numbers.restart()
      this.#isEmpty = true
      this.#at = LINE
      return
    }
    this.#isEmpty = false
    if (this.#at === 0 && byte !== FIELD[0]) this.#at = LINE
    if (this.#at >= 0) this.#at = byte === FIELD[this.#at] ? this.#at + 1 : -1
  }
}

/** Whether the body of a response is a stream of events, by its head. */
export function isEventStream(fields: Fields): boolean {
  return STREAM.test(joined(fields['content-type']))
}

function endOfLine(piece: Uint8Array, from: number): number {
  const lf = piece.indexOf(LF, from)
  const cr = piece.indexOf(CR, from)
  if (lf < 0) return cr < 0 ? piece.length : cr
  return cr < 0 ? lf : Math.min(lf, cr)
}
