import type { CachePolicy } from '../schema/cache-policy.ts'

/** What the gateway knows about a call from its method and path alone. */
export interface Route {
  /** The class in which it waits, is counted and shown. */
  readonly class: string
  /** The classes whose limits it is charged to; usually just its own. */
  readonly charges: readonly string[]
  /** Class, charges and whether a credential is added, as one text by which calls of one kind are told from others. */
  readonly kind: string
  /**
   * By what its calls are counted apart from others, where a limit wants that: the line of the table, as `GET,HEAD /x/{id}`,
   * without methods if it takes all of them.
   */
  readonly countedAs: string
  /** What it is charged where a limit leaves that to the route. */
  readonly cost: number
  /** Whether it may be repeated after it reached the upstream. */
  readonly retry: 'safe' | 'unsafe'
  /** The breaker that it shares with others, in place of that of the upstream. */
  readonly breaker: string | undefined
  /** How the account's credential travels: in its own header, as an `Authorization: Bearer`, or not at all. */
  readonly credential: 'inject' | 'bearer' | 'none'
  /** Numbers (from 0) of the non-empty path segments that hold a secret. */
  readonly secretSegments: readonly number[]
  /** The path in the table that decided, as it is written there; undefined where a rule did. */
  readonly pattern: string | undefined
  /** How its answers are cached; false where they are not, whatever is proposed; undefined where nothing is said. */
  readonly cache: CachePolicy | false | undefined
}

/** A route of which only the deviations from the defaults are given. */
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

/** What is guessed of an endpoint that is not known. A guess may decide the class, but can't say that a repeat is safe. */
export type Guess = RouteRule & { readonly retry?: 'unsafe' }

/** The class of a call about which only its method is known. */
export function classifyByMethod(method: string): Guess {
  return { class: isSafeMethod(method) ? 'read' : 'write' }
}

/** Last segments by which a POST only ever reads. What may also name a thing that is created, such as `logs` or `preview`, is none. */
const ONLY_READS = /\/(?:count|describe|explain|filter|find|grep|list|lookup|query|search|validate)(?:[-_]?v\d+)?\/?$/i

/** The route of an endpoint that is not known: a POST that is guessed to read may be repeated only if its path leaves no doubt. */
export function guessedRoute(method: string, path: string, guess: Guess): Route {
  const isSure = method === 'POST' && (guess.charges ?? [guess.class]).includes('read') && ONLY_READS.test(path)
  return completeRoute(method, { countedAs: `${method} *`, ...(isSure ? { retry: 'safe' } : {}), ...guess })
}

/** A known POST that only reads is safe to repeat, unless the rule says otherwise. */
export function withSafeReadingPosts(rule: RouteRule, method: string): RouteRule {
  if (rule.retry !== undefined || method !== 'POST') return rule
  return (rule.charges ?? [rule.class]).includes('read') ? { ...rule, retry: 'safe' } : rule
}

/**
 * Fills a rule up. Without a mark a call is safe to repeat if its method is idempotent (RFC 9110 §9.2.2) and it does not
 * change state in spite of a safe method; a POST is safe only where a rule says so.
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
    retry: rule.retry ?? (IDEMPOTENT_METHODS.has(method) && !changesByReading ? 'safe' : 'unsafe'),
    breaker: rule.breaker,
    credential,
    secretSegments: rule.secretSegments ?? [],
    pattern: rule.pattern,
    cache: rule.cache,
  }
}
