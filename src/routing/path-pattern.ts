import { decodePath, simplifyPath } from './path.ts'

/** A segment of a pattern: literal texts, which may be empty, and a `{name}` between each two of them. */
export interface SegmentPattern {
  readonly texts: readonly string[]
  /** The names between the texts, in order. */
  readonly names: readonly string[]
}

/**
 * A path pattern of the configuration: `{name}` stands for one segment or a non-empty part of it, a final `*` for the
 * rest. A name ends where the text behind it first occurs, and no later place is tried, so that matching takes linear
 * time. Only the last name of a segment ends where the segment's final text begins. A regular expression for
 * `{a}-{b}-{c}` would try every way to distribute many dashes.
 */
export class PathPattern {
  readonly segments: readonly SegmentPattern[]
  /** What stands before the final `*` in its segment; undefined if the pattern has no `*`. */
  readonly rest: SegmentPattern | undefined

  /** `isDecoded`: the pattern is decoded first, so that an escaped slash in it separates segments, as in decoded paths. */
  constructor(path: string, isDecoded = false) {
    const names: string[] = []
    const marked = path.replaceAll(/\{([^{}/]*)\}/g, (_, name: string) => {
      names.push(name)
      return MARK
    })
    const bytes = Buffer.from(marked).toString('latin1')
    const text = simplifyPath(isDecoded ? decodePath(bytes) : bytes)
    const isOpen = text.endsWith('*')
    const segments = (isOpen ? text.slice(0, -1) : text).split('/').slice(1)
    const patterns = segments.map((segment) => {
      const texts = segment.split(MARK).map(comparable)
      return { texts, names: names.splice(0, texts.length - 1) }
    })
    this.rest = isOpen ? patterns.pop() : undefined
    if (!isOpen && segments.at(-1) === '') patterns.pop()
    this.segments = patterns
  }

  /**
   * Whether the pattern matches a path, given by its segments. A slash at the end of the path makes no difference.
   * `/a/*` also matches `/a`, other than in a `RouteTable`.
   */
  matches(segments: readonly string[]): boolean {
    const { segments: patterns, rest } = this
    const { length } = patterns
    if (segments.length < length || (rest === undefined && segments.length > length)) return false
    for (let i = 0; i < length; i++) if (!fits(patterns[i]!, segments[i]!)) return false
    if (rest === undefined) return true
    const next = segments[length]
    return next === undefined ? isAnything(rest) : beginsWith(rest, next)
  }

  /** The text that the first `{name}` of that name matches; undefined if the pattern does not match. */
  textOf(name: string, segments: readonly string[]): string | undefined {
    if (!this.matches(segments)) return undefined
    const patterns = this.rest === undefined ? this.segments : [...this.segments, this.rest]
    const index = patterns.findIndex(({ names }) => names.includes(name))
    const [pattern, segment] = [patterns[index], segments[index]]
    if (pattern === undefined || segment === undefined) return undefined
    return Buffer.from(between(pattern, segment, pattern.names.indexOf(name)), 'latin1').toString()
  }
}

/** Stands for each `{name}` while a pattern is parsed. No path contains it. */
const MARK = '\0'

/** The segments of a simplified path in the form that patterns are compared with. */
export function segmentsOf(path: string): string[] {
  const segments = path.split('/')
  if (segments.at(-1) === '') segments.pop()
  segments.shift()
  for (let i = 0; i < segments.length; i++) segments[i] = comparable(segments[i]!)
  return segments
}

/** Decodes all escapes except those of "/", "\", "%" and ";", which mean something else when they are not escaped. */
function comparable(text: string): string {
  return text.includes('%') ? text.replaceAll(/%(?!2F|5C|25|3B)[0-9A-F]{2}/g, decodeByte) : text
}

function decodeByte(escape: string): string {
  return String.fromCharCode(Number.parseInt(escape.slice(1), 16))
}

export function isStatic({ texts }: SegmentPattern): boolean {
  return texts.length === 1
}

/** Whether the pattern has no literal text. */
export function isAnything({ texts }: SegmentPattern): boolean {
  return texts.every((text) => text === '')
}

/** Whether the pattern matches a whole segment. */
export function fits(pattern: SegmentPattern, segment: string): boolean {
  const { texts } = pattern
  const last = texts.length - 1
  if (last === 0) return texts[0] === segment
  const from = endOf(texts, segment, last)
  const text = texts[last]!
  return from >= 0 && segment.length - text.length > from && segment.endsWith(text)
}

/** Whether the pattern matches the beginning of a segment. */
export function beginsWith({ texts }: SegmentPattern, segment: string): boolean {
  return endOf(texts, segment, texts.length) >= 0
}

/** The index behind the first `count` texts, each found as early as possible; -1 if one of them is missing. */
function endOf(texts: readonly string[], segment: string, count: number): number {
  if (!segment.startsWith(texts[0]!)) return -1
  let end = texts[0]!.length
  for (let i = 1; i < count; i++) {
    const at = segment.indexOf(texts[i]!, end + 1)
    if (at < 0) return -1
    end = at + texts[i]!.length
  }
  return end
}

function between({ texts }: SegmentPattern, segment: string, number: number): string {
  const start = endOf(texts, segment, number + 1)
  const isLast = number === texts.length - 2
  const end = isLast ? segment.length - texts[number + 1]!.length : segment.indexOf(texts[number + 1]!, start + 1)
  return segment.slice(start, end)
}
