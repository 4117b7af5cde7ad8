/*
 * src/answers: what the body of a vendor's answer says of rates and prices, read while the answer passes through.
 * It imports only http and schema.
 * A change here must prove that no more than a bound is kept of any body, and that its bytes pass as they were sent
 * (test/answers, test/system/disguised.test.ts).
 */

import { codingsOf, type Unpacker, unpackerOf } from '../http/content-coding.ts'
import type { Fields } from '../http/fields.ts'
import { EventData, isEventStream } from './event-data.ts'
import { JsonNumbers } from './json-numbers.ts'
import type { Pointer } from './pointer.ts'

/** If so much of a body waits to be unpacked, the rest is not looked at: it comes faster than it can be unpacked. */
const MOST_WAITING = 1_048_576
/** A body that unpacks to more is a bomb. */
const MOST_UNPACKED = 256 * 1_048_576

/**
 * Looks for numbers in the body of a response that passes by: JSON, lines of JSON, or events with JSON. The body may be packed with
 * gzip, deflate, Brotli or zstd. Only what waits to be unpacked is kept of it, which is bounded.
 */
export class BodyNumbers {
  readonly #numbers: JsonNumbers
  readonly #reader: { write(piece: Uint8Array): void }
  readonly #codings: readonly string[]
  #unpacker: Unpacker | undefined
  #unpackedBytes = 0
  #isBegun = false
  /** Nothing more is read of the body. */
  #isOver = false
  /** The rest of the body is not read, so nothing that was found in it counts. */
  #isDropped = false
  #onOver: (() => void) | undefined

  constructor(pointers: readonly Pointer[], fields: Fields) {
    this.#numbers = new JsonNumbers(pointers)
    this.#reader = isEventStream(fields) ? new EventData(this.#numbers) : this.#numbers
    this.#codings = codingsOf(fields['content-encoding'])
  }

  piece(chunk: Buffer): void {
    if (this.#isOver) return
    if (!this.#isBegun) this.#begin(chunk)
    if (this.#unpacker === undefined) return this.#reader.write(chunk)
    const { first } = this.#unpacker
    if (first.writableLength > MOST_WAITING) this.drop()
    else first.write(chunk)
  }

  /** Called with the first piece: many bodies are not read at all, and need no unpacker. */
  #begin(first: Buffer): void {
    this.#isBegun = true
    if (this.#codings.length === 0) return
    this.#unpacker = unpackerOf(this.#codings, first)
    // An error ends the look, as the end does: what was found before it stands.
    this.#unpacker?.last
      .on('data', this.#onUnpacked)
      .on('error', () => undefined)
      .on('close', this.#onClosed)
  }

  /**
   * The body is whole. Returns what was found in it, in the order of the pointers. If the body can't be unpacked to its end, what
   * comes before that counts. If it was dropped, nothing counts.
   */
  async end(): Promise<readonly (number | undefined)[]> {
    const unpacker = this.#unpacker
    if (unpacker !== undefined && !this.#isOver) {
      await new Promise<void>((resolve) => {
        this.#onOver = resolve
        unpacker.first.end()
      })
    }
    if (this.#isDropped) return this.#numbers.found.map(() => undefined)
    this.#numbers.restart()
    return this.#numbers.found
  }

  /** The rest is not looked at. */
  drop(): void {
    this.#isOver = this.#isDropped = true
    this.#unpacker?.last.destroy()
  }

  readonly #onUnpacked = (piece: Buffer): void => {
    this.#unpackedBytes += piece.length
    if (this.#unpackedBytes > MOST_UNPACKED) this.drop()
    else this.#reader.write(piece)
  }

  readonly #onClosed = (): void => {
    this.#isOver = true
    this.#onOver?.()
  }
}
