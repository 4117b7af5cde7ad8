import type { EpochMs } from '../time/clock.ts'
import { asSent } from '../http/entity-tag.ts'
import { type Fields, noFields } from '../http/fields.ts'
import type { Freshness } from './freshness.ts'

/** A stored answer. */
export interface Entry extends Freshness {
  readonly kind: 'entry'
  readonly status: number
  readonly reason: string
  /** Names and values in turn, as `keptHeaders` returns them: the names are lower-case. */
  readonly headers: readonly string[]
  readonly body: Buffer
}

/**
 * Says that the answers depend on fields of the request (Vary, RFC 9111 §4.1). It is stored under the plain selector, which
 * `placeOf` returns. Each answer is stored under a selector of its own, which `variantOf` makes of the plain one and the
 * values of those fields.
 */
export interface VaryMark {
  readonly kind: 'vary'
  /** Lower-case names of those fields, sorted. */
  readonly names: readonly string[]
}

export type Stored = Entry | VaryMark

/** Fields that describe the bytes of a body. A 304 does not replace them, because the stored body stays (RFC 9111 §3.2). */
const OF_THE_BODY = new Set(['content-length', 'content-encoding', 'content-range', 'content-type'])
/**
 * Fields that are not stored. The gateway computes Age and Content-Length for each answer. The others tell of one exchange
 * only: its authentication by a proxy, its timing, the quota that was left.
 */
const NOT_KEPT = new Set(
  'age content-length proxy-authentication-info server-timing x-ratelimit-limit x-ratelimit-remaining x-ratelimit-reset ratelimit ratelimit-policy'.split(
    ' ',
  ),
)

/** Selects the fields of a response that are stored, with lower-case names. Adds a missing Date (RFC 9110 §6.6.1). */
export function keptHeaders(headers: readonly string[], now: EpochMs): string[] {
  const kept: string[] = []
  let hasDate = false
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i]!.toLowerCase()
    if (NOT_KEPT.has(name)) continue
    hasDate ||= name === 'date'
    kept.push(name, headers[i + 1]!)
  }
  if (!hasDate) kept.push('date', new Date(now).toUTCString())
  return kept
}

/**
 * Merges the fields of a 304, `newer`, into those of an entry (RFC 9111 §4.3.4). Both must come from `keptHeaders`: names
 * are compared as they are, so they must be lower-case.
 */
export function updatedHeaders(headers: readonly string[], newer: readonly string[]): string[] {
  const replaced = new Set<string>()
  for (let i = 0; i < newer.length; i += 2) if (!OF_THE_BODY.has(newer[i]!)) replaced.add(newer[i]!)
  // The gateway weakened this tag, because it stores other bytes than the vendor sent (see `weakened`). The 304 has the
  // vendor's own tag, which does not match them.
  const etag = valueOf({ headers }, 'etag')
  if (etag !== undefined && etag !== asSent(etag)) replaced.delete('etag')
  const updated: string[] = []
  for (let i = 0; i < headers.length; i += 2) {
    if (!replaced.has(headers[i]!)) updated.push(headers[i]!, headers[i + 1]!)
  }
  for (let i = 0; i < newer.length; i += 2) {
    if (replaced.has(newer[i]!)) updated.push(newer[i]!, newer[i + 1]!)
  }
  return updated
}

/**
 * The value of a stored field, by its lower-case name; undefined if there is none. The lines of a field that came several
 * times are joined to one list (RFC 9110 §5.3).
 */
export function valueOf({ headers }: Pick<Entry, 'headers'>, name: string): string | undefined {
  let value: string | undefined
  for (let i = 0; i < headers.length; i += 2) {
    if (headers[i] === name) value = value === undefined ? headers[i + 1] : `${value}, ${headers[i + 1]}`
  }
  return value
}

/** The fields in the form in which the transport gives them. */
export function toFields(headers: readonly string[]): Fields {
  const fields = noFields<string | string[]>()
  for (let i = 0; i < headers.length; i += 2) {
    const [name, value] = [headers[i]!, headers[i + 1]!]
    const before = fields[name]
    fields[name] = before === undefined ? value : [before, value].flat()
  }
  return fields
}

/** The approximate bytes that an entry takes in memory. A string takes up to two bytes a character. */
export function sizeOf(stored: Stored): number {
  const texts = stored.kind === 'entry' ? stored.headers : stored.names
  let characters = 0
  for (const text of texts) characters += text.length
  return 512 + 2 * characters + 16 * texts.length + (stored.kind === 'entry' ? stored.body.length : 0)
}

/** Copies pieces to a buffer of their own. Pieces from the network are cut from larger blocks, which they would keep alive. */
export function wholeBody(pieces: readonly Buffer[]): Buffer {
  let bytes = 0
  for (const piece of pieces) bytes += piece.length
  // Not zeroed: the pieces must fill it exactly.
  const body = Buffer.allocUnsafeSlow(bytes)
  let at = 0
  for (const piece of pieces) at += piece.copy(body, at)
  return body
}
