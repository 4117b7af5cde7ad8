import type { Config } from '../schema/schema.ts'
import type { Labels } from './series.ts'

/** How many different names the labels of metrics may have. */
export type LabelBounds = Config['metrics']

export const DEFAULT_BOUNDS: LabelBounds = { maxClients: 100, maxAccounts: 100 }

/** The name of all clients, and of all accounts, beyond the bound. */
export const OTHER = 'other'

/**
 * Names that stand for nobody in particular, so they do not count: a call without a valid key, and all accounts
 * together.
 */
const NO_NAMES = new Set(['unknown', 'anonymous', '*', 'all'])

/**
 * Bounds the number of series. The first clients and accounts that are counted keep their names until the process ends,
 * so that no counter ever decreases. Later ones share the name `other`, so that sums stay true.
 */
export class BoundedLabels {
  readonly #bounds: LabelBounds
  readonly #clients = new Set<string>()
  readonly #accounts = new Set<string>()

  constructor(bounds: LabelBounds) {
    this.#bounds = bounds
  }

  /** How many clients may have names. */
  get maxClients(): number {
    return this.#bounds.maxClients
  }

  /** The labels under which a series with these labels appears. */
  of(labels: Labels): Labels {
    return this.#withClient(this.#withAccount(labels))
  }

  #withAccount(labels: Labels): Labels {
    const { account, upstream } = labels
    if (account === undefined) return labels
    if (isNamed(this.#accounts, account, `${upstream}/${account}`, this.#bounds.maxAccounts)) return labels
    // The name of a credential contains that of its account.
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
