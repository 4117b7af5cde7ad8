import type { Answer, Found, SecretSource } from './source.ts'
import { type MasterKeys, type Sealed, SealError } from './master-keys.ts'
import type { Records } from '../records/records.ts'

export interface SecretVersion {
  readonly sealed: Sealed
  /** Times are in milliseconds since 1970. */
  readonly createdAt: number
  readonly expiresAt?: number
  /** When an upstream refused it, while it was the next value. */
  readonly refusedAt?: number
}

/** A stored secret and, during a rotation, its next value. */
export interface SecretRecord {
  readonly current: SecretVersion
  readonly next?: SecretVersion
}

/** All that is known of a stored secret except its value. */
export interface ListedSecret {
  readonly name: string
  /** During a rotation the next version gets only its share of the calls. */
  readonly version: 'current' | 'next'
  /** The id of the master key that encrypts it. */
  readonly key: string
  readonly createdAt: number
  readonly expiresAt: number | undefined
  readonly isRefused: boolean
}

/** An upstream refused the next value. */
export class RefusedSecretError extends Error {
  readonly refusedAt: number

  constructor(refusedAt: number) {
    super('an upstream refused the new value')
    this.refusedAt = refusedAt
  }
}

/** There is no such secret, or no rotation of it. */
export class NoSuchSecretError extends Error {}

/** The store of encrypted secrets: the source of `${secret:name}`, and what `sluice credentials` changes. */
export class SecretStore implements SecretSource {
  readonly #records: Records<SecretRecord>
  readonly #keys: MasterKeys

  constructor(records: Records<SecretRecord>, keys: MasterKeys) {
    this.#records = records
    this.#keys = keys
  }

  async read(names: readonly string[]): Promise<ReadonlyMap<string, Answer>> {
    try {
      const records = await this.#records.read()
      return new Map(names.map((name) => [name, this.#answer(name, records.get(name))]))
    } catch (error) {
      const problem = `the secret store can't be read: ${(error as Error).message}`
      return new Map(names.map((name) => [name, { problem }]))
    }
  }

  watch(_: readonly string[], onChange: () => void): void {
    this.#records.watch(onChange)
  }

  async close(): Promise<void> {
    await this.#records.close()
  }

  async list(): Promise<ListedSecret[]> {
    const listed: ListedSecret[] = []
    for (const [name, record] of (await this.#records.read()).entries()) {
      for (const version of ['current', 'next'] as const) {
        const one = record[version]
        if (one === undefined) continue
        const { sealed, createdAt, expiresAt, refusedAt } = one
        listed.push({ name, version, key: sealed.key, createdAt, expiresAt, isRefused: refusedAt !== undefined })
      }
    }
    return listed.toSorted((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))
  }

  /** Sets the value for all calls. */
  set(name: string, value: string, expiresAt: number | undefined): Promise<void> {
    const current = this.#seal(name, value, expiresAt)
    return this.#records.change(name, () => ({ current }))
  }

  /** Begins a rotation to this value. */
  rotate(name: string, value: string, expiresAt: number | undefined): Promise<void> {
    const next = this.#seal(name, value, expiresAt)
    return this.#change(name, ({ current }) => ({ current, next }))
  }

  /**
   * Ends a rotation: the next value replaces the current one. Throws a `RefusedSecretError`, and changes nothing, if an
   * upstream has refused the next value, unless `isForced`.
   */
  finish(name: string, { isForced = false } = {}): Promise<void> {
    return this.#change(name, ({ next }) => {
      const { refusedAt, ...current } = rotating(name, next)
      if (refusedAt !== undefined && !isForced) throw new RefusedSecretError(refusedAt)
      return { current }
    })
  }

  async noteRefused(name: string, value: string): Promise<void> {
    try {
      await this.#change(name, (record) => {
        const { next } = record
        if (next === undefined || next.refusedAt !== undefined) return record
        if (this.#keys.open(name, next.sealed) !== value) return record
        return { ...record, next: { ...next, refusedAt: Date.now() } }
      })
    } catch {
      // The refusal is in the log and the metrics, even if it can't be stored.
    }
  }

  /** Ends a rotation: the next value is forgotten. */
  cancel(name: string): Promise<void> {
    return this.#change(name, ({ current, next }) => {
      rotating(name, next)
      return { current }
    })
  }

  remove(name: string): Promise<void> {
    return this.#change(name, () => undefined)
  }

  /** Encrypts everything with the first master key. Returns how many secrets were encrypted with another one. */
  async rekey(): Promise<number> {
    let count = 0
    for (const [name, { current, next }] of await this.#records.read()) {
      if (current.sealed.key === this.#keys.first && (next ?? current).sealed.key === this.#keys.first) continue
      count++
      await this.#change(name, (record) => ({
        current: this.#sealAnew(name, record.current),
        ...(record.next === undefined ? {} : { next: this.#sealAnew(name, record.next) }),
      }))
    }
    return count
  }

  #answer(name: string, record: SecretRecord | undefined): Answer {
    if (record === undefined) return { problem: `there is no secret ${name} in the store` }
    try {
      const { current, next } = record
      const found: Found = {
        text: this.#keys.open(name, current.sealed),
        ...(next === undefined ? {} : { next: this.#keys.open(name, next.sealed) }),
        ...(current.expiresAt === undefined ? {} : { expiresAt: current.expiresAt }),
        ...(next?.expiresAt === undefined ? {} : { nextExpiresAt: next.expiresAt }),
      }
      return found
    } catch (error) {
      if (!(error instanceof SealError)) throw error
      return { problem: `the secret ${name} ${error.message}` }
    }
  }

  #change(name: string, change: (record: SecretRecord) => SecretRecord | undefined): Promise<void> {
    return this.#records.change(name, (record) => {
      if (record === undefined) throw new NoSuchSecretError(`there is no secret ${name} in the store`)
      return change(record)
    })
  }

  #seal(name: string, value: string, expiresAt: number | undefined): SecretVersion {
    const sealed = this.#keys.seal(name, value)
    return { sealed, createdAt: Date.now(), ...(expiresAt === undefined ? {} : { expiresAt }) }
  }

  #sealAnew(name: string, { sealed, ...version }: SecretVersion): SecretVersion {
    return { ...version, sealed: this.#keys.seal(name, this.#keys.open(name, sealed)) }
  }
}

function rotating(name: string, next: SecretVersion | undefined): SecretVersion {
  if (next === undefined) throw new NoSuchSecretError(`the secret ${name} is not being rotated`)
  return next
}
