import type { Socket } from 'node:net'
import { normalHost } from '../clients/network-access.ts'
import { isLoopback } from '../net/address.ts'
import { type Failure, invalid } from './failure.ts'

/** A request target in absolute form, as clients send it to a proxy (RFC 9112 §3.2.2). */
export interface AbsoluteTarget {
  /** Host and port as they were sent. */
  readonly authority: string
  /** The host alone: lower-case, without trailing dot, an IPv6 address in brackets. */
  readonly hostname: string
  readonly port: number
  /** Path and query, as they were sent. */
  readonly rest: string
}

/** The gateway's end of a client's connection. The fields are undefined once the connection is closed. */
export type LocalEnd = Partial<Pick<Socket, 'localAddress' | 'localPort'>>

const ABSOLUTE = /^(https?):\/\/([^/?#]+)(.*)$/i
/**
 * Matches a host, and perhaps a port. It does not match what URL parsers read differently, such as a backslash or an escape, and no
 * name with an empty label: `api.example..` may lead to the same host, and would pass every list of names by.
 */
export const AUTHORITY = /^(?:[\w-]+(?:\.[\w-]+)*\.?|\[[\da-f:.]+\])(?::(\d{0,5}))?$/i

/** Splits the target into its parts, or says what is wrong with it. */
export function readAbsoluteTarget(url: string): AbsoluteTarget | Failure {
  const [, scheme = '', authority = '', rest = ''] = ABSOLUTE.exec(url) ?? []
  if (scheme === '') return invalid('the request target is neither a path nor an http URL')
  // RFC 9110 §4.2.4: a user that looks like a host can hide the real host.
  if (authority.includes('@')) return invalid('the request target must not have a user before its host')
  const [matches, port = ''] = AUTHORITY.exec(authority) ?? []
  const hostname = matches === undefined ? '' : normalHost(authority.replace(/:\d*$/, ''))
  if (hostname === '') return invalid('the request target must name a host, and a port if any')
  const usualPort = scheme.toLowerCase() === 'https' ? 443 : 80
  return {
    authority,
    hostname,
    port: port === '' ? usualPort : Number(port),
    rest: rest.startsWith('/') ? rest : `/${rest}`,
  }
}

/**
 * Whether the target is this gateway itself: it has one of the gateway's configured names, or the address and port at which
 * the client reached the gateway.
 */
export function isOwnHost(
  { hostname, port }: AbsoluteTarget,
  ownHosts: ReadonlySet<string>,
  { localAddress, localPort }: LocalEnd,
): boolean {
  if (ownHosts.has(hostname)) return true
  if (localAddress === undefined || port !== localPort) return false
  // A socket for both families writes an IPv4 address as `::ffff:…`. A link-local address ends with its interface, as `%eth0`.
  const address = localAddress.replace(/^::ffff:(?=\d+\.)/i, '').replace(/%.*$/, '')
  if (hostname === (address.includes(':') ? normalHost(`[${address}]`) : address)) return true
  return isLoopback(address) && isLoopback(hostname)
}
