import type { IncomingHttpHeaders } from 'node:http'
import type { EpochMs } from '../time/clock.ts'
import { type Entry, valueOf } from './entry.ts'
import { parseHttpDate } from '../http/date.ts'
import { asSent } from '../http/entity-tag.ts'
import { type Fields, joined, onlyValue } from '../http/fields.ts'

/** The fields of a request that revalidates an entry (RFC 9111 §4.3.1); none if the entry has no validator. */
export function validatorsOf(entry: Entry): string[] {
  const validators: string[] = []
  const etag = valueOf(entry, 'etag')
  const lastModified = valueOf(entry, 'last-modified')
  if (etag !== undefined) validators.push('If-None-Match', asSent(etag))
  if (lastModified !== undefined) validators.push('If-Modified-Since', lastModified)
  return validators
}

/** A client's own conditions. The cache answers them, so they do not go upstream beside those of a revalidation. */
export const CONDITIONS: ReadonlySet<string> = new Set(['if-none-match', 'if-modified-since'])

/** Whether a 304 confirms this entry. A 304 with another ETag does not (RFC 9111 §4.3.4). */
export function isAbout(entry: Entry, fields: Fields): boolean {
  const [theirs, ours] = [fields.etag, valueOf(entry, 'etag')]
  return theirs === undefined || ours === undefined || opaqueOf(joined(theirs)) === opaqueOf(ours)
}

/**
 * Whether the 200 to a HEAD tells of no other version than this entry (RFC 9111 §4.3.5). Lengths are compared only in the same coding:
 * the gateway may have kept what it unpacked.
 */
export function agreesWithHead(entry: Entry, fields: Fields): boolean {
  const [theirs, ours] = [joined(fields['last-modified']), valueOf(entry, 'last-modified')]
  if (!isAbout(entry, fields) || (theirs !== '' && ours !== undefined && theirs !== ours)) return false
  const length = onlyValue(fields['content-length'])
  const isSameCoding = joined(fields['content-encoding']) === (valueOf(entry, 'content-encoding') ?? '')
  return length === undefined || !isSameCoding || Number(length) === entry.body.length
}

/** Whether a 304 answers the client, because it has the stored answer already (RFC 9110 §13.2.2). */
export function isNotModified(entry: Entry, headers: IncomingHttpHeaders, now: EpochMs): boolean {
  const wanted = headers['if-none-match']
  if (wanted !== undefined) {
    const etag = valueOf(entry, 'etag')
    return wanted.trim() === '*' || (etag !== undefined && listed(wanted).includes(opaqueOf(etag)))
  }
  const since = headers['if-modified-since']
  if (since === undefined) return false
  const known = parseHttpDate(since, now)
  // Without Last-Modified the Date of the answer is compared (RFC 9111 §4.3.2).
  const modified = parseHttpDate(valueOf(entry, 'last-modified') ?? valueOf(entry, 'date'), now)
  return known !== undefined && modified !== undefined && modified <= known
}

/** The vendor's own entity tag without `W/`: here tags are compared weakly (RFC 9110 §8.8.3.2). */
function opaqueOf(etag: string): string {
  return asSent(etag.trim()).replace(/^W\//, '')
}

/** The tags of a list. A tag may hold commas inside its quotes. */
function listed(field: string): string[] {
  return (field.match(/(?:W\/)?"[^"]*"|[^\s,]+/g) ?? []).map(opaqueOf)
}

/** The fields of an entry that a 304 must hold (RFC 9110 §15.4.5). The client has the others. */
const IN_304 = new Set('cache-control content-location date etag expires last-modified set-cookie vary via'.split(' '))

export function headersOf304(headers: readonly string[]): string[] {
  const kept: string[] = []
  for (let i = 0; i < headers.length; i += 2) if (IN_304.has(headers[i]!)) kept.push(headers[i]!, headers[i + 1]!)
  return kept
}
