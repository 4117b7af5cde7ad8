/*
 * src/net: which IP addresses and host names are public, private or local, and look-ups that obey that.
 * It imports no other folder.
 * A change here must prove that no form of a private address passes for a public one (test/net).
 */

import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'

/**
 * Parses an IP address, without its zone. An IPv4 address that is written as an IPv6 one (mapped, RFC 4291 §2.5.5.2) is
 * that IPv4 address. Undefined for what is no address.
 */
export function parseAddress(text: string): ipaddr.IPv4 | ipaddr.IPv6 | undefined {
  const [bare = ''] = text.split('%')
  // The library would also take IPv4 addresses of one to three parts, and octal ones.
  return isIP(bare) === 0 ? undefined : ipaddr.process(bare)
}

// All IPv6 addresses of the public Internet are assigned from this block.
const GLOBAL_UNICAST = ipaddr.IPv6.parseCIDR('2000::/3')
// The prefix of IPv4 addresses that are translated to IPv6 (RFC 6052).
const TRANSLATED = ipaddr.IPv6.parseCIDR('64:ff9b::/96')

/**
 * Whether an IP address is public: not of a private network, this machine, the link, a carrier, cloud metadata,
 * documentation or multicast (IANA Special-Purpose Address Registries). If an IPv6 address contains an IPv4 address, mapped or
 * translated, that IPv4 address decides. Addresses of 6to4 and Teredo, which tunnel to an IPv4 address, are never public.
 */
export function isPublicAddress(text: string): boolean {
  const address = parseAddress(text)
  return address !== undefined && isPublic(address)
}

function isPublic(address: ipaddr.IPv4 | ipaddr.IPv6): boolean {
  if (address instanceof ipaddr.IPv6) {
    if (address.match(TRANSLATED)) return isPublic(new ipaddr.IPv4(address.toByteArray().slice(12)))
    if (!address.match(GLOBAL_UNICAST)) return false
  }
  return address.range() === 'unicast'
}

/** The address of a client, or its /64 network with IPv6: one IPv6 client can use any address of its network. */
export function networkOf(text = ''): string {
  const address = parseAddress(text)
  if (!(address instanceof ipaddr.IPv6)) return address?.toString() ?? ''
  const network = address.parts.slice(0, 4)
  return network.map((group) => group.toString(16)).join(':')
}

/** Removes the brackets that an IPv6 address has in a URL. Sockets and certificates name it without them. */
export function withoutBrackets(host: string): string {
  return host.replace(/^\[(.*)\]$/, '$1')
}

/** How a URL names what listens on a host of this machine: by loopback where it listens on every address. */
export function hostToReach(listened: string): string {
  const host = withoutBrackets(listened)
  if (host === '0.0.0.0') return '127.0.0.1'
  if (host === '::') return '[::1]'
  return host.includes(':') ? `[${host}]` : host
}

/** Whether only this machine can reach a listen address. The only such host name is localhost. */
export function isLoopback(host: string): boolean {
  const bare = withoutBrackets(host)
  const address = parseAddress(bare)
  return address === undefined ? bare.toLowerCase() === 'localhost' : address.range() === 'loopback'
}

/** Whether a host name always means this machine (RFC 6761 §6.3). */
export function isLocalhost(host: string): boolean {
  return /^(?:.+\.)?localhost\.?$/i.test(host)
}

/** The name in a Host field or a list of names: without port and trailing dot, in lower case. */
export function bareHost(host: string): string {
  return host.replace(/:\d*$/, '').replace(/\.$/, '').toLowerCase()
}
