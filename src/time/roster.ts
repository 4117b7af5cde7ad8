/** What a `Roster` writes into its members. Nobody else writes it. */
export interface Member<M> {
  /** Its neighbours; undefined at an end, and for one that is in no roster. */
  before: M | undefined
  after: M | undefined
  isListed: boolean
}

/** Makes a member of what has no such fields. */
export class Entry<Of> implements Member<Entry<Of>> {
  readonly of: Of
  before: Entry<Of> | undefined
  after: Entry<Of> | undefined
  isListed = false

  constructor(of: Of) {
    this.of = of
  }
}

/**
 * A set of what comes and goes with every call, in the order of coming. A member is in one roster at most.
 *
 * A `Set` would keep the calls that are over: V8 links each table of a Set to the one that replaces it. Once such a table is in the old
 * generation, all later ones stay alive with what they hold until the next full collection, so that every call is copied there.
 */
export class Roster<M extends Member<M>> {
  #first: M | undefined
  #last: M | undefined
  #size = 0

  get size(): number {
    return this.#size
  }

  /** Whoever came first; the others by its `after`. */
  get first(): M | undefined {
    return this.#first
  }

  /** Does nothing if it is a member. */
  add(member: M): void {
    if (member.isListed) return
    member.isListed = true
    member.before = this.#last
    if (this.#last === undefined) this.#first = member
    else this.#last.after = member
    this.#last = member
    this.#size++
  }

  /** Does nothing if it is no member. */
  delete(member: M): void {
    if (!member.isListed) return
    const { before, after } = member
    if (before === undefined) this.#first = after
    else before.after = after
    if (after === undefined) this.#last = before
    else after.before = before
    // One that is gone must not lead to others, or it would keep them as a Set does.
    member.before = undefined
    member.after = undefined
    member.isListed = false
    this.#size--
  }

  clear(): void {
    for (const member of this.all()) this.delete(member)
  }

  /** The members there are now. */
  all(): M[] {
    const members: M[] = []
    for (let member = this.#first; member !== undefined; member = member.after) members.push(member)
    return members
  }
}
