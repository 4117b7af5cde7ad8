/*
 * src/answers: what the body of a vendor's answer says of rates and prices, read while the answer passes through.
 * It imports only http and schema.
 * A change here must prove that no more than a bound is kept of any body, and that its bytes pass as they were sent
 * (test/answers, test/system/disguised.test.ts).
 */

import { brotliDecompressSync, inflateRawSync, unzipSync, zstdDecompressSync } from 'node:zlib'
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
        return (body[0]! & 0x0f) === 8 ? unzipSync(body, options) : inflateRawSync(body, options)
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
