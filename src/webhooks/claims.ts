import { hash } from 'node:crypto'
import type { Cluster, Redis } from 'ioredis'
import type { Clock } from '../time/clock.ts'

/** How long a claim lasts. Nobody else tells the same thing meanwhile; the gateway that told it renews the claim while it lasts. */
export const CLAIM_MS = 10 * 60_000
/** How long the mark "I see it too" of another gateway lasts: three looks. */
const SEEN_MS = 30_000

/**
 * Which gateway tells what: the first that takes it. With Redis over all gateways; without it, or while it is away, this process
 * alone decides, so that what is told then may be told by each.
 */
export class Claims {
  readonly #clock: Clock
  readonly #shared: { connect(): Redis | Cluster; readonly prefix: string } | undefined
  #redis: (Redis | Cluster) | undefined
  /** Until when this process has claimed what. */
  readonly #own = new Map<string, number>()

  constructor(clock: Clock, shared?: { connect(): Redis | Cluster; readonly prefix: string }) {
    this.#clock = clock
    this.#shared = shared
  }

  /** Connects to Redis if that is shared. False on the call that starts the connection: claim nothing before the next look. */
  open(): boolean {
    if (this.#redis !== undefined || this.#shared === undefined) return true
    this.#redis = this.#shared.connect()
    return false
  }

  /** Whether this gateway is to tell it. */
  async take(name: string): Promise<boolean> {
    const now = this.#clock.now()
    for (const [other, until] of this.#own) if (until <= now) this.#own.delete(other)
    if (this.#own.has(name)) return false
    const answer = await this.#redis?.set(this.#keyOf(name), 1, 'PX', CLAIM_MS, 'NX').catch(() => 'OK' as const)
    if (answer === null) {
      this.#redis?.set(this.#keyOf(name, 'webhook-seen'), 1, 'PX', SEEN_MS).catch(() => undefined)
      return false
    }
    this.#own.set(name, now + CLAIM_MS)
    return true
  }

  /** It still lasts, and this gateway tells it. Always true. */
  renew(name: string): boolean {
    this.#own.set(name, this.#clock.now() + CLAIM_MS)
    this.#redis?.set(this.#keyOf(name), 1, 'PX', CLAIM_MS).catch(() => undefined)
    return true
  }

  /** Whether another gateway sees what this one tells: breakers and failed calls are of each gateway. */
  async isSeenElsewhere(name: string): Promise<boolean> {
    const seen = await this.#redis?.get(this.#keyOf(name, 'webhook-seen')).catch(() => null)
    return typeof seen === 'string'
  }

  /** Gives back what this process has claimed for a webhook: what still lasts is told anew, by whichever gateway takes it first. */
  release(webhook: string): void {
    for (const name of this.#own.keys()) {
      if (!name.startsWith(`${webhook}:`)) continue
      this.#own.delete(name)
      this.#redis?.del(this.#keyOf(name)).catch(() => undefined)
    }
  }

  close(): void {
    this.#redis?.disconnect()
  }

  /** Names of accounts and clients may be long. */
  #keyOf(name: string, sort: 'webhook' | 'webhook-seen' = 'webhook'): string {
    return `${this.#shared?.prefix}:${sort}:${hash('sha256', name)}`
  }
}
