import { LRUCache } from 'lru-cache'
import { type Fields, membersOf } from '../http/fields.ts'
import type { Clock } from '../time/clock.ts'
import type { Logger } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
import { formsOf } from './forms.ts'

/** A credential that is found again after this long is logged again. */
const EPISODE_MS = 60_000
/**
 * How many credentials are remembered: those of rotations and pools. Requests do not contain a token that was renewed
 * long ago.
 */
const MOST_KEPT = 32

interface EchoOptions {
  readonly upstream: string
  readonly account: string
  readonly metrics: Metrics
  readonly clock: Clock
  readonly logger?: Logger | undefined
}

/** The part of a response that contained a credential. */
type Place = 'header' | 'body' | 'trailer'

/**
 * Finds the credentials of one account in the answers of its upstream. Counts them, and logs the first of an episode.
 */
export class EchoGuard {
  readonly #options: EchoOptions
  readonly #count: ReturnType<Metrics['credentialsScrubbed']['of']>
  readonly #needles = new LRUCache<string, Needles>({ max: MOST_KEPT, memoMethod: needlesOf })
  #foundAt = -Infinity

  constructor(options: EchoOptions) {
    const { metrics, upstream, account } = options
    this.#options = options
    this.#count = metrics.credentialsScrubbed.of({ upstream, account })
  }

  /** What scrubs the response to a request that contained `exposed`; undefined if there is nothing to look for. */
  against(exposed: string, correlationId: string): Scrub | undefined {
    const needles = this.#needles.memo(exposed)
    return needles.texts.length === 0 ? undefined : new Scrub(needles, (place) => this.#found(place, correlationId))
  }

  #found(place: Place, correlationId: string): void {
    const { upstream, account, clock, logger } = this.#options
    this.#count.increment(correlationId)
    const now = clock.now()
    const isNew = now - this.#foundAt > EPISODE_MS
    this.#foundAt = now
    if (isNew)
      logger?.warn({ upstream, account, place, correlationId }, 'an upstream repeated its credential: it was scrubbed')
  }
}

/** The byte patterns of one credential. */
interface Needles {
  readonly texts: readonly string[]
  readonly buffers: readonly Buffer[]
  readonly shortest: number
  /** 1 for each byte that occurs in any of them. */
  readonly bytes: Uint8Array
}

function needlesOf(exposed: string): Needles {
  const texts = formsOf(exposed)
  const buffers = texts.map((text) => Buffer.from(text))
  const bytes = new Uint8Array(256)
  for (const buffer of buffers) for (const byte of buffer) bytes[byte] = 1
  return { texts, buffers, shortest: Math.min(...texts.map(({ length }) => length)), bytes }
}

const NONE: readonly string[] = []

const TEXT =
  /^\s*(?:text\/|application\/(?:[\w.+-]*(?:json|xml|javascript|yaml|ndjson)|x-www-form-urlencoded|graphql))/i

/** Other names of a coding are taken for the same (RFC 9110 §8.4.1.3). */
function codingsIn(field: string | string[]): readonly string[] {
  const names = membersOf(field).map((name) => name.toLowerCase().replace(/^x-/, ''))
  return names.filter((name) => name !== 'identity')
}

/**
 * Replaces a credential by asterisks, one for each byte, so that `Content-Length` stays true. It looks into headers and
 * trailers always, and into bodies if they are text. One that is packed has to be unpacked for it; see `codings`.
 */
export class Scrub {
  readonly #needles: Needles
  readonly #onFound: (place: Place) => void
  #isFound = false
  #looksIntoBody = false
  /** The codings of a body that is text, in lower case, in the order in which they were applied; none if it is not packed. */
  codings: readonly string[] = NONE
  /** The end of the last piece, where a credential may begin. */
  #tail: Buffer | undefined

  constructor(needles: Needles, onFound: (place: Place) => void) {
    this.#needles = needles
    this.#onFound = onFound
  }

  /** Scrubs the headers in place, and reads from them whether the body is to be scrubbed. */
  head(fields: Fields): void {
    this.#fields(fields, 'header')
    const { 'content-type': type, 'content-encoding': coding } = fields
    // Error pages may lack a type.
    const isText = type === undefined || TEXT.test(String(type))
    this.codings = isText && coding !== undefined ? codingsIn(coding) : NONE
    this.#looksIntoBody = isText && this.codings.length === 0
  }

  /** The pieces of the body are not packed from now on. */
  unpacked(): void {
    this.#looksIntoBody = true
  }

  /** Scrubs a whole body. Returns the same buffer if there is nothing in it. */
  whole(body: Buffer): Buffer {
    return this.#scrubBytes(body)
  }

  trailers(fields: Fields): void {
    this.#fields(fields, 'trailer')
  }

  #fields(fields: Fields, place: Place): void {
    for (const name in fields) {
      const value = fields[name]
      if (typeof value === 'string') fields[name] = this.text(value, place)
      else if (value !== undefined) fields[name] = value.map((one) => this.text(one, place))
    }
  }

  text(value: string, place: Place): string {
    // Most texts are shorter than any credential.
    if (value.length < this.#needles.shortest) return value
    let scrubbed = value
    for (const needle of this.#needles.texts) {
      if (scrubbed.includes(needle)) scrubbed = scrubbed.replaceAll(needle, '*'.repeat(needle.length))
    }
    if (scrubbed !== value) this.#note(place)
    return scrubbed
  }

  /**
   * Scrubs the next piece of the body. Returns undefined if all of it must wait for the next piece. No more is held
   * back than what may be the beginning of a credential.
   */
  piece(chunk: Buffer): Buffer | undefined {
    if (!this.#looksIntoBody) return chunk
    const whole = this.#tail === undefined ? chunk : Buffer.concat([this.#tail, chunk])
    const scrubbed = this.#scrubBytes(whole)
    const tailAt = this.#beginningAt(scrubbed)
    if (tailAt === scrubbed.length) {
      this.#tail = undefined
      return scrubbed
    }
    this.#tail = scrubbed.subarray(tailAt)
    return tailAt === 0 ? undefined : scrubbed.subarray(0, tailAt)
  }

  /** What was held back, at the end of the body. */
  rest(): Buffer | undefined {
    const tail = this.#tail
    this.#tail = undefined
    return tail
  }

  #scrubBytes(chunk: Buffer): Buffer {
    const { buffers, shortest } = this.#needles
    if (chunk.length < shortest) return chunk
    let scrubbed = chunk
    for (const needle of buffers) {
      for (let at = scrubbed.indexOf(needle); at >= 0; at = scrubbed.indexOf(needle, at + needle.length)) {
        // The transport owns the memory of the chunk.
        if (scrubbed === chunk) scrubbed = Buffer.from(chunk)
        scrubbed.fill('*', at, at + needle.length)
      }
    }
    if (scrubbed !== chunk) this.#note('body')
    return scrubbed
  }

  /** The index at which a credential may begin that goes on in the next piece; the length if there is none. */
  #beginningAt(chunk: Buffer): number {
    const { buffers, bytes } = this.#needles
    const { length } = chunk
    // Lines, events and JSON end with a byte that no credential contains.
    if (length === 0 || bytes[chunk[length - 1]!] === 0) return length
    let first = length
    for (const needle of buffers) {
      const from = Math.max(0, length - needle.length + 1)
      for (let at = chunk.indexOf(needle[0]!, from); at >= 0 && at < first; at = chunk.indexOf(needle[0]!, at + 1)) {
        if (needle.compare(chunk, at, length, 0, length - at) === 0) first = at
      }
    }
    return first
  }

  #note(place: Place): void {
    if (this.#isFound) return
    this.#isFound = true
    this.#onFound(place)
  }
}
