/*
 * src/answers: what the body of a vendor's answer says of rates and prices, read while the answer passes through.
 * It imports only http and schema.
 * A change here must prove that no more than a bound is kept of any body, and that its bytes pass as they were sent
 * (test/answers, test/system/disguised.test.ts).
 */

import type { Transform } from 'node:stream'
import zlib from 'node:zlib'
import type { Field } from '../http/fields.ts'

/** A body that unpacks to more than so many bytes is not looked at. */
const MOST_UNPACKED = 1_048_576

/** The content coding of a body, in lower case; empty for none. Several at once are no coding that is known here. */
export function codingOf(field: Field): string {
  const coding = String(field ?? '')
    .trim()
    .toLowerCase()
  return coding === 'identity' ? '' : coding.replace(/^x-/, '')
}

/** A whole body as it was before its content coding (RFC 9110 §8.4.1); undefined if that can't be told within the bound. */
export function unpacked(body: Buffer, coding: string): Buffer | undefined {
  if (coding === '') return body
  try {
    return CODINGS[coding]?.(body).whole(body, { maxOutputLength: MOST_UNPACKED })
  } catch {
    return undefined
  }
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

/** By the first piece of the body: some servers leave out the header of zlib, as RFC 9110 §8.4.1.2 notes. */
const CODINGS: Readonly<Record<string, (first: Buffer) => Unpacking>> = {
  gzip: () => ZLIB,
  deflate: (first) => ((first[0]! & 0x0f) === 8 ? ZLIB : RAW),
  br: () => BROTLI,
  zstd: () => ZSTD,
}

/** Unpacks a body of one coding as it comes; undefined if the coding is not known. `first`: its first piece, if that is here. */
export function unpackerOf(coding: string, first: Buffer): Transform | undefined {
  return CODINGS[coding]?.(first).stream()
}

export function isKnownCoding(coding: string): boolean {
  return Object.hasOwn(CODINGS, coding)
}
