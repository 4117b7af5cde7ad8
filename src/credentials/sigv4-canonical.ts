// The canonical form of a request for AWS Signature Version 4. Each character of a text stands for one byte here, as Node reads
// and undici sends it, because a client's escapes and header values need not be UTF-8. Libraries decode them to characters: aws4
// throws at %E9, and where a header is UTF-8 it signs other bytes than it sends.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html

const ENCODED = Array.from({ length: 256 }, (_, byte) => {
  const char = String.fromCharCode(byte)
  return /[\w.~-]/.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
})

/** Encodes every byte except the unreserved ones as `%XY`. */
function encoded(bytes: string): string {
  let text = ''
  for (let i = 0; i < bytes.length; i++) text += ENCODED[bytes.charCodeAt(i)] ?? ''
  return text
}

function decoded(text: string): string {
  if (!text.includes('%')) return text
  return text.replaceAll(/%([\da-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
}

/**
 * The path as it is signed. For S3 a path is the name of an object: `.`, `..` and empty segments stay, the client's
 * encoding is undone, and the path is encoded once. For all other services those segments are resolved (RFC 3986
 * §6.2.2.3), and the path is encoded a second time, on top of the client's encoding.
 */
export function canonicalPath(path: string, service: string): string {
  const bytes = service === 's3' ? decoded(path) : resolved(path)
  return encoded(bytes).replaceAll('%2F', '/')
}

function resolved(path: string): string {
  const segments: string[] = []
  for (const segment of path.split('/')) {
    if (segment === '..') segments.pop()
    else if (segment !== '' && segment !== '.') segments.push(segment)
  }
  const isFolder = /\/\.{0,2}$/.test(path) && segments.length > 0
  return `/${segments.join('/')}${isFolder ? '/' : ''}`
}

/** The query, given without its `?`, as it is signed: sorted by encoded names, then by encoded values. */
export function canonicalQuery(query: string): string {
  return parametersOf(query)
    .map(([name, value]) => [encoded(name), encoded(value)] as const)
    .toSorted(([a, x], [b, y]) => compare(a, b) || compare(x, y))
    .map(([name, value]) => `${name}=${value}`)
    .join('&')
}

/** The parameters as AWS reads them: `+` is a space. */
export function parametersOf(query: string): [name: string, value: string][] {
  const pairs = query.split('&').filter((pair) => pair !== '')
  return pairs.map((pair) => {
    const equalsAt = pair.indexOf('=')
    const [name, value] = equalsAt < 0 ? [pair, ''] : [pair.slice(0, equalsAt), pair.slice(equalsAt + 1)]
    return [decoded(name.replaceAll('+', ' ')), decoded(value.replaceAll('+', ' '))]
  })
}

/**
 * The value of a header field as it is signed. `trim` and `\s` would also remove the byte A0, with which "à" ends in
 * UTF-8.
 */
export function canonicalValue(value: string): string {
  return value.replaceAll(/[ \t]+/g, ' ').replace(/^ | $/g, '')
}

function compare(a: string, b: string): number {
  if (a === b) return 0
  return a < b ? -1 : 1
}
