import type { IncomingHttpHeaders } from 'node:http'

/** Where a tunnel leads to, as its CONNECT said. */
export interface Tunnelled {
  /** Lower-case, without trailing dot, an IPv6 address in brackets. */
  readonly hostname: string
  readonly port: number
  /** The Proxy-Authorization of the CONNECT. It is judged again for each call, so that a key can be revoked. */
  readonly credentials: string | undefined
}

/** How a call came to the forward proxy: through a tunnel, or to the port itself with a whole URL. */
export interface Proxied {
  readonly tunnel: Tunnelled | undefined
  /** Whether a request has come this way. */
  isUsed: boolean
}

/** Set on the connection itself, because a request of HTTP/2 shows only a stand-in of its connection, which no map would find. */
const PROXIED = Symbol('proxied')

/** Marks a connection as one of the forward proxy. */
export function markProxied(connection: object, tunnel: Tunnelled | undefined): Proxied {
  const proxied = { tunnel, isUsed: false }
  Object.defineProperty(connection, PROXIED, { value: proxied, configurable: true })
  return proxied
}

/** How a call on this connection came, if it was sent to the forward proxy. */
export function proxiedOn(connection: object): Proxied | undefined {
  return (connection as { [PROXIED]?: Proxied })[PROXIED]
}

/** The header in which a client of the forward proxy presents its key. */
export const PROXY_KEY_HEADERS = ['proxy-authorization']

/** The client's key header alone: from the request, or from the CONNECT that made its tunnel. */
export function proxyKey({ tunnel }: Pick<Proxied, 'tunnel'>, headers: IncomingHttpHeaders): IncomingHttpHeaders {
  const value = tunnel === undefined ? headers['proxy-authorization'] : tunnel.credentials
  return value === undefined ? {} : { 'proxy-authorization': value }
}
