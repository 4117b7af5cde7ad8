/*
 * src/net: which IP addresses and host names are public, private or local, and look-ups that obey that.
 * It imports no other folder.
 * A change here must prove that no form of a private address passes for a public one (test/net).
 */

import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'

/**
 * An IP address without its zone, and an IPv4 one that is written as an IPv6 one (mapped, RFC 4291 §2.5.5.2) as itself.
 * Undefined for what is none.
 */
export function parseAddress(text: string): ipaddr.IPv4 | ipaddr.IPv6 | undefined {
  const [bare = ''] = text.split('%')
  // The library would also take IPv4 addresses of one to three parts, and octal ones.
  return isIP(bare) === 0 ? undefined : ipaddr.process(bare)
}

// All that is given out of IPv6.
const GLOBAL_UNICAST = ipaddr.IPv6.parseCIDR('2000::/3')
// IPv4 addresses that are translated (RFC 6052).
const TRANSLATED = ipaddr.IPv6.parseCIDR('64:ff9b::/96')

/**
 * Whether an IP address is one of the public Internet: none of private networks, this machine, the link, carriers, cloud
 * metadata, documentation or multicast (the IANA Special-Purpose Address Registries). One that holds an IPv4 address, mapped or
 * translated, is what that is; tunnels to one (6to4, Teredo) are never public.
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

/** What stands for an address: an IPv6 client can have any address of its /64. */
export function networkOf(text = ''): string {
  const address = parseAddress(text)
  if (!(address instanceof ipaddr.IPv6)) return address?.toString() ?? ''
  const network = address.parts.slice(0, 4)
  return network.map((group) => group.toString(16)).join(':')
}

/** Whether a listen address can only be reached from this machine. A host name other than localhost counts as not. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[(.*)\]$/, '$1')
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
