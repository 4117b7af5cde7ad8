import { type Entry, wholeBody } from './entry.ts'

/** Copies a body while it passes, up to a number of bytes. */
export class Capture {
  readonly #head: Omit<Entry, 'kind' | 'body'>
  readonly #maxBytes: number
  readonly #pieces: Buffer[] = []
  #bytes = 0

  constructor(head: Omit<Entry, 'kind' | 'body'>, maxBytes: number) {
    this.#head = head
    this.#maxBytes = maxBytes
  }

  /** Returns false once the body is too large. The capture is of no use then. */
  add(piece: Buffer): boolean {
    this.#bytes += piece.length
    if (this.#bytes > this.#maxBytes) return false
    this.#pieces.push(piece)
    return true
  }

  /** The answer with its body. Do not read it after `add` returned false: a piece would be missing. */
  get entry(): Entry {
    return { kind: 'entry', ...this.#head, body: wholeBody(this.#pieces) }
  }
}
