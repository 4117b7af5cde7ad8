import type { IncomingHttpHeaders } from 'node:http'
import { decoded } from '../http/decode.ts'
import { membersOf } from '../http/fields.ts'
import { type PathPattern, segmentsOf } from './path-pattern.ts'

/** Where calls to an upstream may name their account. */
export interface ClaimRules {
  /** Lower-case header names. */
  readonly headers: readonly string[]
  readonly query: ReadonlySet<string>
  /** The account ids that a normalized path names, percent-encoded. */
  inPath(path: string): readonly string[]
}

/** An account id that a call contains, and where. */
export interface Claim {
  /** For messages: `query parameter accountIdentifier`. */
  readonly place: string
  readonly id: string
}

/**
 * Collects every account claim of a call. `paths` are all ways in which a server may read the path of the call. An empty
 * id is no claim. A parameter that is given twice makes two claims.
 */
export function collectClaims(
  rules: ClaimRules,
  paths: readonly string[],
  query: string,
  headers: IncomingHttpHeaders,
): Claim[] {
  const claims: Claim[] = []
  for (const name of rules.headers) {
    const value = Object.hasOwn(headers, name) ? headers[name] : undefined
    if (value === undefined) continue
    // Nobody knows which of several values the upstream uses, so each is a claim.
    for (const id of membersOf(value)) if (id !== '') claims.push({ place: `header ${name}`, id })
  }
  for (const path of paths) for (const id of rules.inPath(path)) claims.push({ place: 'path', id: decoded(id) })
  if (query !== '') collectFromQuery(rules.query, query, claims)
  return claims
}

function collectFromQuery(names: ReadonlySet<string>, query: string, claims: Claim[]): void {
  if (names.size === 0) return
  let equals = -1
  for (let start = 0; start < query.length;) {
    const ampersand = query.indexOf('&', start)
    const end = ampersand < 0 ? query.length : ampersand
    // Searched once for all parameters: otherwise many parameters without "=" would take quadratic time.
    if (equals < start) equals = query.indexOf('=', start)
    if (equals < 0) return
    if (equals > start && equals < end - 1) {
      const name = decodeQuery(query.slice(start, equals))
      if (names.has(name))
        claims.push({ place: `query parameter ${name}`, id: decodeQuery(query.slice(equals + 1, end)) })
    }
    start = end + 1
  }
}

function decodeQuery(text: string): string {
  return decoded(text.includes('+') ? text.replaceAll('+', ' ') : text)
}

/**
 * Finds the account id in a path, by a pattern such as `/repos/{account}/*`. Any other `{…}` stands for one segment.
 */
export function accountInPath(pattern: PathPattern, path: string): string | undefined {
  return pattern.textOf('account', segmentsOf(path))
}

/** An account that a call may turn out to mean. */
export interface Candidate {
  readonly name: string
  /** The vendor's id of the account; undefined if it is not known. */
  readonly id: string | undefined
}

export type AccountChoice<A extends Candidate> =
  | { readonly kind: 'chosen'; readonly account: A }
  | { readonly kind: 'unknown'; readonly wanted: string }
  | { readonly kind: 'forbidden'; readonly wanted: string }
  /** The call names an account that the client may not use or that does not exist. */
  | { readonly kind: 'unknown_claim'; readonly claim: Claim }
  | { readonly kind: 'undecided' }
  | { readonly kind: 'conflict'; readonly claim: Claim; readonly account: A }

/**
 * Chooses the account of a call: the one that it asks for by name, else the only one that its client may use, else the
 * one that its claims name. In each case all claims must agree with it, so that no call reaches one account with the
 * credential of another. If the id of the chosen account is not known, its claims can't be compared and are accepted.
 */
export function chooseAccount<A extends Candidate>(
  accounts: ReadonlyMap<string, A>,
  isAllowed: (account: A) => boolean,
  wanted: string | undefined,
  claims: readonly Claim[],
): AccountChoice<A> {
  const account = wanted === undefined ? chooseByClaims(accounts, isAllowed, claims) : accounts.get(wanted)
  if (account === undefined) {
    if (wanted !== undefined) return { kind: 'unknown', wanted }
    const usable = [...accounts.values()].filter(isAllowed)
    // If the id of a usable account is not known, the claims may mean that account.
    const isNobodys = usable.length > 0 && usable.every(({ id }) => id !== undefined)
    return isNobodys && claims.length > 0 ? { kind: 'unknown_claim', claim: claims[0]! } : { kind: 'undecided' }
  }
  if (!isAllowed(account)) return { kind: 'forbidden', wanted: account.name }
  if (account.id !== undefined) {
    for (const claim of claims) if (claim.id !== account.id) return { kind: 'conflict', claim, account }
  }
  return { kind: 'chosen', account }
}

function chooseByClaims<A extends Candidate>(
  accounts: ReadonlyMap<string, A>,
  isAllowed: (account: A) => boolean,
  claims: readonly Claim[],
): A | undefined {
  let only: A | undefined
  let count = 0
  for (const account of accounts.values()) {
    if (!isAllowed(account)) continue
    if (claims.length > 0 && account.id === claims[0]!.id) return account
    only = account
    count++
  }
  return count === 1 ? only : undefined
}
