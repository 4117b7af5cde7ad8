import type { Transform } from 'node:stream'
import type { Fields } from '../http/fields.ts'
import { codingOf, isKnownCoding, unpackerOf } from './coding.ts'
import { EventData, isEventStream } from './event-data.ts'
import { JsonNumbers } from './json-numbers.ts'
import type { Pointer } from './pointer.ts'

/** If so much of a body waits to be unpacked, it is not looked at any more: it comes faster than that goes. */
const MOST_WAITING = 1_048_576
/** A body that unpacks to more is a bomb. */
const MOST_UNPACKED = 256 * 1_048_576

/**
 * Looks for numbers in the body of a response that passes by: JSON, lines of JSON, or events with JSON; as it is, or packed with
 * gzip, deflate, Brotli or zstd. Of the body it keeps only what waits to be unpacked, which is bounded.
 */
export class BodyNumbers {
  readonly #numbers: JsonNumbers
  readonly #reader: { write(piece: Uint8Array): void }
  readonly #coding: string
  #unpacker: Transform | undefined
  #unpackedBytes = 0
  #isLost = false
  #onEnd: (() => void) | undefined

  constructor(pointers: readonly Pointer[], fields: Fields) {
    this.#numbers = new JsonNumbers(pointers)
    this.#reader = isEventStream(fields) ? new EventData(this.#numbers) : this.#numbers
    this.#coding = codingOf(fields['content-encoding'])
    this.#isLost = this.#coding !== '' && !isKnownCoding(this.#coding)
  }

  piece(chunk: Buffer): void {
    if (this.#isLost) return
    if (this.#coding === '') return this.#reader.write(chunk)
    const unpacker = (this.#unpacker ??= this.#unpack(chunk))
    if (unpacker.writableLength > MOST_WAITING) this.drop()
    else unpacker.write(chunk)
  }

  /** Not before there is something to unpack: many a body is not wanted. */
  #unpack(first: Buffer): Transform {
    return unpackerOf(this.#coding, first)!
      .on('data', this.#onUnpacked)
      .on('end', this.#onOver)
      .on('error', this.#onOver)
      .on('close', this.#onOver)
  }

  /** The body is whole: what was found in it, in the order of the pointers. */
  async end(): Promise<readonly (number | undefined)[]> {
    const unpacker = this.#unpacker
    if (unpacker !== undefined && !this.#isLost) {
      await new Promise<void>((resolve) => {
        this.#onEnd = resolve
        unpacker.end()
      })
    }
    if (this.#isLost) return this.#numbers.found.map(() => undefined)
    this.#numbers.restart()
    return this.#numbers.found
  }

  /** The rest is not looked at. */
  drop(): void {
    this.#isLost = true
    this.#unpacker?.destroy()
  }

  readonly #onUnpacked = (piece: Buffer): void => {
    this.#unpackedBytes += piece.length
    if (this.#unpackedBytes > MOST_UNPACKED) this.drop()
    else this.#reader.write(piece)
  }

  /** A body that is broken, or of another coding than it says, ends the look; what was found before that stands. */
  readonly #onOver = (): void => {
    this.#onEnd?.()
    this.#onEnd = undefined
    if (this.#unpacker?.readableEnded !== true) this.#isLost = true
  }
}
