import { LRUCache } from 'lru-cache'
import type { Clock } from '../time/clock.ts'
import { sizeOf, type Stored } from './entry.ts'
import type { CacheStore, Found } from './store.ts'

/** What each value is estimated to take beside its answer: its key and its place in the map. */
const OVERHEAD_BYTES = 256

interface Value {
  readonly generation: string
  /** Undefined where the value is the generation of a resource. */
  readonly stored: Stored | undefined
  /** When it is no longer found, in milliseconds of `Clock.now`. A generation has no end: Infinity. */
  readonly until: number
}

/** Stores answers in this process, up to `maxBytes` bytes. The least recently used values are dropped first. */
export class MemoryStore implements CacheStore {
  readonly #clock: Clock
  /**
   * Two kinds of value. Under `resource`: its generation, with nothing stored. Under `resource:selector`: an answer, with the
   * generation that it belongs to. If the generation is dropped, the next look-up begins another one, and the answers of the
   * old one are never found again.
   */
  readonly #values: LRUCache<string, Value>
  readonly #onInvalidate: ((resource: string) => void) | undefined
  #generations = 0

  /** `onInvalidate` is called for each resource that a write of this process invalidates. */
  constructor(clock: Clock, maxBytes: number, onInvalidate?: (resource: string) => void) {
    this.#clock = clock
    this.#onInvalidate = onInvalidate
    this.#values = new LRUCache({
      maxSize: maxBytes,
      sizeCalculation: ({ stored }) => OVERHEAD_BYTES + (stored === undefined ? 0 : sizeOf(stored)),
    })
  }

  find(resource: string, selector: string): Found {
    const generation = this.#generationOf(resource)
    const key = `${resource}:${selector}`
    const value = this.#values.get(key)
    if (value === undefined) return { generation, stored: undefined }
    if (value.generation === generation && value.until > this.#clock.now()) return { generation, stored: value.stored }
    this.#values.delete(key)
    return { generation, stored: undefined }
  }

  keep(resource: string, selector: string, generation: string, stored: Stored, keepMs: number): void {
    if (this.#values.peek(resource)?.generation !== generation) return
    this.#values.set(`${resource}:${selector}`, { generation, stored, until: this.#clock.now() + keepMs })
  }

  drop(resource: string, selector: string): void {
    this.#values.delete(`${resource}:${selector}`)
  }

  invalidate(resource: string): void {
    this.forget(resource)
    this.#onInvalidate?.(resource)
  }

  /** Invalidates a resource because of a write of another process. */
  forget(resource: string): void {
    this.#values.delete(resource)
  }

  /** The approximate bytes in use. */
  get bytes(): number {
    return this.#values.calculatedSize
  }

  close(): void {
    this.#values.clear()
  }

  #generationOf(resource: string): string {
    const known = this.#values.get(resource)
    if (known !== undefined) return known.generation
    const generation = String(++this.#generations)
    this.#values.set(resource, { generation, stored: undefined, until: Infinity })
    return generation
  }
}
