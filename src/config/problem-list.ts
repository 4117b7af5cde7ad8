import { Value } from 'typebox/value'
import type { Cut } from './cut.ts'
import { type Path, pointer, type Problem } from './problem.ts'

/**
 * By key, what the key is judged by: keys beside it, or places that begin with "/". If one of these is wrong, it was cut out before the
 * key is judged, and a message about the key would be wrong, too.
 */
const JUDGED_BY = new Map<string | number | undefined, readonly string[]>([
  ['accountHeader', ['credentialHeader']],
  ['name', ['weights']],
  ['id', ['credential', 'credential/value']],
  ['requests', ['amount', 'concurrent']],
  ['window', ['concurrent']],
  ['amount', ['unit']],
  ['unit', ['amount']],
  ['burst', ['pace']],
  ['baseDelay', ['maxDelay']],
  ['pool', ['credentials']],
  ['clientSecret', ['key']],
  ['keyId', ['key']],
  ['algorithm', ['key']],
  ['clientAuth', ['clientSecret']],
  ['oldKeys', ['key']],
  ['token', ['roleId']],
  ['keys', ['tokens', 'certificates']],
  ['host', ['token', 'tokens', '/clients']],
  ['proxyProtocol', ['trustedProxies']],
  ['certificates', ['/server/tls']],
  ['requireClientCertificate', ['clientCa']],
  ['master', ['sentinels']],
  ['sentinelUsername', ['sentinels']],
  ['sentinelPassword', ['sentinels']],
  ['store', ['/store/kind']],
  ['headers', ['/store/regions/longestCall']],
  ['port', ['/server/port', '/admin/port']],
])

/** Keys that may come from the preset of an upstream, or that depend on its classes and routes. */
const BY_PRESET = new Set<string | number | undefined>(
  'url class classes charges concurrency limitSet routes scope'.split(' '),
)
const PRESET = /^\/upstreams\/[^/]+\/preset$/

/** Keys that are judged by the price of an upstream. */
const BY_PRICE = new Set<string | number | undefined>(['amount', 'unit', 'price'])
const PRICE = /^\/upstreams\/[^/]+\/price(\/|$)/

/** The routes of an upstream and their paths. A scope may name a segment of one. */
const ROUTE = /^\/upstreams\/[^/]+\/routes\/\d+(\/path)?$/

/** Problems, at most one for each place. */
export class ProblemList {
  readonly #all: Problem[]
  readonly #raw: unknown
  readonly #cut: Cut
  readonly #places: Set<string>

  /**
   * `unresolved` are all places of the references that `problems` are about. An alias repeats a reference at another place, without
   * another problem.
   */
  constructor(
    { problems, unresolved }: { readonly problems: readonly Problem[]; readonly unresolved: ReadonlySet<string> },
    raw: unknown,
    cut: Cut,
  ) {
    this.#all = [...problems]
    this.#raw = raw
    this.#cut = cut
    this.#places = new Set([...problems.map(({ path }) => pointer(path)), ...unresolved])
  }

  /** All of them but those of a key that is missing because it is misspelt, which is told already. */
  get all(): Problem[] {
    return this.#all.filter(({ path, message }) => {
      const meant = [`did you mean "${path.at(-1)}"?`, `a space is missing behind "${path.at(-1)}:"`]
      const isMisspelt = (other: Problem): boolean =>
        pointer(other.path.slice(0, -1)) === pointer(path.slice(0, -1)) &&
        meant.some((end) => other.message.endsWith(end))
      return !/^the key ".*" is missing/.test(message) || !this.#all.some(isMisspelt)
    })
  }

  add(problem: Problem): void {
    const place = pointer(problem.path)
    for (let i = place.length; i > 0; i = place.lastIndexOf('/', i - 1)) if (this.#places.has(place.slice(0, i))) return
    this.#places.add(place)
    this.#all.push(problem)
  }

  /** Adds a problem that was found after cuts, unless something else that is wrong has caused it. `path` is that in the rest. */
  addUnlessCausedByOthers({ path, message }: Problem): void {
    const problem = { path: this.#cut.inFile(path), message }
    if (!this.#isCausedByOthers(problem)) this.add(problem)
  }

  #isCausedByOthers({ path }: Problem): boolean {
    const [last, list] = [path.at(-1), path.at(-2)]
    const parent = pointer(path.slice(0, -1))
    // A type or kind says which keys belong to it.
    const judges = ['type', 'kind', ...(JUDGED_BY.get(last) ?? [])]
    const places = judges.map((judge) => (judge.startsWith('/') ? judge : `${parent}/${judge}`))
    if (hasBelow(this.#places, pointer(path)) || places.some((place) => this.#isWrong(place))) return true
    if (this.#namesWhatIsGone(textAt(this.#raw, path), String(last))) return true
    if ([last, list].some((key) => BY_PRESET.has(key)) && this.#isPresetGone(path)) return true
    if (list === 'redact' && this.#isWrong(`${pointer(path.slice(0, -2))}/path`)) return true
    if (last === 'scope' && this.#isRouteWrong(path)) return true
    return BY_PRICE.has(last) && [...this.#cut.places].some((place) => PRICE.test(place))
  }

  /** Whether any route of the upstream that the path is in is wrong. */
  #isRouteWrong(path: Path): boolean {
    const upstream = pointer(path.slice(0, 2))
    return [...this.#cut.places, ...this.#places].some((place) => place.startsWith(`${upstream}/`) && ROUTE.test(place))
  }

  /** Whether the preset of the upstream that the path is in was cut out. For a path in no upstream, any preset counts. */
  #isPresetGone(path: Path): boolean {
    const upstream = path[0] === 'upstreams' ? pointer(path.slice(0, 2)) : ''
    return [...this.#cut.places].some((place) => place.startsWith(`${upstream}/`) && PRESET.test(place))
  }

  /** Whether a text names something that was cut out. An account is named as upstream/account. */
  #namesWhatIsGone(...texts: readonly string[]): boolean {
    return texts.some((text) => [text, ...text.split('/')].some((name) => this.#cut.names.has(name)))
  }

  /**
   * Whether a place has a problem, or was cut out, or something below it was. A reference that does not resolve is not cut out, so
   * what is beside it in a mapping can be judged.
   */
  #isWrong(place: string): boolean {
    return this.#places.has(place) || this.#cut.places.has(place) || hasBelow(this.#cut.places, place)
  }
}

function hasBelow(places: ReadonlySet<string>, place: string): boolean {
  for (const one of places) if (one.startsWith(`${place}/`)) return true
  return false
}

function textAt(raw: unknown, path: Path): string {
  const value = Value.Pointer.Get(raw, pointer(path))
  return typeof value === 'string' ? value : ''
}
