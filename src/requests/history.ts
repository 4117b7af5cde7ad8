/*
 * src/requests: the story of each recent call, by its correlation id, at all instances.
 * It imports what .oxlintrc.ts lists.
 * A change here must prove that its memory is bounded, and that no story contains a secret (test/requests).
 */

import type { Config } from '../schema/schema.ts'
import type { RequestRecord } from './record.ts'

/** The latest calls of one process, a bounded number of bounded size: the oldest make way for the newest. */
export class RequestHistory {
  readonly #bounds: Config['requests']
  /** A ring: it grows to `keep` places, which are then reused. */
  readonly #records: (RequestRecord | undefined)[] = []
  /** Where the oldest is, and how many there are. */
  #first = 0
  #size = 0
  #bytes = 0

  constructor(bounds: Config['requests']) {
    this.#bounds = bounds
  }

  get size(): number {
    return this.#size
  }

  /** The sum of their own estimates. */
  get bytes(): number {
    return this.#bytes
  }

  add(record: RequestRecord): void {
    const { keep, maxBytes } = this.#bounds
    if (record.bytes > maxBytes) return
    while (this.#size > 0 && (this.#size >= keep || this.#bytes + record.bytes > maxBytes)) this.#dropOldest()
    if (keep === 0) return
    this.#records[(this.#first + this.#size) % keep] = record
    this.#size++
    this.#bytes += record.bytes
  }

  /** All of them, the newest first. */
  *newest(): Iterable<RequestRecord> {
    for (let i = this.#size - 1; i >= 0; i--) yield this.#records[(this.#first + i) % this.#bounds.keep]!
  }

  #dropOldest(): void {
    const { bytes } = this.#records[this.#first]!
    this.#records[this.#first] = undefined
    this.#first = (this.#first + 1) % this.#bounds.keep
    this.#size--
    this.#bytes -= bytes
  }
}
