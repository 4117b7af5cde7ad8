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
 * X-Forwarded-For that is not of those. What anybody else says there, or what is no address, is not believed.
 */
export function clientAddress(trusted: readonly string[]): AddressOf {
  if (trusted.length === 0) return ({ socket }) => socket.remoteAddress
  const trust = proxyAddress.compile([...trusted])
  return (request) => {
    const { remoteAddress } = request.socket
    if (remoteAddress === undefined || request.headers['x-forwarded-for'] === undefined) return remoteAddress
    const address = proxyAddress(request, trust)
    return isIP(address) === 0 ? remoteAddress : address
  }
}
