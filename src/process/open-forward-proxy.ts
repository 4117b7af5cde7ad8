import { Authority } from '../forward-proxy/authority.ts'
import { ForwardProxy, type ForwardProxyOptions } from '../forward-proxy/forward-proxy.ts'
import { interceptedHosts } from '../gateway/origins.ts'
import type { Logger } from '../observe/log.ts'
import type { Config } from '../schema/schema.ts'

/**
 * Makes the forward proxy, which does not listen yet. Undefined if none is configured. Throws an `AuthorityError` if its CA can't
 * be used.
 */
export async function openForwardProxy(
  config: Config,
  parts: Omit<ForwardProxyOptions, 'config' | 'server' | 'authority'>,
  logger: Logger,
): Promise<ForwardProxy | undefined> {
  const { forwardProxy, server } = config
  if (forwardProxy === undefined) return undefined
  const hosts = interceptedHosts(config)
  const authority = await Authority.open(forwardProxy.ca, hosts)
  for (const problem of new Set(hosts.map((host) => authority.whyNot(host)))) {
    if (problem !== undefined) logger.warn(problem)
  }
  return new ForwardProxy({ ...parts, config: forwardProxy, server, authority })
}
