import { METHODS } from 'node:http'
import createRouter, { type HTTPMethod } from 'find-my-way'
import type { CachePolicy } from '../cache/policy.ts'
import { completeRoute, type Route, type RouteRule } from './route.ts'

/** A line of the table: one path, for the methods given or for all. */
export interface RouteEntry {
  readonly methods?: readonly string[]
  readonly path: string
  readonly rule: RouteRule
}

/** Decides what no line of the table covers. */
export type Classify = (method: string, path: string) => RouteRule

export interface RouteTableOptions {
  /** Layers of entries; within the same path and method, an earlier layer wins. Across paths the most specific wins. */
  readonly layers: readonly (readonly RouteEntry[])[]
  readonly classify: Classify
  /** How answers of a path are cached whose route says nothing about it. */
  readonly cacheOf?: ((path: string) => CachePolicy | undefined) | undefined
}

/** How many routes are remembered by their path, and how long such a path may be. */
const FOUND_KEPT = 4_096
const FOUND_LENGTH = 256

/** Finds the route of a call by its method and normalized path. */
export class RouteTable {
  readonly #router = createRouter({ ignoreTrailingSlash: true, ignoreDuplicateSlashes: true, maxParamLength: 65_536 })
  readonly #classify: Classify
  readonly #cacheOf: RouteTableOptions['cacheOf']
  /** Routes found lately: half the cost of a call's identification is here otherwise. */
  readonly #found = new Map<string, Route>()

  constructor({ layers, classify, cacheOf }: RouteTableOptions) {
    this.#cacheOf = cacheOf
    this.#classify = classify
    const taken = new Set<string>()
    for (const layer of layers) {
      for (const entry of layer) if (entry.methods !== undefined) this.#add(entry, entry.methods, taken)
      for (const entry of layer) if (entry.methods === undefined) this.#add(entry, METHODS, taken)
    }
  }

  /** The path must come from `normalizePath`; percent-encoding and a slash at its end make no difference. */
  find(method: string, path: string): Route {
    const key = `${method} ${path}`
    const known = this.#found.get(key)
    if (known !== undefined) return known
    const route = this.#withCache(method, path, this.#look(method, path))
    if (key.length > FOUND_LENGTH) return route
    if (this.#found.size >= FOUND_KEPT) this.#found.clear()
    this.#found.set(key, route)
    return route
  }

  #withCache(method: string, path: string, route: Route): Route {
    // A read that changes something must not be left out.
    const isRead = (method === 'GET' || method === 'HEAD') && route.retry === 'safe'
    if (route.cache !== undefined || this.#cacheOf === undefined || !isRead) return route
    return { ...route, cache: this.#cacheOf(path) }
  }

  #look(method: string, path: string): Route {
    // A HEAD is a GET without the body (RFC 9110 §9.3.2): same class, same limits.
    const meant = method === 'HEAD' ? 'GET' : method
    const found = this.#router.find(meant as HTTPMethod, path)
    if (found !== null) return found.store as Route
    return completeRoute(method, { countedAs: `${meant} *`, ...this.#classify(meant, path) })
  }

  #add(entry: RouteEntry, methods: readonly string[], taken: Set<string>): void {
    const pattern = toRouterPattern(entry.path)
    const rule = { countedAs: nameOf(entry), ...entry.rule, pattern: entry.path }
    for (const method of methods) {
      const key = `${method} ${pattern}`
      if (taken.has(key)) continue
      taken.add(key)
      this.#router.on(method as HTTPMethod, pattern, neverCalled, completeRoute(method, rule))
    }
  }
}

/** How a line of the table is named where its calls are counted apart from others. */
function nameOf({ methods, path }: RouteEntry): string {
  return methods === undefined ? path : `${methods.join(',')} ${path}`
}

function neverCalled(): void {}

/**
 * Writes `{name}` as the router does. Names become numbers, so that paths of one shape are one path. To the router a name ends
 * at "/", "-" or "."; before anything else it gets an expression, which ends it.
 */
function toRouterPattern(path: string): string {
  let count = 0
  const literal =
    path
      .replace(/\/{2,}/g, '/')
      .replace(/\/$/, '')
      .replaceAll(':', '::') || '/'
  return literal.replace(/\{[^}]*\}(?=([^/.-])?)/g, (_, next?: string) => `:p${++count}${next ? '(.*?)' : ''}`)
}
