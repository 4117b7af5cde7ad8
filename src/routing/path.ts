/**
 * The form of a path by which calls are classified, as most servers see it: without the prefix under which the vendor
 * serves the same paths again, without parameters, and simplified. Only for looking at; what is forwarded stays as it is.
 */
export function normalizePath(path: string, aliasPrefix: string): string {
  return withoutAlias(simplifyPath(withoutParameters(path)), aliasPrefix)
}

/** The ways in which servers read one path. Rules that refuse hold in any of them, rules that allow in all of them. */
export interface PathReadings {
  /** An escaped slash is a character of its segment: with the parameters of segments, and without. */
  readonly literal: readonly string[]
  /** It separates segments, as a backslash does, and escapes of escapes are read as what they stand for in the end. */
  readonly decoded: readonly string[]
}

/** Every reading of a path that is not the same as another. For a path without escapes and backslashes both lists are one. */
export function readingsOf(path: string, aliasPrefix = ''): PathReadings {
  const literal = distinct([path, withoutParameters(path)], aliasPrefix)
  if (!isEncoded(path)) return { literal, decoded: literal }
  const decoded = decodePath(path)
  // Some servers cut parameters off before they decode a path, some behind it.
  const decodedAfter = decodePath(withoutParameters(path))
  const forms = [decoded, withoutParameters(decoded), withoutParameters(decodedAfter)]
  return { literal, decoded: distinct([...forms, ...forms.map(upToEnd)], aliasPrefix) }
}

/** The normal form of the path as a server sees it that decodes it first; undefined where that is the usual one. */
export function normalizeDecoded(path: string, aliasPrefix: string): string | undefined {
  if (!isEncoded(path)) return undefined
  return withoutAlias(resolveDots(simplifyPath(withoutParameters(decodePath(path)))), aliasPrefix)
}

/** A decoded path as far as some servers read it: to a NUL; and where one passes it on decoded, the next to "?" or "#". */
function upToEnd(decoded: string): string {
  return decoded.replace(/[\0?#].*$/s, '')
}

function distinct(paths: readonly string[], aliasPrefix: string): string[] {
  return [...new Set(paths.map((path) => withoutAlias(resolveDots(simplifyPath(path)), aliasPrefix)))]
}

/** A path below ".." as what it leads to (RFC 3986 §5.2.4). Most calls with one are refused; not those with "..;" or "%252e". */
function resolveDots(path: string): string {
  if (!path.includes('/..')) return path
  const resolved: string[] = []
  for (const segment of path.split('/').slice(1)) {
    if (segment === '..') resolved.pop()
    else resolved.push(segment)
  }
  return `/${resolved.join('/')}`
}

function isEncoded(path: string): boolean {
  return path.includes('%') || path.includes('\\')
}

/**
 * The path with all escapes decoded to bytes, one character for each, also those that only appear when others are: `%252F`
 * is "/". Backslashes become slashes, and so do overlong forms of both. Takes time in proportion to the length, however
 * deep escapes are nested.
 */
export function decodePath(path: string): string {
  if (!isEncoded(path)) return path
  const codes: number[] = []
  for (let i = 0; i < path.length; i++) {
    codes.push(path.charCodeAt(i))
    for (let end = codes.length; end >= 3 && codes[end - 3] === PERCENT; end = codes.length) {
      const byte = Number.parseInt(hexAt(codes, end - 2) + hexAt(codes, end - 1), 16)
      if (Number.isNaN(byte)) break
      codes.length = end - 3
      codes.push(byte)
    }
  }
  return Buffer.from(codes).toString('latin1').replace(OVERLONG, shortest).replaceAll('\\', '/')
}

const PERCENT = 37

/** A hex digit; or what makes no number. */
function hexAt(codes: readonly number[], index: number): string {
  const character = String.fromCharCode(codes[index]!)
  return HEX_DIGIT.test(character) ? character : 'x'
}

const HEX_DIGIT = /^[0-9a-f]$/i

/** ASCII characters in more bytes than they need (RFC 3629 §3), which lenient decoders take. */
// oxlint-disable-next-line no-control-regex -- these are bytes
const OVERLONG = /[\xc0\xc1][\x80-\xbf]|\xe0[\x80\x81][\x80-\xbf]|\xf0\x80[\x80\x81][\x80-\xbf]/g

/** Whether ASCII characters are in it that are written so, and not escaped. */
export function isOverlong(path: string): boolean {
  return path.search(OVERLONG) >= 0
}

function shortest(bytes: string): string {
  const [high, low] = [bytes.charCodeAt(bytes.length - 2), bytes.charCodeAt(bytes.length - 1)]
  return String.fromCharCode(((high & 1) << 6) | (low & 63))
}

/** The path without empty and "." segments, and without escapes that are none (RFC 3986 §6.2.2), the others in capitals. */
export function simplifyPath(path: string): string {
  let simple = path
  if (simple.includes('%')) simple = simple.replace(/%[0-9a-f]{2}/gi, decodeUnreserved)
  if (simple.includes('//')) simple = simple.replace(/\/{2,}/g, '/')
  if (simple.includes('/.')) simple = simple.replace(/\/\.(?=\/|$)/g, '') || '/'
  return simple
}

/** The path without the parameters of its segments, such as ";v=1" (RFC 3986 §3.3), at which Java servers do not look. */
export function withoutParameters(path: string): string {
  return path.includes(';') ? path.replace(/;[^/]*/g, '') : path
}

/** The path below the prefix under which the vendor serves the same paths again, if it is given there. */
export function withoutAlias(path: string, aliasPrefix: string): string {
  return aliasPrefix !== '' && path.startsWith(`${aliasPrefix}/`) ? path.slice(aliasPrefix.length) : path
}

/** A normalized path as it may be logged: without the segments that hold a secret, which are numbered from 0. */
export function redactPath(normalPath: string, secretSegments: readonly number[]): string {
  let number = 0
  return normalPath
    .split('/')
    .map((segment) => (segment !== '' && secretSegments.includes(number++) ? '[redacted]' : segment))
    .join('/')
}

/** Letters, digits and "-._~" mean the same with and without an escape; every other character may not. */
function decodeUnreserved(escape: string): string {
  const character = String.fromCharCode(Number.parseInt(escape.slice(1), 16))
  return /[\w.~-]/.test(character) ? character : escape.toUpperCase()
}
