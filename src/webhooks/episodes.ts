import type { Cause } from '../server/admin/cause.ts'
import type { WebhookEvent } from '../schema/webhook-schema.ts'
import type { Clock, EpochMs } from '../time/clock.ts'
import type { Claims } from './claims.ts'

/** Something that is wrong. It is the same as before if event and `about` are; a higher `level` is worth another message. */
export interface Condition extends Cause {
  readonly event: WebhookEvent
  readonly level: number
}

/** What is to be told. */
export interface Told {
  readonly status: 'firing' | 'resolved'
  readonly key: string
  readonly condition: Condition
  readonly startedAt: EpochMs
  readonly at: EpochMs
}

interface Episode {
  condition: Condition
  readonly since: number
  readonly startedAt: EpochMs
  seenAt: number
  /** When it was told last; undefined until then. */
  toldAt: number | undefined
  level: number
}

/** What is gone for so long is over. Within it, it may come back without another message. */
const CALM_MS = 60_000
/** A rate that is too high for a moment is no forecast. */
const HOLD_MS: Partial<Record<WebhookEvent, number>> = { exhaustion: 120_000 }

/** What is told of what is used, which may not be known while the quota store is away. */
const OF_USAGE: ReadonlySet<WebhookEvent> = new Set(['usage', 'used_up', 'reduced', 'exhaustion'])

export interface EpisodesOptions {
  /** That of the webhook. */
  readonly name: string
  readonly clock: Clock
  readonly claims: Claims
  readonly repeatMs: number
}

/**
 * Decides what one webhook is told: one message when something begins, another one when it gets worse or has lasted for `repeatMs`,
 * and one when it is over. Over all gateways one tells it, as long as `Claims` can be asked; the same one says that it is over,
 * once none of them sees it.
 */
export class Episodes {
  readonly #options: EpisodesOptions
  readonly #episodes = new Map<string, Episode>()

  constructor(options: EpisodesOptions) {
    this.#options = options
  }

  /**
   * Where `isUsageKnown(about)` is false, the episode stays open: that nobody can see the usage does not mean it is over.
   */
  async look(conditions: readonly Condition[], isUsageKnown: (about: string) => boolean = () => true): Promise<Told[]> {
    const { name, clock, claims, repeatMs } = this.#options
    const told: Told[] = []
    const now = clock.now()
    for (const condition of conditions) {
      const key = `${condition.event} ${condition.about}`
      const { level: reached } = condition
      const begun = { condition, since: now, startedAt: clock.wall(), seenAt: now, toldAt: undefined, level: reached }
      const episode = this.#episodes.getOrInsert(key, begun)
      episode.condition = condition
      episode.seenAt = now
      if (now - episode.since < (HOLD_MS[condition.event] ?? 0)) continue
      const { toldAt, level } = episode
      if (toldAt === undefined ? !(await claims.take(`${name}:${key}`)) : !claims.renew(`${name}:${key}`)) continue
      if (toldAt !== undefined && condition.level <= level && now - toldAt < repeatMs) continue
      episode.toldAt = now
      episode.level = Math.max(level, condition.level)
      told.push({ status: 'firing', key, condition, startedAt: episode.startedAt, at: clock.wall() })
    }
    for (const [key, episode] of this.#episodes) {
      const { seenAt, toldAt, condition, startedAt } = episode
      if (seenAt === now) continue
      if (toldAt !== undefined) {
        const isKnown = !OF_USAGE.has(condition.event) || isUsageKnown(condition.about)
        if (isKnown && now - seenAt < CALM_MS) continue
        if (!isKnown || (await claims.isSeenElsewhere(`${name}:${key}`))) {
          episode.seenAt = now
          claims.renew(`${name}:${key}`)
          if (isKnown && now - toldAt >= repeatMs) {
            episode.toldAt = now
            told.push({ status: 'firing', key, condition, startedAt, at: clock.wall() })
          }
          continue
        }
      }
      this.#episodes.delete(key)
      if (toldAt !== undefined) told.push({ status: 'resolved', key, condition, startedAt, at: clock.wall() })
    }
    return told
  }
}
