import type { Transform } from 'node:stream'
import zlib from 'node:zlib'
import { type Field, membersOf } from './fields.ts'

/** A body with more codings than this, one upon the other, is not unpacked. No server applies so many. */
const MOST_CODINGS = 4
/** A whole body that unpacks to more than so many bytes is not looked at. */
const MOST_UNPACKED = 1_048_576

const NONE: readonly string[] = []

/**
 * The codings of a body by its Content-Encoding, in lower case, in the order in which they were applied; `x-gzip` means `gzip` (RFC
 * 9110 §8.4.1.3). Empty if there are none, or any that can't be undone here. Such a body is read as it is: some servers put a charset
 * or `none` into the field.
 */
export function codingsOf(field: Field): readonly string[] {
  if (field === undefined) return NONE
  const names = membersOf(field).map((name) => name.toLowerCase().replace(/^x-/, ''))
  const codings = names.filter((name) => name !== 'identity')
  return codings.length <= MOST_CODINGS && codings.every((name) => Object.hasOwn(CODINGS, name)) ? codings : NONE
}

/** A whole body as it was before its codings; undefined if it can't be unpacked, or not within the bound. */
export function unpacked(body: Buffer, codings: readonly string[]): Buffer | undefined {
  try {
    return codings.reduceRight(
      (bytes, coding) => CODINGS[coding]!(bytes).whole(bytes, { maxOutputLength: MOST_UNPACKED }),
      body,
    )
  } catch {
    return undefined
  }
}

/** Undoes the codings of a body as it comes. Pieces are written to `first`. The unpacked body comes out of `last`, and so does every error. */
export interface Unpacker {
  readonly first: Transform
  /** If it is destroyed, so is `first`. */
  readonly last: Transform
}

/**
 * Makes the unpacker of a body that begins with that piece. Undefined if the body is not packed: some servers name a coding all the
 * same.
 */
export function unpackerOf(codings: readonly string[], piece: Buffer): Unpacker | undefined {
  if (isPlainly(codings.at(-1)!, piece)) return undefined
  // The first byte of an inner coding is not known yet. Nearly always it is that of zlib.
  const stages = codings.map((coding, i) => CODINGS[coding]!(i === codings.length - 1 ? piece : ZLIB_HEADER).stream())
  const last = stages[0]!
  for (let i = stages.length - 1; i > 0; i--) {
    const stage = stages[i]!
    stage.on('error', (error) => last.destroy(error)).pipe(stages[i - 1]!)
    last.on('close', () => stage.destroy())
  }
  return { first: stages.at(-1)!, last }
}

/** Unpacks a whole body, and makes what unpacks one as it comes. */
interface Unpacking {
  whole(body: Buffer, options: { maxOutputLength: number }): Buffer
  stream(): Transform
}

const ZLIB: Unpacking = { whole: zlib.unzipSync, stream: zlib.createUnzip }
const RAW: Unpacking = { whole: zlib.inflateRawSync, stream: zlib.createInflateRaw }
const BROTLI: Unpacking = { whole: zlib.brotliDecompressSync, stream: zlib.createBrotliDecompress }
const ZSTD: Unpacking = { whole: zlib.zstdDecompressSync, stream: zlib.createZstdDecompress }
const ZLIB_HEADER = Buffer.of(0x78)

/** What undoes each coding, by the first piece of the body: some servers leave out the header of zlib, as RFC 9110 §8.4.1.2 notes. */
const CODINGS: Readonly<Record<string, (first: Buffer) => Unpacking>> = {
  gzip: () => ZLIB,
  deflate: (first) => ((first[0]! & 0x0f) === 8 ? ZLIB : RAW),
  br: () => BROTLI,
  zstd: () => ZSTD,
}

/** Whether a body does not begin as its coding does. Nobody can tell that of Brotli, and of deflate without its header. */
function isPlainly(coding: string, first: Buffer): boolean {
  if (first.length < 4) return false
  const start = first.readUInt32BE()
  if (coding === 'gzip') return start >>> 16 !== 0x1f8b && (start >>> 16) % 31 !== 0
  return coding === 'zstd' && start !== 0x28b52ffd && (start & 0xf0ffffff) !== 0x502a4d18
}
