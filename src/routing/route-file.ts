import type { RouteRule } from './route.ts'
import type { RouteEntry } from './route-table.ts'

/**
 * Reads a route file. A line is a path and then `METHOD:class` for each method. `class` is `a`, or `a+b` for class a
 * that is charged to both. A "+" behind it says that the vendor calls a retry safe, a "-" that it does not.
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
      const [, method = '', classes = '', mark] = /^([A-Z]+):([a-z]+(?:\+[a-z]+)*)([+-])?$/.exec(operation) ?? []
      if (method === '') throw new Error(`route file: can't read "${operation}" of ${path}`)
      const charges = classes.split('+')
      const rule: RouteRule = {
        class: charges[0] as string,
        charges,
        ...(mark === undefined ? {} : { retry: mark === '+' ? 'safe' : 'unsafe' }),
      }
      entries.push({ methods: [method], path, rule: complete(rule, method, path) })
    }
  }
  return entries
}

/** The numbers of the segments of a pattern that contain one of these parameters. */
export function segmentsNamed(path: string, names: readonly string[]): number[] {
  const segments = path.split('/').filter((segment) => segment !== '')
  return segments.flatMap((segment, index) => (names.some((name) => segment.includes(`{${name}}`)) ? [index] : []))
}
