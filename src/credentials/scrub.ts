import { LRUCache } from 'lru-cache'
import { codingsOf } from '../http/content-coding.ts'
import type { Fields } from '../http/fields.ts'
import type { Clock } from '../time/clock.ts'
import type { Logger } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
import { formsOf } from './forms.ts'

/** A finding is logged only if nothing was found for longer than this before it. */
const EPISODE_MS = 60_000
/**
 * For how many credentials of an account the patterns are kept: a rotation or a pool uses several. The patterns of any
 * other credential are computed again when they are needed.
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
 * Finds the credentials of one account in the answers of its upstream. It counts each answer that contains one, and
 * logs the first of a series.
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

  /** Makes the scrubber of the response to a request that contained `exposed`; undefined if that is too short to look for. */
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
  /** Holds 1 at the index of each byte that occurs in any pattern, else 0. */
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

/**
 * Replaces a credential by asterisks, one for each byte, so that `Content-Length` stays true. It scrubs all headers and
 * trailers, and bodies that are text. The caller has to unpack a packed body before; see `codings`.
 */
export class Scrub {
  readonly #needles: Needles
  readonly #onFound: (place: Place) => void
  #isFound = false
  #looksIntoBody = false
  /** The codings of a packed text body, as `codingsOf` gives them; empty for any other body. */
  codings: readonly string[] = NONE
  /** The end of the last piece, held back because a credential may begin in it. */
  #tail: Buffer | undefined

  constructor(needles: Needles, onFound: (place: Place) => void) {
    this.#needles = needles
    this.#onFound = onFound
  }

  /** Scrubs the headers in place, and reads from them whether the body is to be scrubbed. */
  head(fields: Fields): void {
    this.#fields(fields, 'header')
    const { 'content-type': type, 'content-encoding': coding } = fields
    // A body without a type may be an error page, which is text.
    const isText = type === undefined || TEXT.test(String(type))
    this.codings = isText ? codingsOf(coding) : NONE
    this.#looksIntoBody = isText && this.codings.length === 0
  }

  /** Call it before the first unpacked piece of a packed body: from then on `piece` scrubs. */
  unpacked(): void {
    this.#looksIntoBody = true
  }

  /** Scrubs a whole body, of any type. Returns the same buffer if it contains no credential. */
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
   * Scrubs the next piece of the body, and returns what may be sent now; undefined if nothing may. It holds back only
   * an end that may be the beginning of a credential. After the last piece, call `rest`.
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

  /** Returns what `piece` still holds back. Call it at the end of the body. */
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
        // The transport owns the memory of the chunk, so only a copy may be changed.
        if (scrubbed === chunk) scrubbed = Buffer.from(chunk)
        scrubbed.fill('*', at, at + needle.length)
      }
    }
    if (scrubbed !== chunk) this.#note('body')
    return scrubbed
  }

  /** Returns where in the chunk a credential may begin that ends in the next piece; the length of the chunk if nowhere. */
  #beginningAt(chunk: Buffer): number {
    const { buffers, bytes } = this.#needles
    const { length } = chunk
    // Saves the search: lines, events and JSON mostly end with a byte that no credential contains.
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
