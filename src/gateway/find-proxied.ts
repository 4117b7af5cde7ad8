import type { IncomingHttpHeaders } from 'node:http'
import { readAbsoluteTarget } from './absolute-target.ts'
import { Failure, isFailure } from './failure.ts'
import type { Origins } from './origins.ts'
import type { Proxied } from './proxied.ts'

/** An upstream, and what a call to the forward proxy asks of it. */
export interface ProxiedTarget<U> {
  readonly upstream: U
  /** The path of the upstream's own URL, with which the path of the call began. */
  readonly basePath: string
  /** Path and query after `basePath`. */
  readonly target: string
  readonly host: string
}

/**
 * Finds the upstream of a URL. A URL that belongs to no upstream is refused: plain HTTP to other hosts is not forwarded, and a tunnel
 * leads to one host only.
 */
export function findProxied<U>(
  origins: Origins<U>,
  { url, headers }: { readonly url: string; readonly headers: IncomingHttpHeaders },
  { tunnel }: Proxied,
): ProxiedTarget<U> | Failure {
  if (tunnel === undefined && url.startsWith('/')) {
    const message =
      'this port is a forward proxy, for HTTPS_PROXY and HTTP_PROXY: a base URL is that of the port for clients (server.port)'
    return new Failure('invalid_request', message)
  }
  const named = tunnel && `${tunnel.hostname}:${tunnel.port}`
  const absolute = readAbsoluteTarget(url.startsWith('/') ? `https://${headers.host ?? named}${url}` : url)
  if (isFailure(absolute)) return absolute
  const { hostname, authority, rest } = absolute
  // A Host without a port means the port of the tunnel, whatever is spoken inside.
  const isOfTunnel = tunnel !== undefined && url.startsWith('/') && !/:\d+$/.test(authority)
  const port = isOfTunnel ? tunnel.port : absolute.port
  if (named !== undefined && named !== `${hostname}:${port}`) {
    return new Failure('invalid_request', `the request is for ${authority}, but its tunnel was asked for as ${named}`)
  }
  const found = origins.get(`${hostname}:${port}`)
  if (found === undefined) {
    const message = `${authority} is no upstream's, and plain HTTP to other hosts is not forwarded: use https, which is tunnelled`
    return new Failure('forbidden', message)
  }
  const [path = ''] = rest.split('?', 1)
  const at = found.find(({ basePath }) => path === basePath || path.startsWith(`${basePath}/`))
  if (at === undefined) {
    const places = found.map(({ basePath }) => hostname + basePath).join(', ')
    return new Failure(
      'unknown_upstream',
      `no upstream is at this path of ${hostname}: what is known there is ${places}`,
    )
  }
  const target = rest.slice(at.basePath.length)
  return { ...at, target: target.startsWith('/') ? target : `/${target}`, host: authority }
}
