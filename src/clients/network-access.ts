import { isIPv6 } from 'node:net'
import { domainToASCII } from 'node:url'
import { decodePath, type PathReadings, readingsOf, simplifyPath, withoutAlias } from '../routing/path.ts'
import { isPublicAddress, parseAddress } from '../net/address.ts'

/** Which upstream addresses may be reached. Entries are an exact host, `*.host`, or a URL prefix. */
export interface NetworkAccess {
  readonly allowed: readonly string[]
  readonly blocked: readonly string[]
}

/** Fills in the lists that a configuration leaves out: they are empty. */
export function accessOf({ allowed = [], blocked = [] }: Partial<NetworkAccess>): NetworkAccess {
  return { allowed, blocked }
}

/** The lists of all that restrict network access. */
export function accessLists(
  all: readonly { readonly networkAccess?: Partial<NetworkAccess> | undefined }[],
): NetworkAccess[] {
  return all.flatMap(({ networkAccess }) => (networkAccess === undefined ? [] : [accessOf(networkAccess)]))
}

/** A vendor serves the paths below `base` a second time, below `base + prefix`. */
export interface Alias {
  readonly base: string
  readonly prefix: string
}

/**
 * Whether every layer allows the URL. A layer allows it if none of its blocked entries matches, and if one of its
 * allowed entries does or it has none. What does not parse as a URL is denied.
 *
 * Paths match whichever way they are escaped, with empty segments, and by the vendor's alias. Servers read parameters,
 * escaped slashes and backslashes in different ways: an entry blocks if it matches any reading, and allows only if it
 * matches each of them.
 */
export function isAccessAllowed(url: string, layers: readonly NetworkAccess[], alias = NO_ALIAS): boolean {
  if (!URL.canParse(url)) return false
  const target = new URL(url)
  const readings = readingsOf(target.pathname)
  return layers.every(({ allowed, blocked }) =>
    FORMS.every((form) =>
      readings[form].every((path) => {
        const isNamed = (entry: string): boolean => matches({ url: target, path, form }, entry, alias)
        return !blocked.some(isNamed) && (allowed.length === 0 || allowed.some(isNamed))
      }),
    ),
  )
}

const FORMS: readonly (keyof PathReadings)[] = ['literal', 'decoded']

/** A URL, and its path in one of the ways in which servers read it. */
interface Reading {
  readonly url: URL
  readonly path: string
  readonly form: keyof PathReadings
}

/**
 * Whether a connection may be made to an address of an upstream. A blocked address is refused. A private one is refused, too, unless
 * private addresses are allowed in general, or a layer allows this address.
 */
export function isAddressAllowed(
  address: string,
  layers: readonly NetworkAccess[],
  arePrivateAllowed: boolean,
): boolean {
  const parsed = parseAddress(address)
  if (parsed === undefined) return false
  const host = parsed.toString()
  const target = new URL(`http://${isIPv6(host) ? `[${host}]` : host}`)
  const isNamed = (entry: string): boolean => matchesHost(target, entry)
  if (layers.some(({ blocked }) => blocked.some(isNamed))) return false
  return arePrivateAllowed || isPublicAddress(address) || layers.some(({ allowed }) => allowed.some(isNamed))
}

const NO_ALIAS: Alias = { base: '', prefix: '' }

function matches(target: Reading, entry: string, alias: Alias): boolean {
  return entry.includes('://') ? matchesPrefix(target, entry, alias) : matchesHost(target.url, entry)
}

function matchesHost(target: URL, entry: string): boolean {
  const host = normalHost(target.hostname)
  if (!entry.startsWith('*.')) return host === normalHost(entry)
  const apex = normalHost(entry.slice(2))
  return apex !== '' && (host === apex || host.endsWith(`.${apex}`))
}

/**
 * Whether a URL has the origin of the prefix and lies below its path. A path ends at a segment, so that `/api` does not
 * allow `/apis`.
 */
function matchesPrefix({ url, path, form }: Reading, entry: string, alias: Alias): boolean {
  if (!URL.canParse(entry)) return false
  const prefix = new URL(entry)
  if (url.protocol !== prefix.protocol || normalHost(url.hostname) !== normalHost(prefix.hostname)) return false
  if (url.port !== prefix.port) return false
  const above = simplifyPath(form === 'decoded' ? decodePath(prefix.pathname) : prefix.pathname)
  return isAtOrBelow(path, above) || isAtOrBelow(unaliased(path, alias), unaliased(above, alias))
}

function isAtOrBelow(path: string, above: string): boolean {
  const bare = above.replace(/\/$/, '')
  return path === bare || path.startsWith(`${bare}/`)
}

function unaliased(path: string, { base, prefix }: Alias): string {
  return path.startsWith(`${base}/`) ? base + withoutAlias(path.slice(base.length), prefix) : path
}

/**
 * A host in lower case and punycode, without a trailing dot. An IPv6 address is in its shortest form. Empty if the text is no host.
 */
export function normalHost(host: string): string {
  const bare = host.toLowerCase().replace(/\.$/, '')
  if (!bare.startsWith('[')) return domainToASCII(bare)
  return URL.canParse(`http://${bare}`) ? new URL(`http://${bare}`).hostname : ''
}
