import { normalHost } from '../clients/network-access.ts'
import { withoutBrackets } from '../net/address.ts'
import type { Config } from '../schema/schema.ts'

interface Located {
  readonly url: URL
  readonly basePath: string
  readonly config: { readonly hosts: readonly string[] }
}

/** An upstream at a host, and the path of its URL. Calls below that path are its own. */
export interface AtOrigin<U> {
  readonly upstream: U
  readonly basePath: string
}

/** Upstreams by `host:port`, of their URLs and of the names that they own; those with the longest path first. */
export type Origins<U> = ReadonlyMap<string, readonly AtOrigin<U>[]>

/** Builds them. A request in plain HTTP for a vendor's host means the same upstream as one over TLS. */
export function originsOf<U extends Located>(upstreams: Iterable<U>): Origins<U> {
  const origins = new Map<string, AtOrigin<U>[]>()
  const add = (host: string, port: number | string, at: AtOrigin<U>): void => {
    const known = origins.getOrInsertComputed(`${normalHost(host)}:${port}`, () => [])
    if (!known.some(({ basePath }) => basePath === at.basePath)) known.push(at)
  }
  for (const upstream of upstreams) {
    const { url, basePath, config } = upstream
    for (const host of config.hosts) for (const port of [443, 80]) add(host, port, { upstream, basePath: '' })
    add(url.hostname, url.port || (url.protocol === 'https:' ? 443 : 80), { upstream, basePath })
    if (url.protocol === 'https:' && url.port === '') add(url.hostname, 80, { upstream, basePath })
  }
  for (const at of origins.values()) at.sort((a, b) => b.basePath.length - a.basePath.length)
  return origins
}

/**
 * The hosts for which the local CA is to be good: every one that a client may ask for over TLS. An IPv6 address is without its
 * brackets.
 */
export function interceptedHosts({ upstreams }: Config): string[] {
  const hosts = new Set<string>()
  for (const { url, hosts: owned } of Object.values(upstreams)) {
    if (url?.startsWith('https:') === true) hosts.add(normalHost(new URL(url).hostname))
    for (const host of owned) hosts.add(normalHost(host))
  }
  return [...hosts].map(withoutBrackets).sort()
}
