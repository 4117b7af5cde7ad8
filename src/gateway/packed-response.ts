import { isEventStream } from '../answers/event-data.ts'
import type { Scrub } from '../credentials/scrub.ts'
import { type Unpacker, unpacked, unpackerOf } from '../http/content-coding.ts'
import { weakened } from '../http/entity-tag.ts'
import { type Fields, joined, onlyValue } from '../http/fields.ts'
import type { Clock, Timer } from '../time/clock.ts'
import type { AnswerPrice } from './answer-price.ts'
import type { Deliverable } from './delivery.ts'
import type { BodyReceiver, UpstreamResponse } from './upstream-response.ts'

/** A body of up to this many bytes, as it is sent, is searched before any of it is passed on. */
const LOOK_BYTES = 65_536
/** How long the head waits for such a body. A body that takes longer is unpacked and passed on as it comes. */
const LOOK_MS = 200
/** A body is a bomb if it unpacks to more than this many bytes, and to more than `MOST_TIMES` times what was sent. It is broken off. */
const MOST_UNPACKED = 64 * 1_048_576
const MOST_TIMES = 100

/** Fields that are only true of the packed bytes. */
const OF_PACKED = [
  'content-encoding',
  'content-length',
  'content-range',
  'accept-ranges',
  'content-md5',
  'digest',
  'content-digest',
  'repr-digest',
]

export interface PackedOptions {
  readonly clock: Clock
  readonly scrub: Scrub
  /** Reads from the body, as it was sent, what the call costs. */
  readonly price: AnswerPrice | undefined
}

/** Whether a body is packed and can be unpacked. A credential in such a body is found only by unpacking it. */
export function isToUnpack(
  { status, fields }: UpstreamResponse,
  method: string | undefined,
  { codings }: Scrub,
): boolean {
  if (codings.length === 0) return false
  // None of these has a body, whatever its fields say.
  if (method === 'HEAD' || status === 204 || status === 205 || status === 304) return false
  // A part can't be unpacked without the parts before it.
  return status !== 206 || isOfAll(joined(fields['content-range']))
}

/**
 * A response with a packed body that may hold a credential. A short body is searched before any of it is passed on. If there is no
 * credential in it, it goes on byte for byte. Any other body goes on unpacked, with its fields corrected, and is scrubbed on its way.
 * Only a bounded part of a body is kept. A body that breaks off, or can't be unpacked, is broken off for the client, too.
 */
export class PackedResponse implements BodyReceiver, Deliverable {
  readonly fields: Fields
  readonly phrase: string
  readonly #response: UpstreamResponse
  readonly #scrub: Scrub
  readonly #price: AnswerPrice | undefined
  status: number
  #phase: 'looking' | 'decided' | 'unpacking' = 'looking'
  #timer: Timer | undefined
  #onDecided: (() => void) | undefined
  /** Pieces that came before the receiver was set. */
  #kept: Buffer[] = []
  #receivedBytes = 0
  #unpackedBytes = 0
  #receiver: BodyReceiver | undefined
  #ending: ((receiver: BodyReceiver) => void) | undefined
  #unpacker: Unpacker | undefined
  #isWhole = false
  /** Everything was unpacked. Bytes behind the packed data are dropped. */
  #isUnpacked = false
  #isOver = false

  constructor(response: UpstreamResponse, { clock, scrub, price }: PackedOptions) {
    const { status, fields, phrase } = response
    this.fields = fields
    this.phrase = phrase
    this.#response = response
    this.#scrub = scrub
    this.#price = price
    this.status = status
    const isLong = Number(onlyValue(fields['content-length']) ?? 0) > LOOK_BYTES
    // An event stream is not held back: its next event may come in an hour.
    if (isLong || isEventStream(fields)) this.#unpackAll()
    else this.#timer = clock.schedule(LOOK_MS, () => this.#unpackAll())
    response.passTo(this)
  }

  get meaning(): number {
    return this.#response.isDisguised ? this.#response.meaning : this.status
  }

  /**
   * Resolves when it is known whether the body goes on packed or unpacked; `status` and `fields` are final then. Undefined if it is
   * known already. Ask once: if it is asked again, the first promise never resolves.
   */
  get decided(): Promise<void> | undefined {
    if (this.#phase !== 'looking') return undefined
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#onDecided = resolve
    return promise
  }

  passTo(receiver: BodyReceiver): void {
    this.#receiver = receiver
    for (const piece of this.#kept) this.#pass(piece)
    this.#kept = []
    this.#finish()
  }

  pause(): void {
    if (this.#phase === 'unpacking') this.#unpacker?.last.pause()
    else this.#response.pause()
  }

  resume(): void {
    if (this.#phase === 'unpacking') this.#unpacker?.last.resume()
    else this.#response.resume()
  }

  abort(): void {
    this.#close()
    this.#response.abort()
  }

  piece(chunk: Buffer): void {
    this.#price?.piece(chunk)
    this.#receivedBytes += chunk.length
    if (this.#receiver !== undefined) return this.#pass(chunk)
    this.#kept.push(chunk)
    if (this.#phase === 'looking' && this.#receivedBytes > LOOK_BYTES) this.#unpackAll()
  }

  end(trailers: Fields): void {
    this.#price?.whole(trailers)
    this.#isWhole = true
    if (this.#phase === 'looking') this.#look()
    this.#endWith((receiver) => receiver.end(trailers))
  }

  breakOff(error: Error): void {
    if (this.#phase === 'looking') this.#unpackAll()
    this.#endWith((receiver) => receiver.breakOff(error))
  }

  fail(mistake: unknown): void {
    this.#kept = []
    if (this.#phase === 'looking') this.#decide('decided')
    this.#endWith((receiver) => receiver.fail(mistake))
  }

  #endWith(ending: (receiver: BodyReceiver) => void): void {
    this.#ending = ending
    if (this.#receiver !== undefined) this.#finish()
  }

  /** Searches the whole body, and decides how it goes on. */
  #look(): void {
    const packed = Buffer.concat(this.#kept)
    if (packed.length === 0) return this.#decide('decided')
    const body = unpacked(packed, this.#scrub.codings)
    if (body === undefined) return this.#unpackAll()
    const scrubbed = this.#scrub.whole(body)
    // A credential may also follow the packed data, or stand in it unpacked.
    if (scrubbed === body && this.#scrub.whole(packed) === packed) return this.#decide('decided')
    this.#kept = [scrubbed]
    this.#correctFields()
    this.fields['content-length'] = String(scrubbed.length)
    this.#decide('decided')
  }

  /** The body goes on unpacked, from its first byte. */
  #unpackAll(): void {
    if (this.#phase !== 'looking') return
    // The unpacked length is not known, so chunks have to mark the end of the body.
    if (this.fields['content-length'] !== undefined) this.fields['transfer-encoding'] = 'chunked'
    this.#correctFields()
    this.#scrub.unpacked()
    this.#decide('unpacking')
  }

  #decide(phase: 'decided' | 'unpacking'): void {
    this.#phase = phase
    this.#timer?.cancel()
    this.#onDecided?.()
  }

  #correctFields(): void {
    const { fields } = this
    for (const name of OF_PACKED) delete fields[name]
    const etag = onlyValue(fields['etag'])
    if (etag !== undefined) fields['etag'] = weakened(etag)
    if (this.status === 206) this.status = 200
  }

  #pass(piece: Buffer): void {
    if (this.#isOver || this.#isUnpacked) return
    if (this.#phase !== 'unpacking') return this.#receiver!.piece(piece)
    this.#unpacker ??= this.#open(piece)
    if (this.#unpacker === undefined) {
      this.#phase = 'decided'
      this.#receiver!.piece(piece)
    } else if (!this.#unpacker.first.write(piece)) this.#response.pause()
  }

  /** Begins to unpack; undefined if the body is not packed after all. */
  #open(piece: Buffer): Unpacker | undefined {
    const unpacker = unpackerOf(this.#scrub.codings, piece)
    unpacker?.first.on('drain', () => this.#safely(() => this.#goOn()))
    unpacker?.last
      .on('error', (error) => this.#safely(() => this.#break(error)))
      .on('data', (one: Buffer) => this.#safely(() => this.#unpackedPiece(one)))
      .on('end', () => this.#safely(() => this.#unpackedAll()))
    return unpacker
  }

  #goOn(): void {
    if (this.#ending === undefined) this.#response.resume()
  }

  #unpackedPiece(piece: Buffer): void {
    if (this.#isOver) return
    this.#unpackedBytes += piece.length
    if (this.#unpackedBytes > MOST_UNPACKED && this.#unpackedBytes > MOST_TIMES * this.#receivedBytes)
      return this.#break(new BodyBombError())
    this.#receiver!.piece(piece)
  }

  #unpackedAll(): void {
    this.#isUnpacked = true
    if (this.#ending === undefined) this.#goOn()
    else this.#conclude()
  }

  #break(error: Error): void {
    if (this.#isOver) return
    this.#close()
    this.#response.abort()
    this.#receiver!.breakOff(error)
  }

  #finish(): void {
    if (this.#ending === undefined || this.#isOver) return
    // A whole body is unpacked to its end before the end is told. For a body that broke off there is nothing to wait for.
    if (this.#unpacker !== undefined && this.#isWhole && !this.#isUnpacked) this.#unpacker.first.end()
    else this.#conclude()
  }

  #conclude(): void {
    if (this.#isOver) return
    this.#close()
    this.#ending?.(this.#receiver!)
  }

  #close(): void {
    this.#isOver = true
    this.#timer?.cancel()
    this.#unpacker?.last.destroy()
  }

  /**
   * Runs a handler of a stream's event. An exception that left the handler would end the process; the receiver is told of it instead.
   */
  #safely(run: () => void): void {
    try {
      run()
    } catch (mistake) {
      this.#close()
      this.#response.abort()
      this.#receiver!.fail(mistake)
    }
  }
}

/** Whether a Content-Range covers the whole body. */
function isOfAll(range: string): boolean {
  const [, last, length] = /^bytes 0-(\d+)\/(\d+)$/i.exec(range) ?? []
  return last !== undefined && Number(last) + 1 === Number(length)
}

/** A body that unpacks to so much more than was sent is no answer to anything. */
class BodyBombError extends Error {
  readonly code = 'BODY_BOMB'
}
