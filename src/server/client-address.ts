import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import proxyAddress from '@fastify/proxy-addr'

/** Whose call it is, by address; undefined once the connection is closed. */
export type AddressOf = (request: IncomingMessage) => string | undefined

/** Whether an address is that of a load balancer that is believed. */
export function isTrusted(trusted: readonly string[]): (address: string | undefined) => boolean {
  if (trusted.length === 0) return () => false
  const trust = proxyAddress.compile([...trusted])
  return (address) => address !== undefined && trust(address, 0)
}

/**
 * Tells the address of a client: that of its connection, or where this comes from one of the trusted networks, the last one in
 * X-Forwarded-For, or without that in Forwarded, that is not of those. What anybody else says there is not believed; and where
 * the first one that counts is no address ("unknown", an obfuscated name), nothing is.
 */
export function clientAddress(trusted: readonly string[]): AddressOf {
  if (trusted.length === 0) return ({ socket }) => socket.remoteAddress
  const isBelieved = isTrusted(trusted)
  return ({ headers, socket: { remoteAddress } }) => {
    if (!isBelieved(remoteAddress)) return remoteAddress
    // Not both: a balancer that writes one of them may pass on the other as its client sent it.
    const named = headers['x-forwarded-for']?.toString().split(',') ?? forwardedFor(headers.forwarded)
    let address = remoteAddress
    for (let i = named.length - 1; i >= 0 && isBelieved(address); i--) {
      const next = bareAddress(named[i]!.trim())
      if (next === undefined) return remoteAddress
      address = next
    }
    return address
  }
}

/** One part of an element, such as `for="[2001:db8::1]:80"`, and what ends it. Quotes are often left out where they must not. */
const PART = /[ \t]*(?:([\w!#$%&'*+.^`|~-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,;"]*))[ \t]*)?(,|;|$)/y

/** What stands in `for` of each element (RFC 7239 §4), "unknown" where nothing does. Nothing of what is malformed is believed. */
function forwardedFor(field: string | undefined): string[] {
  if (field === undefined) return []
  const named: string[] = []
  let current = 'unknown'
  PART.lastIndex = 0
  for (;;) {
    const part = PART.exec(field)
    if (part === null) return ['unknown']
    const [, name, quoted, bare, end] = part
    if (name?.toLowerCase() === 'for') current = quoted?.replaceAll(/\\(.)/g, '$1') ?? bare!
    if (end === ';') continue
    named.push(current)
    if (end === '') return named
    current = 'unknown'
  }
}

const NODE = /^(?:\[([\da-f:.]+)\]|([\d.]+))(?::[\w.-]+)?$/i

/** The address of what may have a port, and brackets if it is of IPv6; undefined if it is none. */
function bareAddress(node: string): string | undefined {
  if (isIP(node) !== 0) return node
  const [, inBrackets, bare] = NODE.exec(node) ?? []
  const address = inBrackets ?? bare ?? ''
  return isIP(address) === (inBrackets === undefined ? 4 : 6) ? address : undefined
}
