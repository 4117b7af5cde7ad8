import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import proxyAddress from '@fastify/proxy-addr'
import type { AddressedBy } from '../gateway/call.ts'

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
    const named =
      headers['x-forwarded-for']?.toString().split(',') ??
      forwardedElements(headers.forwarded).map((element) => element.for ?? 'unknown')
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
 * Tells how a client addressed the gateway, where a trusted network says so: by the last value of X-Forwarded-Proto, -Host and -Prefix,
 * or without these two by the last element of Forwarded. That is what the balancer itself wrote.
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

/** A path that no client takes for a host. */
const PREFIX = /^(?:\/[\w.~%!$&'()*+=:@-]+)+$/

/**
 * One part of an element, such as `for="[2001:db8::1]:80"`, and what ends it. Values that lack the quotes they need are
 * accepted, since many senders leave them out.
 */
const PART = /[ \t]*(?:([\w!#$%&'*+.^`|~-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,;"]*))[ \t]*)?(,|;|$)/y

/** The elements (RFC 7239 §4). Nothing of what is malformed is believed: it is one element that says nothing. */
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

/** The address in a node, without its port and without the brackets of IPv6; undefined if the node is no address. */
function bareAddress(node: string): string | undefined {
  if (isIP(node) !== 0) return node
  const [, inBrackets, bare] = NODE.exec(node) ?? []
  const address = inBrackets ?? bare ?? ''
  return isIP(address) === (inBrackets === undefined ? 4 : 6) ? address : undefined
}
