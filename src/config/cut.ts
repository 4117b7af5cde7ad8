import { type Path, pointer } from './problem.ts'

/** What was cut out of a configuration because it is wrong, so that the rest can be checked. */
export class Cut {
  /** Which items are left of a list, by its place in the file. Without this, later messages would name the wrong items. */
  readonly #left = new Map<string, number[]>()
  /** The places in the file of what was cut out. */
  readonly places = new Set<string>()
  /** The names of upstreams, classes and so on that were cut out, although the file has them. */
  readonly names = new Set<string>()

  /** Removes what these paths lead to. The paths are those of `value` before anything is removed. */
  remove(value: unknown, paths: readonly Path[]): void {
    // Removes the last one first: no index has changed when it is needed.
    const inTurn = new Map(paths.map((path) => [pointer(path), path])).values().toArray().sort(byOrder).toReversed()
    for (const path of inTurn) this.#removeOne(value, path)
  }

  #removeOne(value: unknown, path: Path): void {
    const last = path.at(-1)
    const within = path.slice(0, -1)
    let parent = value
    for (const step of within) {
      if (typeof parent !== 'object' || parent === null) return
      parent = (parent as Record<string, unknown>)[step]
    }
    if (last === undefined || typeof parent !== 'object' || parent === null) return
    this.places.add(pointer(this.inFile(path)))
    if (Array.isArray(parent)) {
      const left = this.#left.getOrInsertComputed(pointer(this.inFile(within)), () => [...parent.keys()])
      left.splice(Number(last), 1)
      parent.splice(Number(last), 1)
    } else {
      if (NAMED.has(within.at(-1))) this.names.add(String(last))
      delete (parent as Record<string, unknown>)[last]
    }
  }

  /** Translates a path in the rest, after the cuts, to the path in the file. */
  inFile(path: Path): Path {
    const found: Path = []
    for (const step of path) found.push(this.#left.get(pointer(found))?.[Number(step)] ?? step)
    return found
  }
}

/** Keys with entries that are named elsewhere in the configuration. */
const NAMED = new Set<string | number | undefined>(
  'upstreams accounts limits list tokenIssuers teams organisations'.split(' '),
)

function byOrder(a: Path, b: Path): number {
  const at = a.findIndex((step, i) => step !== b[i])
  if (at < 0) return a.length - b.length
  const [one, other] = [a[at], b[at]]
  if (typeof one === 'number' && typeof other === 'number') return one - other
  return String(one) < String(other ?? '') ? -1 : 1
}
