import type { Clock } from '../time/clock.ts'
import type { Burn } from '../observe/gauges.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { ClassLabels, CounterSeries } from '../observe/series.ts'
import { allowedOf, type LimitUsage } from '../ledger/ledger.ts'
import type { Limit } from '../ledger/limit.ts'
import { BurnMeter } from './burn.ts'

/** What is worth a line in the log about one limit. */
export interface QuotaNotice extends ClassLabels {
  /** Little is left; the upstream lets through less than is configured; it does no more. */
  readonly kind: 'low' | 'reduced' | 'restored'
  readonly window: string
  readonly limit: number
  /** The part of the limit that may be used now. */
  readonly effective: number
  readonly used: number
}

/**
 * An episode begins when less than the first of these parts is left. It ends when the second is left, and the first was for a while.
 */
const LOW_SHARE = 0.1
const RECOVERED_SHARE = 0.2
/** Episodes of short windows that follow one another this closely are one. */
const LEAST_CALM_MS = 60_000

export interface WatchServices {
  readonly clock: Clock
  readonly metrics: Metrics
  /** Told what is worth a line in the log about a limit. */
  onQuotaNotice?(notice: QuotaNotice): void
}

export interface WatchOptions {
  readonly upstream: string
  /** As metrics name it. */
  readonly account: string
  readonly services: WatchServices
}

/**
 * Tells, once in each episode, that little is left of a limit, or that the upstream lets through less of it than is configured. Also
 * tells, when asked, how fast the limit is spent.
 */
export class LimitWatch {
  readonly #clock: Clock
  readonly #labels: Pick<QuotaNotice, 'upstream' | 'account' | 'class' | 'window' | 'limit'>
  readonly #calmMs: number
  readonly #lowEpisodes: CounterSeries
  readonly #notify: (notice: QuotaNotice) => void
  readonly #meter: BurnMeter
  /** When some of the limit, or all, comes back, as its latest charge told, by `Clock.now`. */
  endsAt: number | undefined
  /** When little was left last; undefined between episodes. */
  #lowAt: number | undefined
  #reducedAt: number | undefined

  constructor(limit: Limit, { upstream, account, services }: WatchOptions) {
    const { clock, metrics, onQuotaNotice } = services
    this.#clock = clock
    this.#labels = { upstream, account, class: limit.class, window: limit.label, limit: limit.requests }
    this.#calmMs = Math.max(LEAST_CALM_MS, limit.windowMs)
    this.#lowEpisodes = metrics.quotaLow.of({ upstream, account, class: limit.class, window: limit.label })
    this.#notify = onQuotaNotice ?? (() => undefined)
    this.#meter = new BurnMeter(limit, () => clock.wall() - clock.now())
  }

  burn(usage: LimitUsage): Burn {
    return this.#meter.burn(this.#clock.now(), usage)
  }

  /**
   * Notes a usage. `id` names the call whose charge told it. Without `id`, such as in a scrape, no episode of little left begins:
   * each process would tell of the same one.
   */
  note(usage: LimitUsage, id?: string): void {
    const now = this.#clock.now()
    this.endsAt = now + usage.resetMs
    this.#meter.note(now, usage)
    const allowed = allowedOf(usage)
    const left = allowed - usage.used
    if (left < LOW_SHARE * allowed) {
      if (this.#lowAt === undefined && id !== undefined) {
        this.#lowEpisodes.increment(id)
        this.#tell('low', usage)
      }
      if (this.#lowAt !== undefined || id !== undefined) this.#lowAt = this.#clock.now()
    } else if (this.#lowAt !== undefined && left >= RECOVERED_SHARE * allowed && this.#isCalmSince(this.#lowAt)) {
      this.#lowAt = undefined
    }
    if (usage.effective !== undefined) {
      if (this.#reducedAt === undefined) this.#tell('reduced', usage)
      this.#reducedAt = this.#clock.now()
    } else if (this.#reducedAt !== undefined && this.#isCalmSince(this.#reducedAt)) {
      this.#reducedAt = undefined
      this.#tell('restored', usage)
    }
  }

  #isCalmSince(time: number): boolean {
    return this.#clock.now() - time >= this.#calmMs
  }

  #tell(kind: QuotaNotice['kind'], usage: LimitUsage): void {
    this.#notify({ kind, ...this.#labels, effective: allowedOf(usage), used: usage.used })
  }
}

/** What the log says of it, and what to do. */
export function sentenceOf({ kind, class: name }: QuotaNotice): string {
  switch (kind) {
    case 'low':
      return 'less than a tenth of a quota is left: see who calls most, before calls have to wait'
    case 'reduced':
      return `the upstream lets through less than is configured, so less is used: find out who calls it without the gateway, or correct limits.${name}`
    case 'restored':
      return 'the upstream lets through as much as is configured again'
  }
}
