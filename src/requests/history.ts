/*
 * src/requests: the story of each recent call, by its correlation id, at all instances.
 * It imports what .oxlintrc.ts lists.
 * A change here must prove that its memory is bounded, and that no story contains a secret (test/requests).
 */

import type { Config } from '../schema/schema.ts'
import type { AccessLine } from '../observe/log.ts'
import { isTrouble, Lately } from './lately.ts'
import type { Circumstances, RequestRecord } from './story.ts'

/** Much larger than nearly all texts of calls. */
const CHUNK_BYTES = 65_536
/** Larger ones have a chunk of their own, so that at most so much at the end of a chunk is room that nobody uses. */
const MOST_SHARED_BYTES = CHUNK_BYTES / 8
/** The most bytes of UTF-8 that a UTF-16 unit takes. */
const MOST_BYTES_A_UNIT = 3

/** Some texts, one after the other. */
interface Chunk {
  readonly bytes: Buffer
  used: number
  /** How many of its texts are still kept. */
  texts: number
}

/** Which calls are asked for; all, if it says nothing. */
export interface Wanted {
  readonly id?: string | undefined
  readonly isTrouble?: boolean | undefined
}

/**
 * The latest calls of one process, a bounded number of bounded size: the oldest make way for the newest. They are kept as text
 * outside of the heap: as objects they would live just long enough for the garbage collector to copy each of them twice.
 */
export class RequestHistory {
  readonly #bounds: Config['requests']
  /** A ring of `keep` places for each of these: the chunk of a text, where it begins there, and its length in bytes. */
  readonly #chunks: (Chunk | undefined)[] = []
  readonly #starts: number[] = []
  readonly #lengths: number[] = []
  /** Whether they tell of trouble, so that those are found without parsing all others. */
  readonly #troubles: boolean[] = []
  /** How all calls ended lately, those that are kept and those that are not. */
  readonly lately = new Lately()
  /** How many were added and dropped so far. */
  #added = 0
  #dropped = 0
  /** The length of their texts. */
  bytes = 0
  #chunk: Chunk | undefined
  /** A chunk of the usual size whose texts were all dropped. */
  #spare: Chunk | undefined

  constructor(bounds: Config['requests']) {
    this.#bounds = bounds
  }

  get size(): number {
    return this.#added - this.#dropped
  }

  /**
   * `text` is the JSON of the access line, which begins with its correlation id; `routeText` that of the circumstances' route, which are
   * given without it.
   */
  add(line: AccessLine, text: string, circumstances: Circumstances, routeText?: string): void {
    this.lately.count(line, circumstances.at)
    const { keep, maxBytes } = this.#bounds
    if (keep === 0) return
    // Each is written for itself: both as one string would be copied once more.
    const known = JSON.stringify(circumstances)
    const rest = routeText === undefined ? `\n${known}` : `\n{"route":${routeText},${known.slice(1)}`
    const chunk = this.#chunkFor(text, rest)
    if (chunk === undefined) return
    let length = chunk.bytes.write(text, chunk.used)
    length += chunk.bytes.write(rest, chunk.used + length)
    this.bytes += length
    while (this.size > 0 && (this.size >= keep || this.bytes > maxBytes)) this.#dropOldest()
    const place = this.#added % keep
    this.#chunks[place] = chunk
    this.#starts[place] = chunk.used
    this.#lengths[place] = length
    this.#troubles[place] = isTrouble(line)
    this.#added++
    chunk.used += length
    chunk.texts++
  }

  /**
   * All of them that are there now, the newest first; or those with this correlation id, or that tell of trouble, which takes less
   * than to read all. Whoever pauses meanwhile misses those that are dropped.
   */
  newest(wanted: Wanted = {}): Iterable<RequestRecord> {
    return this.#newest(this.#added - 1, wanted)
  }

  *#newest(last: number, { id, isTrouble = false }: Wanted): Iterable<RequestRecord> {
    const beginning =
      id === undefined ? '' : Buffer.from(JSON.stringify({ correlationId: id }).slice(0, -1)).toString('latin1')
    for (let i = last; i >= this.#dropped; i--) {
      const place = i % this.#bounds.keep
      if (isTrouble && this.#troubles[place] !== true) continue
      const { bytes } = this.#chunks[place]!
      const start = this.#starts[place]!
      if (bytes.toString('latin1', start, start + beginning.length) !== beginning) continue
      yield parsed(bytes.toString('utf8', start, start + this.#lengths[place]!))
    }
  }

  /** Where these texts go; undefined if they are larger than all together may be. */
  #chunkFor(text: string, rest: string): Chunk | undefined {
    const last = this.#chunk
    // Their bytes are counted only where they might not fit.
    const mostBytes = (text.length + rest.length) * MOST_BYTES_A_UNIT
    if (last !== undefined && last.used + mostBytes <= last.bytes.length && mostBytes <= this.#bounds.maxBytes)
      return last
    const bytes = Buffer.byteLength(text) + Buffer.byteLength(rest)
    if (bytes > this.#bounds.maxBytes) return undefined
    if (bytes > MOST_SHARED_BYTES) return newChunk(bytes)
    if (last !== undefined && last.used + bytes <= last.bytes.length) return last
    this.#chunk = this.#spare ?? newChunk(CHUNK_BYTES)
    this.#spare = undefined
    return this.#chunk
  }

  #dropOldest(): void {
    const place = this.#dropped++ % this.#bounds.keep
    const chunk = this.#chunks[place]!
    this.#chunks[place] = undefined
    this.bytes -= this.#lengths[place]!
    if (--chunk.texts > 0 || chunk === this.#chunk || chunk.bytes.length !== CHUNK_BYTES) return
    chunk.used = 0
    this.#spare = chunk
  }
}

/** No pool of Node's: one text would keep the whole of it alive. */
function newChunk(bytes: number): Chunk {
  return { bytes: Buffer.allocUnsafeSlow(bytes), used: 0, texts: 0 }
}

function parsed(text: string): RequestRecord {
  const end = text.indexOf('\n')
  const line = JSON.parse(text.slice(0, end)) as AccessLine
  return { line, ...(JSON.parse(text.slice(end + 1)) as Circumstances) }
}
