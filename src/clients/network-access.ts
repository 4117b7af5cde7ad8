import { isIPv6 } from 'node:net'
import { domainToASCII } from 'node:url'
import { decodePath, type PathReadings, readingsOf, simplifyPath, withoutAlias } from '../routing/path.ts'
import { isPublicAddress, parseAddress } from '../net/address.ts'

/** Which upstream addresses may be reached. Entries are an exact host, `*.host`, or a URL prefix. */
export interface NetworkAccess {
  readonly allowed: readonly string[]
  readonly blocked: readonly string[]
}

/** Lists as a configuration has them: those that are left out are empty. */
export function accessOf({ allowed = [], blocked = [] }: Partial<NetworkAccess>): NetworkAccess {
  return { allowed, blocked }
}

/** Where a vendor serves the paths below `base` again: below `base + prefix`. */
export interface Alias {
  readonly base: string
  readonly prefix: string
}

/**
 * Whether every layer lets the URL through: blocked wins, in any layer; each layer that has an allow list must allow it; an
 * empty allow list restricts nothing; what does not parse as a URL is denied. Paths are the same if a server takes them for
 * the same: however they are escaped, with empty segments, or by the vendor's alias. Servers read parameters, escaped slashes
 * and backslashes in different ways: what is blocked in one reading is blocked, and what is allowed is so in each of them.
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

/** A URL, with its path in one of the ways in which it may be read. */
interface Reading {
  readonly url: URL
  readonly path: string
  readonly form: keyof PathReadings
}

/**
 * Whether an address that an upstream's name stands for may be connected to: one that is not blocked, and one of the public
 * Internet, unless others are allowed, or this very one is.
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

/** Same origin, and below the prefix's path at a segment's border, so that `/api` does not let `/apis` through. */
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

/** Lower-case, without trailing dot, in punycode, an IPv6 address in its shortest form; empty for what is no host. */
export function normalHost(host: string): string {
  const bare = host.toLowerCase().replace(/\.$/, '')
  if (!bare.startsWith('[')) return domainToASCII(bare)
  return URL.canParse(`http://${bare}`) ? new URL(`http://${bare}`).hostname : ''
}
