/** How many places of a head are remembered. */
const PLACES_KEPT = 64

/**
 * What is known of the names of fields, by their place in a head. Successive heads mostly have the same names in the same places, and
 * comparing two names costs less than looking one up.
 */
export class NamesByPlace<Known> {
  readonly #latest: { readonly name: string; readonly known: Known }[] = []
  readonly #lookUp: (name: string) => Known

  constructor(lookUp: (name: string) => Known) {
    this.#lookUp = lookUp
  }

  at(place: number, name: string): Known {
    let latest = this.#latest[place]
    if (latest?.name === name) return latest.known
    latest = { name, known: this.#lookUp(name) }
    if (place < PLACES_KEPT) this.#latest[place] = latest
    return latest.known
  }
}
