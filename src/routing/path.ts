/**
 * The path by which a call is classified, as most servers see it: without the vendor's alias prefix, without
 * parameters, and simplified. The forwarded path stays as it is.
 */
export function normalizePath(path: string, aliasPrefix: string): string {
  return withoutAlias(simplifyPath(withoutParameters(path)), aliasPrefix)
}

/**
 * The ways in which servers read one path. A rule that refuses calls applies if it matches any of them. A rule that
 * allows calls applies only if it matches all of them.
 */
export interface PathReadings {
  /** Readings in which an escaped slash is a character of its segment: with the parameters of segments, and without. */
  readonly literal: readonly string[]
  /**
   * Readings in which an escaped slash or a backslash separates segments, and nested escapes are decoded completely.
   */
  readonly decoded: readonly string[]
}

/** The different readings of a path. For a path without escapes and backslashes both lists are the same. */
export function readingsOf(path: string, aliasPrefix = ''): PathReadings {
  const literal = distinct([path, withoutParameters(path)], aliasPrefix)
  if (!isEncoded(path)) return { literal, decoded: literal }
  const decoded = decodePath(path)
  // Some servers remove parameters before they decode a path, others afterwards.
  const decodedAfter = decodePath(withoutParameters(path))
  const forms = [decoded, withoutParameters(decoded), withoutParameters(decodedAfter)]
  return { literal, decoded: distinct([...forms, ...forms.map(upToEnd)], aliasPrefix) }
}

/** The path by which a call is classified for a server that decodes it first; undefined if there is nothing to decode. */
export function normalizeDecoded(path: string, aliasPrefix: string): string | undefined {
  if (!isEncoded(path)) return undefined
  return withoutAlias(resolveDots(simplifyPath(withoutParameters(decodePath(path)))), aliasPrefix)
}

/**
 * Cuts a decoded path at a NUL, "?" or "#". Some servers end a path at a NUL. If a server passes a path on decoded, the
 * next server ends it at "?" or "#".
 */
function upToEnd(decoded: string): string {
  return decoded.replace(/[\0?#].*$/s, '')
}

function distinct(paths: readonly string[], aliasPrefix: string): string[] {
  return [...new Set(paths.map((path) => withoutAlias(resolveDots(simplifyPath(path)), aliasPrefix)))]
}

/** Resolves ".." segments (RFC 3986 §5.2.4). Most calls with one are refused, but not those with "..;" or "%252e". */
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
 * Decodes all escapes, also nested ones: `%252F` is "/". Each character of the result is one byte. Overlong forms become
 * the characters that they stand for. Then backslashes become slashes. Takes linear time, however deep escapes are
 * nested.
 */
export function decodePath(path: string): string {
  if (!isEncoded(path)) return path
  const codes: number[] = []
  for (let i = 0; i < path.length; i++) {
    codes.push(path.charCodeAt(i))
    for (let end = codes.length; end >= 3 && codes[end - 3] === PERCENT; end = codes.length) {
      const byte = 16 * digitAt(codes, end - 2) + digitAt(codes, end - 1)
      if (Number.isNaN(byte)) break
      codes.length = end - 3
      codes.push(byte)
    }
  }
  return Buffer.from(codes).toString('latin1').replace(OVERLONG, shortest).replaceAll('\\', '/')
}

const PERCENT = 37

/** The value of the hex digit at an index; NaN if there is another character. */
function digitAt(codes: readonly number[], index: number): number {
  return Number.parseInt(String.fromCharCode(codes[index]!), 16)
}

/** ASCII characters in more bytes than they need (RFC 3629 §3), which lenient decoders accept. */
// oxlint-disable-next-line no-control-regex -- these are bytes
const OVERLONG = /[\xc0\xc1][\x80-\xbf]|\xe0[\x80\x81][\x80-\xbf]|\xf0\x80[\x80\x81][\x80-\xbf]/g

/** Whether a path contains overlong characters that are not escaped. */
export function isOverlong(path: string): boolean {
  return path.search(OVERLONG) >= 0
}

function shortest(bytes: string): string {
  const [high, low] = [bytes.charCodeAt(bytes.length - 2), bytes.charCodeAt(bytes.length - 1)]
  return String.fromCharCode(((high & 1) << 6) | (low & 63))
}

/**
 * Removes empty and "." segments. Decodes escapes of characters that need none, and puts the others in capitals (RFC
 * 3986 §6.2.2).
 */
export function simplifyPath(path: string): string {
  let simple = path
  if (simple.includes('%')) simple = simple.replace(/%[0-9a-f]{2}/gi, decodeUnreserved)
  if (simple.includes('//')) simple = simple.replace(/\/{2,}/g, '/')
  if (simple.includes('/.')) simple = simple.replace(/\/\.(?=\/|$)/g, '') || '/'
  return simple
}

/** Removes the parameters of segments, such as ";v=1" (RFC 3986 §3.3), which Java servers ignore. */
export function withoutParameters(path: string): string {
  return path.includes(';') ? path.replace(/;[^/]*/g, '') : path
}

/** Removes the prefix under which the vendor serves the same paths again. */
export function withoutAlias(path: string, aliasPrefix: string): string {
  return aliasPrefix !== '' && path.startsWith(`${aliasPrefix}/`) ? path.slice(aliasPrefix.length) : path
}

/** A normalized path for the log, without its secrets. `secretSegments` are numbers of non-empty segments, from 0. */
export function redactPath(normalPath: string, secretSegments: readonly number[]): string {
  let number = 0
  return normalPath
    .split('/')
    .map((segment) => (segment !== '' && secretSegments.includes(number++) ? '[redacted]' : segment))
    .join('/')
}

/** Letters, digits and "-._~" mean the same with and without an escape. Other characters may not. */
function decodeUnreserved(escape: string): string {
  const character = String.fromCharCode(Number.parseInt(escape.slice(1), 16))
  return /[\w.~-]/.test(character) ? character : escape.toUpperCase()
}
