import { type Field, type Fields, joined } from '../http/fields.ts'

/** Directives of Cache-Control by their lower-case names; `true` for those without a value. */
export type Directives = ReadonlyMap<string, string | true>

const NONE: Directives = new Map()
/** A member of a list that is a token, perhaps with a value, which may be quoted; whatever else is in the member spoils it. */
const DIRECTIVE = /^[ \t]*([!#$%&'*+.^_`|~\w-]+)(?:=("(?:\\.|[^"\\])*"|[^\s,"]*))?[ \t]*$/

/** Reads Cache-Control. Of a directive that comes twice the first counts (RFC 9111 §4.2.1); what is malformed does not. */
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
 * The members of a list, which end at commas outside of quotes. A quote that is not closed is a character like any other, and
 * so are those behind it: to look for the end of each of them would take the square of the length.
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

/** A directive's number of seconds; undefined where it is missing, 0 where it is no number (RFC 9111 §4.2.1). */
export function secondsOf(directives: Directives, name: string): number | undefined {
  const value = directives.get(name)
  if (value === undefined) return undefined
  return typeof value === 'string' && /^\d+$/.test(value) ? Math.min(Number(value), FOREVER) : 0
}

/** RFC 9111 §1.2.2: what is larger than this is as good as for ever. */
const FOREVER = 2 ** 31

/** The seconds of an Age: of several the first counts, and what is no number is ignored (RFC 9111 §5.1). */
export function ageOf(fields: Fields): number {
  const [first = ''] = joined(fields.age).split(',')
  return /^\d+$/.test(first.trim()) ? Math.min(Number(first), FOREVER) : 0
}

function unquoted(value: string): string {
  return value.startsWith('"') ? value.slice(1, -1).replace(/\\(.)/g, '$1') : value
}
