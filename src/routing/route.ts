import type { CachePolicy } from '../schema/cache-policy.ts'

/** What the gateway knows about a call from its method and path alone. */
export interface Route {
  /** The class in which the call waits, is counted and is reported. */
  readonly class: string
  /** The classes whose limits the call is charged to; usually just its own. */
  readonly charges: readonly string[]
  /** Class, charges and whether a credential is added, in one text. Calls with the same text are of one kind. */
  readonly kind: string
  /**
   * The name under which limits with `scope: route` count the call: methods and path of its entry, as `GET,HEAD /x/{id}`,
   * without methods if the entry has all of them.
   */
  readonly countedAs: string
  /** The units that the call is charged by limits with `cost: route`. */
  readonly cost: number
  /** The entry of the upstream's list of prices; undefined for that of its model. */
  readonly price: string | undefined
  /** Whether the call may be sent again after it has reached the upstream. */
  readonly retry: 'safe' | 'unsafe'
  /** The group of its breaker; undefined for the breaker of the upstream. */
  readonly breaker: string | undefined
  /** How the credential is sent: in its own header, as an `Authorization: Bearer`, or not at all. */
  readonly credential: 'inject' | 'bearer' | 'none'
  /** Numbers (from 0) of the non-empty path segments that hold a secret. */
  readonly secretSegments: readonly number[]
  /** The path of the entry that matched, as it is written there; undefined if none did. */
  readonly pattern: string | undefined
  /** How answers to the call are cached. False: never. Undefined: neither the route nor its upstream says. */
  readonly cache: CachePolicy | false | undefined
}

/** The fields of a route that differ from the defaults. */
export type RouteRule = Pick<Route, 'class'> & Partial<Route>

// IANA HTTP Method Registry, columns "safe" and "idempotent".
const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS', 'PROPFIND', 'QUERY', 'REPORT', 'SEARCH', 'TRACE'])
const IDEMPOTENT_METHODS = new Set([
  ...SAFE_METHODS,
  ...'ACL BIND CHECKOUT COPY DELETE LINK MERGE MKACTIVITY MKCALENDAR MKCOL MOVE PROPPATCH PUT REBIND'.split(' '),
  ...'UNBIND UNLINK UNLOCK'.split(' '),
])

export function isSafeMethod(method: string): boolean {
  return SAFE_METHODS.has(method)
}

/** A guess about an unknown endpoint. It may decide the class, but can't say that a retry is safe. */
export type Guess = RouteRule & { readonly retry?: 'unsafe' }

/** Classifies a call by its method alone. */
export function classifyByMethod(method: string): Guess {
  return { class: isSafeMethod(method) ? 'read' : 'write' }
}

/**
 * Last segments of POSTs that only read. Words that may also name a thing that is created, such as `logs` or `preview`,
 * are not among them.
 */
const ONLY_READS = /\/(?:count|describe|explain|filter|find|grep|list|lookup|query|search|validate)(?:[-_]?v\d+)?\/?$/i

/** The route of an unknown endpoint. A POST that is guessed to read may be retried only if its path leaves no doubt. */
export function guessedRoute(method: string, path: string, guess: Guess): Route {
  const isSure = method === 'POST' && (guess.charges ?? [guess.class]).includes('read') && ONLY_READS.test(path)
  return completeRoute(method, { countedAs: `${method} *`, ...(isSure ? { retry: 'safe' } : {}), ...guess })
}

/** Marks a known POST that only reads as safe to retry, unless the rule says otherwise. */
export function withSafeReadingPosts(rule: RouteRule, method: string): RouteRule {
  if (rule.retry !== undefined || method !== 'POST') return rule
  return (rule.charges ?? [rule.class]).includes('read') ? { ...rule, retry: 'safe' } : rule
}

/**
 * Completes a rule with the defaults. A call is safe to retry if its method is idempotent (RFC 9110 §9.2.2). A call with
 * a safe method that is charged as a write is not: it changes state all the same. A POST is safe only where a rule says so.
 */
export function completeRoute(method: string, rule: RouteRule): Route {
  const charges = rule.charges ?? [rule.class]
  const changesByReading = isSafeMethod(method) && charges.includes('write')
  const credential = rule.credential ?? 'inject'
  return {
    class: rule.class,
    charges,
    kind: `${rule.class}:${charges.join('+')}${credential === 'none' ? ':keyless' : ''}`,
    countedAs: rule.countedAs ?? `${method} *`,
    cost: rule.cost ?? 1,
    price: rule.price,
    retry: rule.retry ?? (IDEMPOTENT_METHODS.has(method) && !changesByReading ? 'safe' : 'unsafe'),
    breaker: rule.breaker,
    credential,
    secretSegments: rule.secretSegments ?? [],
    pattern: rule.pattern,
    cache: rule.cache,
  }
}
