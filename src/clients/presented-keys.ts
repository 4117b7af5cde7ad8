/** What a header may present as a key. */
export interface Presented {
  /**
   * The scheme in front of the key, if it is a known one. Any other word may be a part of a secret and must not be
   * repeated.
   */
  readonly scheme: string | undefined
  /**
   * Every text that may be the key. Empty if the header holds nothing but a scheme, or a scheme that carries no key.
   */
  readonly keys: readonly string[]
}

/** Schemes by their lower-case names, as messages write them. */
const SCHEMES = namesOf('Bearer Basic Token ApiKey Api-Key Api-Token Key GenieKey Bot SSWS OAuth PRIVATE-TOKEN')
/** Schemes that prove the possession of a secret without sending it. */
const KEYLESS = namesOf('Digest Negotiate NTLM Kerberos Hawk Signature HOBA Mutual AWS4-HMAC-SHA256')

function namesOf(names: string): ReadonlyMap<string, string> {
  return new Map(names.split(' ').map((name) => [name.toLowerCase(), name]))
}

/**
 * Finds the key in a header as SDKs write it: bare, behind a scheme of any name and case (`Bearer K`, `token K`), as
 * `Token token="K"`, or as password or user of `Basic` (RFC 7617).
 */
export function readKeys(value: string): Presented {
  const text = value.trim()
  const space = text.indexOf(' ')
  const word = (space < 0 ? text : text.slice(0, space)).toLowerCase()
  if (KEYLESS.has(word)) return { scheme: KEYLESS.get(word), keys: [] }
  const scheme = SCHEMES.get(word)
  if (space < 0) return { scheme, keys: text === '' || scheme !== undefined ? [] : [text] }
  const rest = text.slice(space).trim()
  switch (word) {
    case 'bearer':
      return { scheme, keys: [rest] }
    case 'basic':
      return { scheme, keys: pairIn(rest) }
    case 'token':
      return { scheme, keys: [unquoted(tokenIn(rest))].filter((key) => key !== '') }
    default:
      // Behind an unknown word, the whole text may be the key, too: a key may contain a space.
      return { scheme, keys: scheme === undefined ? [rest, text] : [rest] }
  }
}

/** Whether a scheme never carries a key. */
export function isKeyless(scheme: string): boolean {
  return KEYLESS.has(scheme.toLowerCase())
}

/** The password and the user, of which either may be the key. */
function pairIn(base64: string): string[] {
  const pair = Buffer.from(base64, 'base64').toString()
  const colon = pair.indexOf(':')
  const [user, password] = colon < 0 ? [pair, ''] : [pair.slice(0, colon), pair.slice(colon + 1)]
  return [password, user].filter((key) => key !== '')
}

/** The value of `token="K", nonce="…"`, the form of Rails that PagerDuty and others use. */
function tokenIn(text: string): string {
  if (!text.toLowerCase().startsWith('token=')) return text
  const comma = text.indexOf(',')
  return text.slice('token='.length, comma < 0 ? undefined : comma).trim()
}

function unquoted(text: string): string {
  const isQuoted = text.length > 1 && text.startsWith('"') && text.endsWith('"')
  return isQuoted ? text.slice(1, -1) : text
}
