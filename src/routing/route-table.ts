/*
 * src/routing: from method and path to class, charges and account.
 * It imports only http and schema.
 * A change here must prove that no way to write a path leads around a class, a limit or an account (test/routing, npm
 * run fuzz).
 */

import { LRUCache } from 'lru-cache'
import { METHODS } from '../http/node-http.ts'
import type { CachePolicy } from '../schema/cache-policy.ts'
import { normalizeDecoded, normalizePath } from './path.ts'
import { beginsWith, fits, isAnything, isStatic, PathPattern, type SegmentPattern, segmentsOf } from './path-pattern.ts'
import { classifyByMethod, completeRoute, type Guess, guessedRoute, type Route, type RouteRule } from './route.ts'

/** An entry of the table: one path, for the given methods or for all. */
export interface RouteEntry {
  readonly methods?: readonly string[]
  readonly path: string
  readonly rule: RouteRule
}

/** Classifies a call that no entry matches. */
export type Classify = (method: string, path: string) => Guess

export interface RouteTableOptions {
  /**
   * Layers of entries. The most specific path takes precedence. For the same path an earlier layer does; and within a layer, an entry
   * that names the method.
   */
  readonly layers: readonly (readonly RouteEntry[])[]
  /** Default: by the method. */
  readonly classify?: Classify | undefined
  /** How the answers to reads of a path are cached if its route does not say. */
  readonly cacheOf?: ((path: string) => CachePolicy | undefined) | undefined
}

/** The route of a call, and how it was found. */
export interface Located {
  readonly route: Route
  /** The normalized path by which it was found. */
  readonly path: string
  /** The path for a server that reads escaped slashes in the other way; undefined if there is only one way to read it. */
  readonly otherPath: string | undefined
  /** The class of the call for such a server; undefined if it is the same. */
  readonly otherClass: string | undefined
}

/** How many routes are cached by method and path, and how many characters these may have together. */
const FOUND_KEPT = 4_096
const FOUND_LENGTH = 256

/** Finds the route of a call by its method and path. Takes time in proportion to the length of the path. */
export class RouteTable {
  readonly #root = new Branch()
  readonly #classify: Classify
  readonly #cacheOf: RouteTableOptions['cacheOf']
  /** Recent routes, because most calls go where others went before. */
  readonly #found = new LRUCache<string, Match>({ max: FOUND_KEPT })

  constructor({ layers, classify = classifyByMethod, cacheOf }: RouteTableOptions) {
    this.#cacheOf = cacheOf
    this.#classify = classify
    this.#fill(layers).forEach(() => undefined)
  }

  /** Makes a table in steps, with an entry in each: there may be thousands. */
  static *inSteps({ layers, ...options }: RouteTableOptions): Generator<undefined, RouteTable, undefined> {
    const table = new RouteTable({ ...options, layers: [] })
    yield* table.#fill(layers)
    return table
  }

  /**
   * Finds the route of a path as the client sent it. An escaped slash can be read in two ways: the reading with the
   * more specific entry counts. If both entries are equally specific, the slash stays escaped. If neither reading has an
   * entry, the path is classified with its slashes decoded.
   */
  locate(method: string, sent: string, aliasPrefix: string): Located {
    const path = normalizePath(sent, aliasPrefix)
    const usual = this.#match(method, path)
    const decodedPath = normalizeDecoded(sent, aliasPrefix)
    if (decodedPath === undefined || decodedPath === path)
      return { route: usual.route, path, otherPath: undefined, otherClass: undefined }
    const decoded = this.#match(method, decodedPath)
    const isUsual = usual.rank > decoded.rank || (usual.rank === decoded.rank && usual.rank !== '')
    const [found, other] = isUsual ? [usual, decoded] : [decoded, usual]
    const otherClass = other.route.class === found.route.class ? undefined : other.route.class
    const [foundPath, otherPath] = isUsual ? [path, decodedPath] : [decodedPath, path]
    return { route: found.route, path: foundPath, otherPath, otherClass }
  }

  /** Finds the route of a path that `normalizePath` returned. Escapes, and a slash at the end, make no difference. */
  find(method: string, path: string): Route {
    return this.#match(method, path).route
  }

  #match(method: string, path: string): Match {
    const key = `${method} ${path}`
    const known = this.#found.get(key)
    if (known !== undefined) return known
    const match = this.#withCache(method, path, this.#look(method, path))
    if (key.length > FOUND_LENGTH) return match
    this.#found.set(key, match)
    return match
  }

  #withCache(method: string, path: string, match: Match): Match {
    const { route, rank } = match
    // A read that changes something must not be answered from the cache.
    const isRead = (method === 'GET' || method === 'HEAD') && route.retry === 'safe'
    if (route.cache !== undefined || this.#cacheOf === undefined || !isRead) return match
    return { rank, route: { ...route, cache: this.#cacheOf(path) } }
  }

  #look(method: string, path: string): Match {
    // A HEAD is a GET without the body (RFC 9110 §9.3.2): same class, same limits.
    const meant = method === 'HEAD' ? 'GET' : method
    const found = this.#root.find(segmentsOf(path), 0, meant)
    if (found !== undefined) return found
    return { rank: '', route: guessedRoute(meant, path, this.#classify(meant, path)) }
  }

  *#fill(layers: RouteTableOptions['layers']): Generator<undefined, void, undefined> {
    for (const layer of layers) {
      for (const entry of layer) if (entry.methods !== undefined) yield this.#add(entry, entry.methods)
      for (const entry of layer) if (entry.methods === undefined) yield this.#add(entry, METHODS)
    }
  }

  #add(entry: RouteEntry, methods: readonly string[]): undefined {
    const pattern = new PathPattern(entry.path)
    const rule = { countedAs: nameOf(entry), ...entry.rule, pattern: entry.path }
    this.#root.add(pattern, 0, new Leaf(methods, rankOf(pattern), rule))
  }
}

/** An entry of the table that matches a path. */
interface Match {
  /** How specific the entry is: a greater text is more specific; empty if no entry matched. */
  readonly rank: string
  readonly route: Route
}

/**
 * An entry at the end of its branches. The route of each method is made when a call first needs it: an entry without methods
 * has them all, so 5,000 such entries would be more than 150,000 routes.
 */
class Leaf {
  readonly #methods: readonly string[]
  readonly #rank: string
  readonly #rule: RouteRule
  #matches: Map<string, Match> | undefined

  constructor(methods: readonly string[], rank: string, rule: RouteRule) {
    this.#methods = methods
    this.#rank = rank
    this.#rule = rule
  }

  match(method: string): Match | undefined {
    if (!this.#methods.includes(method)) return undefined
    const make = (): Match => ({ rank: this.#rank, route: completeRoute(method, this.#rule) })
    return (this.#matches ??= new Map()).getOrInsertComputed(method, make)
  }
}

/** A segment of which a part is literal, or the beginning of a rest. */
interface Part {
  readonly pattern: SegmentPattern
  readonly branch: Branch
}

/**
 * The possible continuations of paths that begin alike, for all methods. Each branch is visited at most once for a path,
 * since its depth is fixed. A branch makes its inner branches only when an entry needs them: a table may have thousands.
 */
class Branch {
  #statics: Map<string, Branch> | undefined
  /** Segments of which a part is literal, those with the longest literal parts first. */
  readonly #parts: Part[] = []
  #any: Branch | undefined
  /** Patterns that end with `*` here, in the order of `#parts`. Each of their branches has only an `#end`. */
  readonly #rests: Part[] = []
  /** The entries that end here. The first one that has the method counts. */
  readonly #end: Leaf[] = []

  add(pattern: PathPattern, depth: number, leaf: Leaf): void {
    const { segments, rest } = pattern
    const next = segments[depth]
    if (next !== undefined) this.#branchFor(next).add(pattern, depth + 1, leaf)
    else if (rest === undefined) this.#end.push(leaf)
    else branchOf(this.#rests, rest).#end.push(leaf)
  }

  #branchFor(pattern: SegmentPattern): Branch {
    if (isStatic(pattern))
      return (this.#statics ??= new Map<string, Branch>()).getOrInsertComputed(pattern.texts[0]!, () => new Branch())
    if (isName(pattern)) return (this.#any ??= new Branch())
    return branchOf(this.#parts, pattern)
  }

  find(segments: readonly string[], depth: number, method: string): Match | undefined {
    const segment = segments[depth]
    // The path "/" has no segment that could begin a rest.
    if (segment === undefined)
      return this.#matchHere(method) ?? (depth === 0 ? this.#restFor('', method)?.match : undefined)
    const exact = this.#statics?.get(segment)?.find(segments, depth + 1, method)
    if (exact !== undefined) return exact
    for (const { pattern, branch } of this.#parts) {
      const found = fits(pattern, segment) ? branch.find(segments, depth + 1, method) : undefined
      if (found !== undefined) return found
    }
    const rest = this.#restFor(segment, method)
    if (rest !== undefined && !isAnything(rest.pattern)) return rest.match
    return this.#any?.find(segments, depth + 1, method) ?? rest?.match
  }

  #matchHere(method: string): Match | undefined {
    for (const leaf of this.#end) {
      const match = leaf.match(method)
      if (match !== undefined) return match
    }
    return undefined
  }

  #restFor(segment: string, method: string): { readonly pattern: SegmentPattern; readonly match: Match } | undefined {
    for (const { pattern, branch } of this.#rests) {
      const match = beginsWith(pattern, segment) ? branch.#matchHere(method) : undefined
      if (match !== undefined) return { pattern, match }
    }
    return undefined
  }
}

/** The branch for patterns of this shape. If there is none, adds it where it belongs in the order. */
function branchOf(parts: Part[], pattern: SegmentPattern): Branch {
  const known = parts.find((part) => isSame(part.pattern, pattern))
  if (known !== undefined) return known.branch
  const branch = new Branch()
  parts.push({ pattern, branch })
  parts.sort(byGivenText)
  return branch
}

function isName({ texts }: SegmentPattern): boolean {
  return texts.length === 2 && texts[0] === '' && texts[1] === ''
}

function isSame(a: SegmentPattern, b: SegmentPattern): boolean {
  return a.texts.length === b.texts.length && a.texts.every((text, i) => text === b.texts[i])
}

/** Orders patterns: first by the length of the leading text, then by that of all text. */
function byGivenText(a: Part, b: Part): number {
  const [first, second] = [a.pattern.texts, b.pattern.texts]
  return second[0]!.length - first[0]!.length || second.join('').length - first.join('').length
}

/** Ranks patterns in the order in which `Branch` tries them. */
function rankOf({ segments, rest }: PathPattern): string {
  const ranks = segments.map((pattern) => (isStatic(pattern) ? '4' : isName(pattern) ? '1' : '3')).join('')
  if (rest === undefined) return ranks
  return ranks + (isAnything(rest) ? '0' : '2')
}

/** The name under which limits with `scope: route` count the calls of an entry. */
function nameOf({ methods, path }: RouteEntry): string {
  return methods === undefined ? path : `${methods.join(',')} ${path}`
}
