import { type Field, type Fields, joined } from '../http/fields.ts'

/** Directives of Cache-Control by their lower-case names; `true` for those without a value. */
export type Directives = ReadonlyMap<string, string | true>

const NONE: Directives = new Map()
/** A token, perhaps with a value, which may be quoted. A member with anything else is malformed. */
const DIRECTIVE = /^[ \t]*([!#$%&'*+.^_`|~\w-]+)(?:=("(?:\\.|[^"\\])*"|[^\s,"]*))?[ \t]*$/

/** Parses Cache-Control. If a directive comes twice, the first counts (RFC 9111 §4.2.1). Malformed members are ignored. */
export function parseDirectives(field: Field): Directives {
  const text = joined(field)
  if (text === '') return NONE
  const directives = new Map<string, string | true>()
  for (const member of membersOf(text)) {
    const [, name, value] = DIRECTIVE.exec(member) ?? []
    if (name !== undefined && !directives.has(name.toLowerCase()))
      directives.set(name.toLowerCase(), value === undefined ? true : unquoted(value))
  }
  return directives
}

/**
 * Splits a list at the commas outside of quotes. A quote without an end, and each quote after it, counts as an ordinary
 * character. To search for the end of each would take time in the square of the length, which a hostile peer could use.
 */
function membersOf(text: string): string[] {
  const members: string[] = []
  let start = 0
  let mayQuote = true
  for (let i = 0; i < text.length; i++) {
    const character = text[i]
    if (character === '"' && mayQuote) {
      const end = closingQuote(text, i)
      if (end < 0) mayQuote = false
      else i = end
    } else if (character === ',') {
      members.push(text.slice(start, i))
      start = i + 1
    }
  }
  members.push(text.slice(start))
  return members
}

function closingQuote(text: string, opening: number): number {
  for (let i = opening + 1; i < text.length; i++) {
    if (text[i] === '"') return i
    if (text[i] === '\\') i++
  }
  return -1
}

/** The seconds of a directive: undefined if it is missing, 0 if it is not a number (RFC 9111 §4.2.1). */
export function secondsOf(directives: Directives, name: string): number | undefined {
  const value = directives.get(name)
  if (value === undefined) return undefined
  return typeof value === 'string' && /^\d+$/.test(value) ? Math.min(Number(value), FOREVER) : 0
}

/** The largest number of seconds that counts (RFC 9111 §1.2.2). */
const FOREVER = 2 ** 31

/** The seconds of the first Age; 0 if it is not a number (RFC 9111 §5.1). */
export function ageOf(fields: Fields): number {
  const [first = ''] = joined(fields.age).split(',')
  return /^\d+$/.test(first.trim()) ? Math.min(Number(first), FOREVER) : 0
}

function unquoted(value: string): string {
  return value.startsWith('"') ? value.slice(1, -1).replace(/\\(.)/g, '$1') : value
}
