import type { IncomingHttpHeaders } from 'node:http'
import type { EpochMs } from '../time/clock.ts'
import { type Entry, fieldOf } from './entry.ts'
import { parseHttpDate } from '../http/date.ts'
import { type Fields, joined } from '../http/fields.ts'

/** The fields by which a request asks whether an entry is still right (RFC 9111 §4.3.1), or none if it has no validator. */
export function validatorsOf(entry: Entry): string[] {
  const validators: string[] = []
  const etag = fieldOf(entry, 'etag')
  const lastModified = fieldOf(entry, 'last-modified')
  if (etag !== undefined) validators.push('If-None-Match', etag)
  if (lastModified !== undefined) validators.push('If-Modified-Since', lastModified)
  return validators
}

/** Fields of a request that are answered from what is kept, so that they do not go upstream beside our own. */
export const CONDITIONS: ReadonlySet<string> = new Set(['if-none-match', 'if-modified-since'])

/** Whether a 304 is about this entry: a strong ETag of another one is not (RFC 9111 §4.3.4). */
export function isAbout(entry: Entry, fields: Fields): boolean {
  const [theirs, ours] = [fields.etag, fieldOf(entry, 'etag')]
  return theirs === undefined || ours === undefined || opaqueOf(joined(theirs)) === opaqueOf(ours)
}

/** Whether the client has what is kept already, and a 304 tells it so (RFC 9110 §13.2.2). */
export function isNotModified(entry: Entry, headers: IncomingHttpHeaders, now: EpochMs): boolean {
  const wanted = headers['if-none-match']
  if (wanted !== undefined) {
    const etag = fieldOf(entry, 'etag')
    return wanted.trim() === '*' || (etag !== undefined && listed(wanted).includes(opaqueOf(etag)))
  }
  const since = headers['if-modified-since']
  if (since === undefined) return false
  const known = parseHttpDate(since, now)
  // An answer without the time of its last change is not older than itself (RFC 9111 §4.3.2).
  const modified = parseHttpDate(fieldOf(entry, 'last-modified') ?? fieldOf(entry, 'date'), now)
  return known !== undefined && modified !== undefined && modified <= known
}

/** Entity tags are compared weakly for this purpose (RFC 9110 §8.8.3.2). */
function opaqueOf(etag: string): string {
  return etag.trim().replace(/^W\//, '')
}

/** A tag may have commas inside of its quotes. */
function listed(field: string): string[] {
  return (field.match(/(?:W\/)?"[^"]*"|[^\s,]+/g) ?? []).map(opaqueOf)
}

/** Fields of an entry that a 304 repeats (RFC 9110 §15.4.5); the others the client has. */
const IN_304 = new Set('cache-control content-location date etag expires last-modified set-cookie vary via'.split(' '))

export function headersOf304(headers: readonly string[]): string[] {
  const kept: string[] = []
  for (let i = 0; i < headers.length; i += 2) if (IN_304.has(headers[i]!)) kept.push(headers[i]!, headers[i + 1]!)
  return kept
}
