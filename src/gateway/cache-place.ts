import { type Entry, valueOf } from '../cache/entry.ts'
import type { Landed } from '../cache/flights.ts'
import { placeOf, variantOf, varyNames } from '../cache/key.ts'
import type { CachePolicy } from '../schema/cache-policy.ts'
import { type CacheStore, KEPT_MS, keepMsOf } from '../cache/store.ts'
import { normalizePath } from '../routing/path.ts'
import { tellsWhoAsks, whoAsks } from '../upstream/who-asks.ts'
import type { Call, Target } from './call.ts'
import { outgoingRequest } from './outgoing.ts'

/**
 * The place in the store of the answer to a read, also if the answer depends on fields of the request (RFC 9111 §4.1). cache/key.ts
 * says what a resource and a selector are, and cache/store.ts what a generation is.
 */
export class CachePlace {
  readonly #call: Call
  readonly #target: Target
  readonly #store: CacheStore
  readonly #resource: string
  readonly #selector: string
  /** The selector of the answer that was looked up last. It differs from `#selector` if there are several answers. */
  #variant: string
  /** The generation of the resource at the time of the look-up; undefined if nothing may be stored. */
  generation: string | undefined
  #outgoing: readonly string[] | undefined

  constructor(call: Call, target: Target, policy: CachePolicy, store: CacheStore) {
    const { upstream, account, client, path, query } = target
    this.#call = call
    this.#target = target
    this.#store = store
    const { resource, selector } = placeOf({
      upstream: upstream.name,
      url: upstream.url.href,
      account,
      client: policy.scope === 'client' ? client.name : undefined,
      normalPath: normalizePath(path, upstream.aliasPrefix),
      target: path + query,
      askers: this.#askers(),
    })
    this.#resource = resource
    this.#selector = selector
    this.#variant = selector
  }

  /** Looks the stored answer up. */
  async find(): Promise<Entry | undefined> {
    let found = await this.#store.find(this.#resource, this.#selector)
    if (found.stored?.kind === 'vary') {
      this.#variant = variantOf(this.#selector, found.stored.names, this.#valueOf)
      found = await this.#store.find(this.#resource, this.#variant)
    }
    this.generation = found.generation
    return found.stored?.kind === 'entry' ? found.stored : undefined
  }

  /** Whether the answer is one of several that depend on fields of the request. */
  get isVarying(): boolean {
    return this.#variant !== this.#selector
  }

  /** The key by which identical reads find one another. */
  get key(): string {
    return `${this.#resource}:${this.#variant}`
  }

  /** The entry for the reads that wait for it, with what tells whether it answers them. */
  landing(entry: Entry): Landed {
    const names = varyNames(valueOf(entry, 'vary'))
    const selector = names === undefined ? this.#selector : variantOf(this.#selector, names, this.#valueOf)
    return { entry, names, selector }
  }

  /** Whether the answer to another call answers this one. */
  isAnswer({ names, selector }: Landed): boolean {
    return names === undefined || variantOf(this.#selector, names, this.#valueOf) === selector
  }

  /** Stores an entry, or drops what is stored if it is of no use. Returns whether it was stored. */
  keep(entry: Entry): boolean {
    const store = this.#store
    const { generation } = this
    const keepMs = keepMsOf(entry, this.#call.clock.now())
    if (generation === undefined || keepMs === 0) {
      this.drop()
      return false
    }
    const { names, selector } = this.landing(entry)
    if (names !== undefined) store.keep(this.#resource, this.#selector, generation, { kind: 'vary', names }, KEPT_MS)
    store.keep(this.#resource, selector, generation, entry, keepMs)
    return true
  }

  drop(): void {
    this.#store.drop(this.#resource, this.#variant)
  }

  /**
   * The client's fields by which the upstream may tell who asks, as they go upstream. Few upstreams name them in Vary. If the
   * account's id is not known, the client's own header chooses the account; and a cookie is somebody's session.
   */
  #askers(): readonly string[] {
    const { account, upstream } = this.#target
    const { accountFields, config } = upstream
    const rules = { accountFields, droppedNames: account.droppedNames, forward: config.forward }
    return tellsWhoAsks(this.#call.request.rawHeaders, rules) ? whoAsks(this.#headers, rules) : NONE
  }

  get #headers(): readonly string[] {
    return (this.#outgoing ??= outgoingRequest(this.#call, this.#target, undefined, undefined).headers)
  }

  /** The value of a field of the request as it goes upstream. The credential is left out: it is the same for all clients. */
  readonly #valueOf = (name: string): string => {
    const { account, route } = this.#target
    const isCredential = account.credential?.headerNames.includes(name) === true
    if (isCredential || (name === 'authorization' && route.credential === 'bearer')) return ''
    const headers = this.#headers
    const values: string[] = []
    for (let i = 0; i < headers.length; i += 2) {
      if (headers[i]!.toLowerCase() === name) values.push(headers[i + 1]!)
    }
    return values.join(', ')
  }
}

const NONE: readonly string[] = []
