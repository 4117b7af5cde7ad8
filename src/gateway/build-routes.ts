import type { Preset } from '../config/presets/preset.ts'
import { accountInPath, type ClaimRules } from '../routing/account.ts'
import { PathPattern } from '../routing/path-pattern.ts'
import { segmentsNamed } from '../routing/route-file.ts'
import { type RouteEntry, RouteTable } from '../routing/route-table.ts'
import { type CachePolicy, cachePolicy } from '../schema/cache-policy.ts'
import type { UpstreamConfig } from '../schema/schema.ts'

/** Builds the routes of an upstream, in many small steps: those of the configuration go before those of its preset. */
export function* buildRoutes(
  config: UpstreamConfig,
  preset: Preset | undefined,
): Generator<undefined, RouteTable, undefined> {
  const configured: RouteEntry[] = []
  for (const route of config.routes) {
    configured.push(entryOf(route, config.cache))
    yield
  }
  return yield* RouteTable.inSteps({
    layers: preset === undefined ? [configured] : [configured, preset.routes()],
    classify: preset?.classify,
    cacheOf: preset && proposedCache(config, preset),
  })
}

function entryOf(route: UpstreamConfig['routes'][number], ofUpstream: UpstreamConfig['cache']): RouteEntry {
  const { method, path, redact, cache, ...rest } = route
  const policy = cache !== undefined && cache !== false && cachePolicy(ofUpstream, cache === true ? undefined : cache)
  const ofCache = cache === undefined ? {} : { cache: policy }
  const rule = { ...rest, ...ofCache, secretSegments: segmentsNamed(path, redact ?? []) }
  return method === undefined ? { path, rule } : { methods: [method].flat(), path, rule }
}

export function isCached({ routes, cache }: UpstreamConfig): boolean {
  return cache?.routes === 'proposed' || routes.some(({ cache = false }) => cache !== false)
}

/** The cache policies that the preset proposes for its routes. What the configuration says for all cached routes wins. */
function proposedCache({ cache }: UpstreamConfig, { proposedCache = [] }: Preset) {
  if (cache?.routes !== 'proposed') return undefined
  const proposals = proposedCache.map(({ paths, rule }) => ({ paths, policy: cachePolicy(rule, cache) }))
  return (path: string): CachePolicy | undefined => proposals.find(({ paths }) => paths.test(path))?.policy
}

export function buildClaims({ accountClaims }: UpstreamConfig, preset: Preset | undefined): ClaimRules {
  const patterns = (accountClaims?.paths ?? []).map((path) => new PathPattern(path))
  return {
    headers: (accountClaims?.headers ?? []).map((name) => name.toLowerCase()),
    query: new Set(accountClaims?.query),
    inPath: (path) => [
      ...(preset?.accountsInPath?.(path) ?? []),
      ...patterns.flatMap((pattern) => accountInPath(pattern, path) ?? []),
    ],
  }
}
