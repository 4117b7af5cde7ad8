/*
 * src/answers: what the body of a vendor's answer says of rates and prices, read while the answer passes through.
 * It imports only http and schema.
 * A change here must prove that no more than a bound is kept of any body, and that its bytes pass as they were sent
 * (test/answers, test/system/disguised.test.ts).
 */

import type { Transform } from 'node:stream'
import {
  brotliDecompressSync,
  createBrotliDecompress,
  createInflate,
  createInflateRaw,
  createUnzip,
  createZstdDecompress,
  inflateRawSync,
  unzipSync,
  zstdDecompressSync,
} from 'node:zlib'
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
  const options = { maxOutputLength: MOST_UNPACKED }
  try {
    switch (coding) {
      case '':
        return body
      case 'gzip':
        return unzipSync(body, options)
      case 'deflate':
        // Some servers leave out the header of zlib, as RFC 9110 §8.4.1.2 notes.
        return isOfZlib(body) ? unzipSync(body, options) : inflateRawSync(body, options)
      case 'br':
        return brotliDecompressSync(body, options)
      case 'zstd':
        return zstdDecompressSync(body, options)
      default:
        return undefined
    }
  } catch {
    return undefined
  }
}

/** What begins so has the header of zlib; see `unpacked`. */
function isOfZlib(body: Buffer): boolean {
  return (body[0]! & 0x0f) === 8
}

const UNPACKERS: Readonly<Record<string, (first: Buffer) => Transform>> = {
  gzip: () => createUnzip(),
  deflate: (first) => (isOfZlib(first) ? createInflate() : createInflateRaw()),
  br: () => createBrotliDecompress(),
  zstd: () => createZstdDecompress(),
}

/** Unpacks a body of one coding as it comes; undefined if the coding is not known. `first`: its first piece, if that is here. */
export function unpackerOf(coding: string, first: Buffer): Transform | undefined {
  return UNPACKERS[coding]?.(first)
}

export function isKnownCoding(coding: string): boolean {
  return Object.hasOwn(UNPACKERS, coding)
}
