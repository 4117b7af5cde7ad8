/** The fields of a member. Only its `Roster` writes them. */
export interface Member<M> {
  /** Its neighbours; undefined at an end, and for one that is in no roster. */
  before: M | undefined
  after: M | undefined
  isListed: boolean
}

/** A member that stands for an object without these fields. */
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
 * A set, in the order of adding, for what is added and deleted with every call. A member is in one roster at most.
 *
 * A `Set` would keep the calls that are over: V8 links each table of a Set to the one that replaces it. Once such a table is in the old
 * generation, it keeps all later ones alive, with what they hold, until the next full collection. So every call would be copied to the old
 * generation.
 */
export class Roster<M extends Member<M>> {
  /** The member that was added first. Its `after` leads to the others. */
  first: M | undefined
  #last: M | undefined
  size = 0

  /** Does nothing if the member is in a roster already, even if that is another one. */
  add(member: M): void {
    if (member.isListed) return
    member.isListed = true
    member.before = this.#last
    if (this.#last === undefined) this.first = member
    else this.#last.after = member
    this.#last = member
    this.size++
  }

  /** Does nothing if the member is in no roster. It must not be in another one. */
  delete(member: M): void {
    if (!member.isListed) return
    const { before, after } = member
    if (before === undefined) this.first = after
    else before.after = after
    if (after === undefined) this.#last = before
    else after.before = before
    // A deleted member must not lead to others: it would keep them alive, as a Set does.
    member.before = undefined
    member.after = undefined
    member.isListed = false
    this.size--
  }

  clear(): void {
    for (const member of this.all()) this.delete(member)
  }

  /** A copy of the members in their order, which later changes do not touch. */
  all(): M[] {
    const members: M[] = []
    for (let member = this.first; member !== undefined; member = member.after) members.push(member)
    return members
  }
}
