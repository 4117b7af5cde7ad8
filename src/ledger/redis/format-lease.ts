import type { Clock, Timer } from '../../time/clock.ts'
import { type Limit, longestWindowMs } from '../limit.ts'

/** How long a release keeps the right to grant after the last of its gateways was heard of. */
export const TERM_MS = 5_000
const RENEW_EVERY_MS = 1_000
/** How soon it is asked for again where Redis has not answered yet. */
const ASK_AGAIN_MS = 250
/** How long Redis remembers the lease: longer than any window in which calls may still be counted. */
const REMEMBERED_MS = 100 * 24 * 3_600_000

export interface FormatLeaseOptions {
  readonly clock: Clock
  readonly format: number
  /** Runs format-lease.lua with its ARGV. Rejects if Redis gives no answer. */
  readonly claim: (args: readonly [number, number, number]) => Promise<readonly number[]>
  /** Called with the other release's format when the lease is denied, and with undefined when it is had after that. */
  readonly onChange: (other: number | undefined) => void
}

/**
 * Lets only gateways of one ledger format grant calls at a time. Each format has keys of its own, so gateways of two formats
 * side by side would grant every quota twice. The format whose gateways were there first keeps the lease as long as one of
 * them is alive. Gateways of another format grant nothing until TERM_MS after the last of these was heard of.
 *
 * The script reads what the format before this one counted (`chargedBefore` in charge/counters.lua). No other format can be
 * read. If gateways of such a format granted calls, limits are not charged until all these calls have left their windows.
 */
export class FormatLease {
  readonly #options: FormatLeaseOptions
  #other: number | undefined
  /** Gateways of a format that can't be read granted calls until then, by the gateway's clock. */
  #unreadable: { readonly format: number; readonly until: number } | undefined
  #timer: Timer | undefined
  #isAnswered = false
  #isClosed = false

  constructor(options: FormatLeaseOptions) {
    this.#options = options
  }

  /** Asks for the lease, and goes on to renew it. Resolves with whether Redis answered: then it is known whether the lease is had. */
  async begin(): Promise<boolean> {
    await this.#renew()
    return this.#isAnswered
  }

  /** Whether gateways of another release hold the lease. */
  get isDenied(): boolean {
    return this.#other !== undefined
  }

  /** Why nothing may be charged to these limits now; undefined if it may. */
  whyBlocked(limits: readonly Limit[]): string | undefined {
    if (this.#other !== undefined) return this.problem
    if (this.#unreadable === undefined) return undefined
    const { format, until } = this.#unreadable
    const now = this.#options.clock.now()
    for (const limit of limits) {
      if (until + longestWindowMs(limit) + limit.inFlightLeaseMs > now)
        return `calls that a release with ledger format ${format} has granted may still be counted`
    }
    return undefined
  }

  /** Why nothing may be charged to any limit; undefined if something may. */
  get problem(): string | undefined {
    const { format } = this.#options
    return this.#other === undefined
      ? undefined
      : `gateways of a release with ledger format ${this.#other} are running; this one (format ${format}) sends nothing until they have ended`
  }

  close(): void {
    this.#isClosed = true
    this.#timer?.cancel()
  }

  async #renew(): Promise<void> {
    const { clock, claim, format, onChange } = this.#options
    try {
      const [holder, before, endedMsAgo = 0] = await claim([format, TERM_MS, REMEMBERED_MS])
      this.#isAnswered = true
      const other = holder === format ? undefined : holder
      if (other === undefined) this.#follows(before, endedMsAgo)
      if (other !== this.#other) {
        this.#other = other
        onChange(other)
      }
    } catch {
      // Charges find out what is wrong with Redis, and say so.
    }
    const inMs = this.#isAnswered ? RENEW_EVERY_MS : ASK_AGAIN_MS
    if (!this.#isClosed) this.#timer = clock.schedule(inMs, () => void this.#renew())
  }

  /** Notes whether the format that had the lease before can be read: the script reads only the one just before this one. */
  #follows(before: number | undefined, endedMsAgo: number): void {
    const isReadable = before === undefined || before === this.#options.format - 1
    this.#unreadable = isReadable ? undefined : { format: before, until: this.#options.clock.now() - endedMsAgo }
  }
}
