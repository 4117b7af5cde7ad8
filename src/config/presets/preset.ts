import type { CacheRule } from '../../schema/cache-schema.ts'
import type { Classify, RouteEntry } from '../../routing/route-table.ts'

/** Limits by class, as the config file has them. */
type Limits = Readonly<Record<string, readonly object[]>>

/** Reads that an upstream with `cache: { routes: proposed }` caches, and how. */
export interface CacheProposal {
  /** Of normalized paths. */
  readonly paths: RegExp
  readonly rule: CacheRule
}

/** What Sluice knows of a vendor. `config` has the shape of an upstream in the config file, which overrides it. */
export interface Preset {
  readonly config: { readonly limits: Limits; readonly [field: string]: unknown }
  /** Other sets of limits that a configuration can choose by `limitSet`, instead of those of `config`. */
  readonly limitSets?: Readonly<Record<string, Limits>>
  /** The operations that are known one by one. */
  routes(): readonly RouteEntry[]
  /** What is worth caching; the first that fits a path counts. */
  readonly proposedCache?: readonly CacheProposal[]
  /** The rule for all others. */
  readonly classify: Classify
  /** A prefix under which the vendor serves every path again. */
  readonly aliasPrefix?: string
  /** The account ids that a path (without query, alias prefix removed) names, percent-encoded as they stand in it. */
  accountsInPath?(path: string): readonly string[]
  /** Whether calls can only be checked against an account whose id is known. */
  readonly needsAccountId?: boolean
  /** The account id that a credential carries inside, if it is of such a form. */
  accountInCredential?(credential: string): string | undefined
}
