import { Breaker, type BreakerChange, type BreakerOptions, type BreakerState } from './breaker.ts'

export interface BreakersOptions extends Omit<BreakerOptions, 'onChange'> {
  /** Whether each class of calls has a breaker of its own, unless its route names one. */
  readonly isPerClass: boolean
  /** The groups that exist from the start. */
  readonly groups: readonly string[]
  onChange(group: string | undefined, state: BreakerState, change: BreakerChange): void
}

/** The breakers of one upstream: one for all calls to it, and one for each group of routes that has its own. */
export class Breakers {
  readonly #options: BreakersOptions
  readonly #whole: Breaker
  readonly #groups = new Map<string, Breaker>()

  constructor(options: BreakersOptions) {
    this.#options = options
    this.#whole = this.#breakerOf(undefined)
    for (const group of options.groups) this.#group(group)
  }

  /** The groups that existed from the start. */
  get groups(): readonly string[] {
    return this.#options.groups
  }

  /** The breaker of the calls of a route. */
  of({ class: className, breaker }: { class: string; breaker: string | undefined }): Breaker {
    const group = breaker ?? (this.#options.isPerClass ? className : undefined)
    return group === undefined ? this.#whole : this.#group(group)
  }

  /** The breaker of a group, or that of all calls without a group; undefined if there is no such group. */
  named(group: string | undefined): Breaker | undefined {
    return group === undefined ? this.#whole : this.#groups.get(group)
  }

  *all(): Iterable<{ group: string | undefined; breaker: Breaker }> {
    yield { group: undefined, breaker: this.#whole }
    for (const [group, breaker] of this.#groups) yield { group, breaker }
  }

  /** Holds open the breakers that `previous` holds open, so that what was opened by hand stays open over a reload. */
  holdAs(previous: Breakers): void {
    for (const { group, breaker } of previous.all()) if (breaker.isHeld) this.named(group)?.hold()
  }

  #group(group: string): Breaker {
    return this.#groups.getOrInsertComputed(group, () => this.#breakerOf(group))
  }

  #breakerOf(group: string | undefined): Breaker {
    const { onChange, ...options } = this.#options
    return new Breaker({ ...options, onChange: (state, change) => onChange(group, state, change) })
  }
}
