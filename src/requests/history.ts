/*
 * src/requests: the story of each recent call, by its correlation id, at all instances.
 * It imports what .oxlintrc.ts lists.
 * A change here must prove that its memory is bounded, and that no story contains a secret (test/requests).
 */

import type { Config } from '../schema/schema.ts'
import type { AccessLine } from '../observe/log.ts'
import { LINE_END, MOST_BYTES_A_UNIT } from '../observe/output.ts'
import { isTrouble, Lately } from './lately.ts'
import type { Circumstances, RequestRecord } from './story.ts'

/** The usual size of a chunk. It is much larger than nearly all texts of calls. */
const CHUNK_BYTES = 65_536
/** A longer text gets a chunk of its own, so that less than this stays unused at the end of a shared chunk. */
const MOST_SHARED_BYTES = CHUNK_BYTES / 8

/** A buffer that holds the texts of some calls, one after the other. */
interface Chunk {
  readonly bytes: Buffer
  used: number
  /** How many of its texts are still kept. */
  texts: number
}

/** Which calls are asked for. Without a field, it is all of them. */
export interface Wanted {
  readonly id?: string | undefined
  readonly isTrouble?: boolean | undefined
}

/** After so many calls that are not wanted, a reader can pause, so that calls go on meanwhile. */
const MOST_PASSED = 1_024

/**
 * The latest calls of one process. Both their number and their size are bounded: the oldest calls make way for the newest. Their texts
 * are kept outside of the heap; their routes, which they share, are not. As objects the calls would live just long enough for the
 * garbage collector to copy each of them twice.
 */
export class RequestHistory {
  readonly #bounds: Config['requests']
  /** Rings of `keep` places, for each text: its chunk, where it begins in the chunk, and its length in bytes. */
  readonly #chunks: (Chunk | undefined)[] = []
  readonly #starts: number[] = []
  readonly #lengths: number[] = []
  /** A ring: what is known of each call's route. Most calls share it, so its size is not counted; `keep` bounds it. */
  readonly #routes: RequestRecord['route'][] = []
  /** A ring: whether a text tells of trouble. So these texts are found without parsing the others. */
  readonly #troubles: boolean[] = []
  /** How all calls ended lately, even those that are not kept. */
  readonly lately = new Lately()
  /** How many texts were added and dropped so far. */
  #added = 0
  #dropped = 0
  /** The length of all texts that are kept, in bytes. */
  bytes = 0
  #chunk: Chunk | undefined
  /** A chunk of the usual size whose texts were all dropped. It is used again before a new chunk is made. */
  #spare: Chunk | undefined

  constructor(bounds: Config['requests']) {
    this.#bounds = bounds
  }

  /** False with `keep: 0`: then no call that has ended is kept. */
  get keepsAny(): boolean {
    return this.#bounds.keep > 0
  }

  get size(): number {
    return this.#added - this.#dropped
  }

  /**
   * Keeps a call that has ended. `text` is the JSON of `line`, and must begin with the correlation id. A call that is larger than
   * `maxBytes` is not kept.
   */
  add(line: AccessLine, text: string, circumstances: Circumstances, route?: RequestRecord['route']): void {
    this.lately.count(line, circumstances.at)
    const { keep, maxBytes } = this.#bounds
    if (keep === 0) return
    // To join the two texts would be to copy them once more.
    const rest = JSON.stringify(circumstances)
    const chunk = this.#chunkFor(text, rest)
    if (chunk === undefined) return
    const { bytes, used } = chunk
    let length = bytes.write(text, used)
    bytes[used + length++] = LINE_END
    length += bytes.write(rest, used + length)
    this.bytes += length
    while (this.size > 0 && (this.size >= keep || this.bytes > maxBytes)) this.#dropOldest()
    const place = this.#added % keep
    this.#chunks[place] = chunk
    this.#starts[place] = used
    this.#lengths[place] = length
    this.#routes[place] = route
    this.#troubles[place] = isTrouble(line)
    this.#added++
    chunk.used = used + length
    chunk.texts++
  }

  /**
   * The calls that are kept now, the newest first. With `wanted`, only those with its correlation id, or only those that tell of
   * trouble, without parsing the others. Where many of the others follow one another, it gives undefined now and then, so that its
   * reader can pause there, too. A reader that pauses misses the calls that are dropped in the pause.
   */
  newest(wanted: Wanted = {}): Iterable<RequestRecord | undefined> {
    return this.#newest(this.#added - 1, wanted)
  }

  *#newest(last: number, { id, isTrouble = false }: Wanted): Iterable<RequestRecord | undefined> {
    const beginning =
      id === undefined ? '' : Buffer.from(JSON.stringify({ correlationId: id }).slice(0, -1)).toString('latin1')
    for (let i = last; i >= this.#dropped; i--) {
      const place = i % this.#bounds.keep
      const { bytes } = this.#chunks[place]!
      const start = this.#starts[place]!
      const isWanted =
        (!isTrouble || this.#troubles[place] === true) &&
        bytes.toString('latin1', start, start + beginning.length) === beginning
      if (isWanted) yield parsed(bytes.toString('utf8', start, start + this.#lengths[place]!), this.#routes[place])
      else if (i % MOST_PASSED === 0) yield undefined
    }
  }

  /** The chunk with room for both texts, and a line end; undefined if they alone are larger than `maxBytes`. */
  #chunkFor(text: string, rest: string): Chunk | undefined {
    const last = this.#chunk
    // Their bytes are counted only if they might not fit.
    const mostBytes = (text.length + 1 + rest.length) * MOST_BYTES_A_UNIT
    if (last !== undefined && last.used + mostBytes <= last.bytes.length && mostBytes <= this.#bounds.maxBytes)
      return last
    const bytes = Buffer.byteLength(text) + 1 + Buffer.byteLength(rest)
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
    this.#routes[place] = undefined
    this.bytes -= this.#lengths[place]!
    if (--chunk.texts > 0 || chunk === this.#chunk || chunk.bytes.length !== CHUNK_BYTES) return
    chunk.used = 0
    this.#spare = chunk
  }
}

/** The buffer is not taken from Node's pool: a chunk would keep the whole pool alive. */
function newChunk(bytes: number): Chunk {
  return { bytes: Buffer.allocUnsafeSlow(bytes), used: 0, texts: 0 }
}

function parsed(text: string, route: RequestRecord['route']): RequestRecord {
  const end = text.indexOf('\n')
  const line = JSON.parse(text.slice(0, end)) as AccessLine
  return { line, route, ...(JSON.parse(text.slice(end + 1)) as Circumstances) }
}
