import type { RouteRule } from './route.ts'
import type { RouteEntry } from './route-table.ts'

/**
 * Reads a route file. A line is a path and then `METHOD:class` for each method, or `GET,POST:class` for methods that are
 * counted together. `class` is `a`, or `a+b` for calls of class a that are charged to a and b. `=2` behind the class is
 * what a call costs. A "+" at the end says that the vendor calls a retry safe, a "-" that it does not. Empty lines, and
 * lines that begin with "#", are skipped. Throws an Error for what it can't read.
 */
export function parseRouteFile(
  text: string,
  complete: (rule: RouteRule, method: string, path: string) => RouteRule,
): RouteEntry[] {
  const entries: RouteEntry[] = []
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue
    const [path = '', ...operations] = line.split(' ')
    for (const operation of operations) {
      const [, methods = '', classes = '', cost, mark] = OPERATION.exec(operation) ?? []
      if (methods === '') throw new Error(`route file: can't read "${operation}" of ${path}`)
      const charges = classes.split('+')
      const rule: RouteRule = {
        class: charges[0] as string,
        charges,
        ...(cost === undefined ? {} : { cost: Number(cost) }),
        ...(mark === undefined ? {} : { retry: mark === '+' ? 'safe' : 'unsafe' }),
      }
      entries.push({ methods: methods.split(','), path, rule: complete(rule, methods, path) })
    }
  }
  return entries
}

const OPERATION = /^([A-Z]+(?:,[A-Z]+)*):([a-z][a-z\d]*(?:\+[a-z]+)*)(?:=(\d+))?([+-])?$/

/** The numbers (from 0) of the non-empty segments of a pattern that contain one of these parameters. */
export function segmentsNamed(path: string, names: readonly string[]): number[] {
  const segments = path.split('/').filter((segment) => segment !== '')
  return segments.flatMap((segment, index) => (names.some((name) => segment.includes(`{${name}}`)) ? [index] : []))
}
