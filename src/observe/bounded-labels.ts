import type { Labels } from './series.ts'

/** How many names metrics tell apart. */
export interface LabelBounds {
  /** With 0 there is no label `client`. */
  readonly maxClients: number
  /** Of all upstreams together. */
  readonly maxAccounts: number
}

export const DEFAULT_BOUNDS: LabelBounds = { maxClients: 100, maxAccounts: 100 }

/** What clients and accounts are called that come when the names are used up. */
const OTHER = 'other'

/** Not the names of anybody, so they take no place: who had no valid key, and what belongs to all accounts. */
const NO_NAMES = new Set(['unknown', 'anonymous', '*', 'all'])

/**
 * Keeps the number of series bounded. The first clients and accounts that are counted keep their names until the process
 * ends, so that no counter ever goes back; the later ones share the name `other`, and sums stay true.
 */
export class BoundedLabels {
  readonly #bounds: LabelBounds
  readonly #clients = new Set<string>()
  readonly #accounts = new Set<string>()

  constructor(bounds: LabelBounds) {
    this.#bounds = bounds
  }

  /** The labels under which a series of these appears. */
  of(labels: Labels): Labels {
    return this.#withClient(this.#withAccount(labels))
  }

  #withAccount(labels: Labels): Labels {
    const { account, upstream } = labels
    if (account === undefined) return labels
    if (isNamed(this.#accounts, account, `${upstream}/${account}`, this.#bounds.maxAccounts)) return labels
    // A credential has its account in its name.
    const credential = labels['credential'] === undefined ? {} : { credential: OTHER }
    return { ...labels, ...credential, account: OTHER }
  }

  #withClient(labels: Labels): Labels {
    const { client, ...others } = labels
    if (client === undefined) return labels
    if (this.#bounds.maxClients === 0) return others
    if (isNamed(this.#clients, client, client, this.#bounds.maxClients)) return labels
    const key = labels['key'] === undefined ? {} : { key: OTHER }
    return { ...labels, ...key, client: OTHER }
  }
}

function isNamed(names: Set<string>, name: string, key: string, most: number): boolean {
  if (NO_NAMES.has(name) || names.has(key)) return true
  if (names.size >= most) return false
  names.add(key)
  return true
}
