import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import proxyAddress from '@fastify/proxy-addr'

/** Gives the address of the client that sent a request; undefined once the connection is closed. */
export type AddressOf = (request: IncomingMessage) => string | undefined

/** Makes a test for addresses of load balancers whose word on the client's address is believed. */
export function isTrusted(trusted: readonly string[]): (address: string | undefined) => boolean {
  if (trusted.length === 0) return () => false
  const trust = proxyAddress.compile([...trusted])
  return (address) => address !== undefined && trust(address, 0)
}

/**
 * Gives the address of a client. Usually it is that of the connection. If the connection comes from a trusted network, it is
 * the last address in X-Forwarded-For that is not trusted itself; Forwarded is read if there is no X-Forwarded-For. Entries
 * before that one are not believed, because any client can write them. If the entry that counts is no address ("unknown" or
 * an obfuscated name), the answer is the address of the connection.
 */
export function clientAddress(trusted: readonly string[]): AddressOf {
  if (trusted.length === 0) return ({ socket }) => socket.remoteAddress
  const isBelieved = isTrusted(trusted)
  return ({ headers, socket: { remoteAddress } }) => {
    if (!isBelieved(remoteAddress)) return remoteAddress
    // Only one of the two fields is read: a balancer that writes one may pass on the other as its client sent it.
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

/**
 * One part of an element, such as `for="[2001:db8::1]:80"`, and what ends it. Values that lack the quotes they need are
 * accepted, since many senders leave them out.
 */
const PART = /[ \t]*(?:([\w!#$%&'*+.^`|~-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,;"]*))[ \t]*)?(,|;|$)/y

/**
 * The value of `for` in each element (RFC 7239 §4), "unknown" for an element without one. Of a malformed field nothing is
 * believed.
 */
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

/** The address in a node, without its port and without the brackets of IPv6; undefined if the node is no address. */
function bareAddress(node: string): string | undefined {
  if (isIP(node) !== 0) return node
  const [, inBrackets, bare] = NODE.exec(node) ?? []
  const address = inBrackets ?? bare ?? ''
  return isIP(address) === (inBrackets === undefined ? 4 : 6) ? address : undefined
}
