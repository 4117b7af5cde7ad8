import { presets } from './presets/index.ts'
import type { CredentialConfig, UpstreamConfig } from '../schema/schema.ts'

/**
 * Warns of routes that are marked as cached although almost nothing of them can be: their credential is sent in
 * Authorization, and a shared cache must not store such answers (RFC 9111 §3.5). No warning where the configuration
 * says that this is intended.
 */
export function cacheWarnings(name: string, upstream: UpstreamConfig): string[] {
  const isInAuthorization = Object.values(upstream.accounts).some((account) =>
    [account.credential ?? [], account.credentials ?? []].flat().some((one) => travelsInAuthorization(one, upstream)),
  )
  const { cache: ofAll } = upstream
  const warnings: string[] = []
  const judge = (place: string, rule: object, isConcerned = isInAuthorization): void => {
    const { private: isPrivate } = { ...ofAll, ...rule } as { private?: boolean }
    if (isConcerned && isPrivate === undefined) warnings.push(`upstreams.${name}.${place} ${WARNING}`)
  }
  for (const [index, { cache = false, credential }] of upstream.routes.entries()) {
    const isConcerned = credential === 'bearer' || (credential !== 'none' && isInAuthorization)
    if (cache !== false) judge(`routes[${index}].cache`, cache === true ? {} : cache, isConcerned)
  }
  if (ofAll?.routes === 'proposed') {
    const { proposedCache = [] } = presets[upstream.preset!]!
    if (proposedCache.some(({ rule }) => rule.private === undefined)) judge('cache.routes', {})
  }
  return warnings
}

const WARNING =
  'keeps hardly anything: its credential travels in Authorization, and of such answers only those are kept that say public, s-maxage or must-revalidate; write private: true to keep the others as well, or private: false if that is meant'

function travelsInAuthorization(credential: CredentialConfig, { credentialHeader }: UpstreamConfig): boolean {
  const { type = 'header', header = credentialHeader } = credential
  return type === 'header' ? header.toLowerCase() === 'authorization' : type !== 'query'
}
