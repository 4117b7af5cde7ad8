import { identityOf } from '../credentials/build.ts'
import { scopeOf } from '../schema/limits.ts'
import type { UpstreamConfig } from '../schema/schema.ts'

/** Which accounts of an upstream share limits, and so where the limits are counted. */
export interface Counting {
  /** Whether all accounts use one partition, because a limit counts over several of them. */
  readonly isShared: boolean
  /** For each account, the first account by name that has the same credential. The order in the file may change. */
  readonly credentialOwner: ReadonlyMap<string, string>
  /** The same account for each credential that a limit counts. */
  readonly countedCredentials: ReadonlyMap<string, string>
  /** Accounts with several credentials. A limit by credential counts each of them apart. */
  readonly pools: ReadonlySet<string>
}

/**
 * Charges are all or nothing only within one partition, which is one hash slot. So if a limit spans accounts, the whole upstream is
 * one partition. One Redis node then counts every call to it, and a busy account takes that node's processor time from the others.
 * Without such a limit, each account has a partition of its own.
 */
export function countingOf({ limits, accounts, credentialHeader }: UpstreamConfig): Counting {
  const credentialOwner = new Map<string, string>()
  const owners = new Map<string, string>()
  const pools = new Set<string>()
  let isCredentialShared = false
  for (const name of Object.keys(accounts).toSorted()) {
    const { credential, credentials } = accounts[name]!
    if (credentials !== undefined) pools.add(name)
    if (credential === undefined) continue
    const owner = owners.getOrInsert(identityOf(credential, credentialHeader), name)
    credentialOwner.set(name, owner)
    isCredentialShared ||= owner !== name
  }
  const bases = new Set(Object.values(limits).flatMap((ofClass) => ofClass.map((limit) => scopeOf(limit).base)))
  const isCredentialCounted = bases.has('credential')
  return {
    isShared: bases.has('upstream') || (isCredentialShared && isCredentialCounted),
    credentialOwner,
    countedCredentials: isCredentialCounted ? owners : new Map(),
    pools,
  }
}

/**
 * The upstreams of which limits count from zero after this change: all of them, because they get other partitions, or those by
 * credential, because a credential is known by another account.
 */
export function countedAnew(before: Upstreams, after: Upstreams): string[] {
  return Object.keys(after).filter((name) => {
    const known = before[name]
    if (known === undefined) return false
    const [was, is] = [countingOf(known), countingOf(after[name]!)]
    if (was.isShared !== is.isShared) return true
    return [...was.countedCredentials].some(([one, owner]) => (is.countedCredentials.get(one) ?? owner) !== owner)
  })
}

type Upstreams = Readonly<Record<string, UpstreamConfig>>

export function partitionOf({ isShared }: Counting, upstream: string, account: string): string {
  return isShared ? upstream : `${upstream}/${account}`
}
