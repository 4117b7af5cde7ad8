import type { Credential } from '../credentials/credential.ts'
import { joined } from '../http/fields.ts'
import type { Route } from '../routing/route.ts'
import type { Account } from './account.ts'
import type { AdmissionPolicy } from './admission-policies.ts'
import { ruleOf, type Traits } from './charges.ts'
import { type Failure, isFailure } from './failure.ts'

/** A credential that may take a call, and how the call is admitted with it. */
export interface Candidate {
  readonly credential: Credential
  readonly admissionPolicy: AdmissionPolicy
}

/** The credentials of a pool that may take a call, the best first; or why none ever may. */
export function candidatesFor(account: Account, route: Route, traits: Traits): readonly Candidate[] | Failure {
  const { admissionPolicies } = account
  const pool = account.credential!.pool!
  const policies = new Map<string | undefined, AdmissionPolicy | Failure>()
  const policyOf = (credential: string | undefined): AdmissionPolicy | Failure =>
    policies.getOrInsertComputed(credential, () => admissionPolicies.policyFor(route, { ...traits, credential }))
  const endsAt = (member: string): number | undefined => {
    const policy = policyOf(member)
    return isFailure(policy) ? undefined : endOf(policy)
  }
  const candidates: Candidate[] = []
  for (const credential of pool.ranked(sessionOf(account, traits), endsAt)) {
    const admissionPolicy = policyOf(credential.member)
    if (isFailure(admissionPolicy)) return admissionPolicy
    candidates.push({ credential, admissionPolicy })
  }
  return candidates
}

/** The name of the conversation that a call is part of; undefined if it is of none, or the pool does not keep them together. */
export function sessionOf({ credential }: Account, { headers }: Pick<Traits, 'headers'>): string | undefined {
  const affinity = credential?.pool?.affinity
  return affinity && (joined(headers[affinity.header]).trim() || undefined)
}

/** When the longest window ends in which this credential is counted alone, as far as its latest charge told. */
function endOf({ chargeSet: { limits }, watches }: AdmissionPolicy): number | undefined {
  let longest = -1
  for (let i = 0; i < limits.length; i++) {
    const { kind, windowMs } = limits[i]!
    if (kind === 'concurrent' || ruleOf(limits[i]!)?.isOfPool !== true) continue
    if (longest < 0 || windowMs > limits[longest]!.windowMs) longest = i
  }
  return watches[longest]?.endsAt
}
