import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import proxyAddress from '@fastify/proxy-addr'
import type { AddressedBy } from '../gateway/call.ts'
import { flatCopy } from '../schema/flat-copy.ts'

/** Gives the address of the client that sent a request. It may be undefined if the connection is closed. */
export type AddressOf = (request: IncomingMessage) => string | undefined

/** Makes a test whether an address is in a trusted network: what a load balancer there says of its client is believed. */
export function isTrusted(trusted: readonly string[]): (address: string | undefined) => boolean {
  if (trusted.length === 0) return () => false
  const trust = proxyAddress.compile([...trusted])
  return (address) => address !== undefined && trust(address, 0)
}

/**
 * Makes the function that gives the address of a client. Usually that is the address of the connection. If the connection comes
 * from a trusted network, it is the last address in X-Forwarded-For that is not trusted itself, or the first address if all are
 * trusted. Forwarded is read if there is no X-Forwarded-For. Entries before the one that counts are not believed, because any
 * client can write them. If an entry on the way there is no address ("unknown" or an obfuscated name), the address of the
 * connection is given.
 */
export function clientAddress(trusted: readonly string[]): AddressOf {
  if (trusted.length === 0) return ({ socket }) => socket.remoteAddress
  const isBelieved = isTrusted(trusted)
  return ({ headers, socket: { remoteAddress } }) => {
    if (!isBelieved(remoteAddress)) return remoteAddress
    // Only one of the two fields is read: a balancer that writes one may pass on the other as its client sent it.
    const named =
      headers['x-forwarded-for']?.toString().split(',') ??
      forwardedElements(headers.forwarded).map((element) => element.for ?? 'unknown')
    let address = remoteAddress
    for (let i = named.length - 1; i >= 0 && isBelieved(address); i--) {
      const next = bareAddress(named[i]!.trim())
      if (next === undefined) return remoteAddress
      address = next
    }
    // The call keeps it, but not the field that it was cut out of.
    return address && flatCopy(address)
  }
}

/**
 * Makes the function that tells how a client addressed the gateway. Only what a trusted network says is believed. Scheme and host
 * are the last values of X-Forwarded-Proto and X-Forwarded-Host. If both are absent, the last element of Forwarded has them. The
 * prefix is the last value of X-Forwarded-Prefix. The last value is the one that the balancer itself wrote.
 */
export function addressedBy(trusted: readonly string[]): AddressedBy {
  if (trusted.length === 0) return () => ({})
  const isBelieved = isTrusted(trusted)
  return ({ headers, socket }) => {
    if (!isBelieved(socket.remoteAddress)) return {}
    const last = (name: string): string | undefined => headers[name]?.toString().split(',').at(-1)?.trim()
    const named = { proto: last('x-forwarded-proto'), host: last('x-forwarded-host') }
    const isNamed = named.proto !== undefined || named.host !== undefined
    const { proto, host } = isNamed ? named : (forwardedElements(headers.forwarded).at(-1) ?? {})
    const scheme = proto?.toLowerCase()
    const prefix = last('x-forwarded-prefix')?.replace(/\/$/, '')
    return {
      scheme: scheme === 'http' || scheme === 'https' ? scheme : undefined,
      host,
      prefix: prefix !== undefined && PREFIX.test(prefix) ? prefix : undefined,
    }
  }
}

/** A path that no client can take for a host: each slash has a name behind it. */
const PREFIX = /^(?:\/[\w.~%!$&'()*+=:@-]+)+$/

/**
 * One part of an element, such as `for="[2001:db8::1]:80"`, and the character that ends it. Values without the quotes that they
 * need are accepted, because many senders leave the quotes out.
 */
const PART = /[ \t]*(?:([\w!#$%&'*+.^`|~-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,;"]*))[ \t]*)?(,|;|$)/y

/** The elements of Forwarded (RFC 7239 §4). If the field is malformed, nothing in it is believed: the result is one empty element. */
function forwardedElements(field: string | undefined): Readonly<Record<string, string>>[] {
  if (field === undefined) return []
  const elements: Record<string, string>[] = []
  let current: Record<string, string> = {}
  PART.lastIndex = 0
  for (;;) {
    const part = PART.exec(field)
    if (part === null) return [{}]
    const [, name, quoted, bare, end] = part
    if (name !== undefined) current[name.toLowerCase()] = quoted?.replaceAll(/\\(.)/g, '$1') ?? bare!
    if (end === ';') continue
    elements.push(current)
    if (end === '') return elements
    current = {}
  }
}

const NODE = /^(?:\[([\da-f:.]+)\]|([\d.]+))(?::[\w.-]+)?$/i

/** The address in an entry, without its port and without the brackets of IPv6; undefined if the entry has no address. */
function bareAddress(node: string): string | undefined {
  if (isIP(node) !== 0) return node
  const [, inBrackets, bare] = NODE.exec(node) ?? []
  const address = inBrackets ?? bare ?? ''
  return isIP(address) === (inBrackets === undefined ? 4 : 6) ? address : undefined
}
