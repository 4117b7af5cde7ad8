/**
 * The form of a path by which calls are classified, as most servers see it: without the prefix under which the vendor
 * serves the same paths again, without parameters, and simplified. Only for looking at; what is forwarded stays as it is.
 */
export function normalizePath(path: string, aliasPrefix: string): string {
  return withoutAlias(simplifyPath(withoutParameters(path)), aliasPrefix)
}

/** The path without empty and "." segments, and without escapes that are none (RFC 3986 §6.2.2.2). */
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
  return /[\w.~-]/.test(character) ? character : escape
}
