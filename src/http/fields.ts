/*
 * src/http: facts of HTTP that do not depend on any call: fields, dates, codings of bodies, Retry-After, problem details.
 * It imports only time.
 * A change here must prove itself on what real servers send: several lines, odd dates, quotes (test/http).
 */

/**
 * Header fields by lower-case name. A field on several lines is a list. Node's type promises a string for most fields,
 * but a list can come for any: code that takes it for a string throws in the middle of a response.
 */
export type Fields = Record<string, string | string[] | undefined>
export type Field = string | readonly string[] | undefined

/** A record of no fields. In a plain object a field named `constructor` would be there before it came. */
export function noFields<Value>(): Record<string, Value> {
  return Object.create(null) as Record<string, Value>
}

/** All lines of a field joined to one list (RFC 9110 §5.3); empty if it is missing. */
export function joined(field: Field): string {
  return typeof field === 'string' ? field : (field ?? []).join(', ')
}

/**
 * Matches one member of a list. A comma inside of quotes, or behind the weekday of a date, separates nothing. A quote
 * without an end reaches to the end of the text.
 */
const MEMBER =
  /(?:(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?,[ \t]|"(?:[^"\\]|\\[^])*(?:"|\\?$)|[^,])+/gi

/** The members of a list on any number of lines. Empty members do not count (RFC 9110 §5.6.1.2). */
export function membersOf(field: Field): readonly string[] {
  const text = joined(field)
  if (text === '') return NONE
  if (!text.includes(',')) return [text.trim()]
  return (text.match(MEMBER) ?? NONE).map((member) => member.trim()).filter((member) => member !== '')
}

const NONE: readonly string[] = []

/**
 * The value of a field that may occur once. Equal lines count as one; if lines differ, none can be trusted: undefined.
 */
export function onlyValue(field: Field): string | undefined {
  if (typeof field !== 'object') return field?.trim()
  const first = field[0]?.trim()
  return field.every((line) => line.trim() === first) ? first : undefined
}

/**
 * The value of a field that may occur once and whose value has no commas. Node joins the lines of a request by commas,
 * and HTTP/2 those of a response.
 */
export function onlyMember(field: Field): string | undefined {
  if (typeof field === 'string' && !field.includes(',')) return field
  const members = membersOf(field)
  return members.length > 0 && members.every((member) => member === members[0]) ? members[0] : undefined
}

/** A value that every HTTP implementation sends and takes (RFC 9110 §5.5). */
export const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]+$/

/** The characters that no password for HTTP may hold (RFC 7617 §2), and no other secret of one line. */
// oxlint-disable-next-line no-control-regex -- these are what is looked for
const CONTROL = /[\x00-\x1f\x7f]/

/** What is wrong with a secret of one line; undefined if nothing is. It repeats nothing of the secret. */
export function faultOfLine(text: string): string | undefined {
  if (!CONTROL.test(text)) return undefined
  return /[\r\n]$/.test(text)
    ? 'ends with a line end, which is no part of it: leave it out (in YAML, write |- in place of |)'
    : 'holds a control character'
}

/** What is wrong with a secret that is sent in a header; undefined if nothing is. */
export function faultOfHeaderValue(text: string): string | undefined {
  return faultOfLine(text) ?? (HEADER_VALUE.test(text) ? undefined : 'holds a character that no header value may have')
}

/** Why a secret of one line can not take a new value; undefined if it can. */
export function whyNoLine(text: string): string | undefined {
  return ofNewValue(faultOfLine(text))
}

/** Why a secret that is sent in a header can not take a new value; undefined if it can. */
export function whyNoHeaderValue(text: string): string | undefined {
  return ofNewValue(faultOfHeaderValue(text))
}

/** What is wrong with a new value, in words for the log. */
export function ofNewValue(fault: string | undefined): string | undefined {
  return fault && `the new value ${fault}`
}
