/*
 * src/config/presets: what is known of each vendor: routes, limits, and how to read its answers.
 * It imports only routing and schema: a preset is data, and a configuration can override it.
 * A change here must cite the vendor's page, and hold against its published limits (test/config/presets.test.ts,
 * vendor-limits.test.ts).
 */

import type { CacheRule } from '../../schema/cache-schema.ts'
import type { RouteRule } from '../../routing/route.ts'
import type { Classify, RouteEntry } from '../../routing/route-table.ts'

/** Entries of paths to which clients POST. */
export function posts(paths: readonly string[], rule: RouteRule): RouteEntry[] {
  return paths.map((path) => ({ methods: ['POST'], path, rule }))
}

/** Limits by class, as the config file has them. */
type Limits = Readonly<Record<string, readonly object[]>>

/** Reads that an upstream with `cache: { routes: proposed }` caches, and how. */
export interface CacheProposal {
  /** Matches normalized paths. */
  readonly paths: RegExp
  readonly rule: CacheRule
}

/** What Sluice knows of a vendor. `config` has the shape of an upstream in the config file, which overrides it. */
export interface Preset {
  readonly config: { readonly limits: Limits; readonly [field: string]: unknown }
  /** Other sets of limits that a configuration can choose by `limitSet`, instead of those of `config`. */
  readonly limitSets?: Readonly<Record<string, Limits>>
  /**
   * The path, below the upstream's URL, of a GET that changes nothing and that every valid credential may make: it tells whether a
   * credential is taken.
   */
  readonly harmlessCall?: string
  /** Headers that the vendor wants with it, besides the credential. */
  readonly harmlessHeaders?: Readonly<Record<string, string>>
  /** The operations that are known one by one. */
  routes(): readonly RouteEntry[]
  /** What is worth caching. The first entry that matches a path counts. */
  readonly proposedCache?: readonly CacheProposal[]
  /** Classifies all other operations. Default: by the method. */
  readonly classify?: Classify
  /** A prefix under which the vendor serves every path again. */
  readonly aliasPrefix?: string
  /** The account ids in a path (without query and alias prefix), percent-encoded as they are there. */
  accountsInPath?(path: string): readonly string[]
  /** Whether calls can only be checked against an account whose id is known. */
  readonly needsAccountId?: boolean
  /** The account id that a credential contains; undefined if it contains none. */
  accountInCredential?(credential: string): string | undefined
}
