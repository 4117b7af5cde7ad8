/*
 * src/webhooks: tells people, by messages to a URL, when something is wrong, and when it no longer is.
 * It imports server/admin, which knows what is wrong, and what a request needs; it lies on the way of no call.
 * A change here must prove that each thing is told once over all gateways, that a receiver that is slow or away costs nothing but
 * its own messages, and that no secret of a URL is seen (test/webhooks).
 */

import type { LookupFunction } from 'node:net'
import { randomUUID } from 'node:crypto'
import type { AdminParts } from '../server/admin/management.ts'
import { findings, unknownUsage, usageCauses } from '../server/admin/causes.ts'
import { instanceName } from '../observe/log.ts'
import { isSame } from '../schema/difference.ts'
import type { Config } from '../schema/schema.ts'
import type { WebhookConfig } from '../schema/webhook-schema.ts'
import type { Random, Timer } from '../time/clock.ts'
import type { Claims } from './claims.ts'
import type { WebhookCounts } from './counts.ts'
import { Delivery } from './delivery.ts'
import { type Condition, Episodes } from './episodes.ts'
import { messageOf } from './message.ts'

/** How often to look what is wrong. It asks the store about every limit, as a scrape does. */
export const LOOK_EVERY_MS = 10_000

export interface WebhooksOptions extends Pick<AdminParts, 'status' | 'controls' | 'management'> {
  readonly claims: Claims
  readonly counts: WebhookCounts
  readonly random?: Random
  readonly lookup?: LookupFunction | undefined
}

interface Webhook {
  readonly config: WebhookConfig
  readonly access: Config['networkAccess']
  readonly delivery: Delivery
  readonly episodes: Episodes
}

/**
 * The webhooks of the configuration in force, also after a reload. One whose settings have changed begins anew: it is told
 * everything that is wrong then, since what it was told before may have gone elsewhere.
 */
export class Webhooks {
  readonly #options: WebhooksOptions
  readonly #webhooks = new Map<string, Webhook>()
  #timer: Timer | undefined
  #looking: Promise<void> = Promise.resolve()
  #isClosed = false

  constructor(options: WebhooksOptions) {
    this.#options = options
    this.#follow(options.management.config())
    this.#lookLater()
  }

  /** Nothing is told from now on. What is not sent is given up. */
  async close(): Promise<void> {
    this.#isClosed = true
    this.#timer?.cancel()
    await Promise.all([...this.#webhooks.values()].map(({ delivery }) => delivery.close()))
    await this.#looking
    this.#options.claims.close()
  }

  #lookLater(): void {
    const { clock, logger } = this.#options.management
    this.#timer = clock.schedule(LOOK_EVERY_MS, () => {
      this.#looking = this.#look()
        .catch((err: unknown) => logger.error({ err }, 'what webhooks tell could not be found out'))
        .then(() => void (this.#isClosed || this.#lookLater()))
    })
  }

  async #look(): Promise<void> {
    this.#follow(this.#options.management.config())
    if (this.#webhooks.size === 0 || !this.#options.claims.open()) return
    // The calls of this gateway only: each gateway tells of its own.
    const { status, management } = this.#options
    const { causes, limits, budgets } = await findings(this.#options, (question) => status.requests(question))
    const unknown = limits && budgets && unknownUsage(limits, budgets)
    const isUsageKnown = (about: string): boolean => unknown?.has(about) === false
    const instance = instanceName(management.config().log.instance)
    for (const [name, { config, delivery, episodes }] of this.#webhooks) {
      // What is claimed now would not be sent, and no other gateway would tell it.
      if (this.#isClosed) return
      const conditions: Condition[] = []
      for (const cause of [...causes, ...usageCauses(limits ?? [], budgets ?? [], config.thresholds)]) {
        const { event } = cause
        if (event !== undefined && config.events.includes(event)) conditions.push({ level: 0, ...cause, event })
      }
      for (const told of await episodes.look(conditions, isUsageKnown)) {
        const ids = { webhook: name, id: randomUUID(), instance }
        delivery.add(messageOf(told, ids, config.runbook))
      }
    }
  }

  #follow({ webhooks, networkAccess }: Config): void {
    const { management, claims, counts, random = Math.random, lookup } = this.#options
    for (const [name, { config, access, delivery }] of this.#webhooks) {
      if (isSame([webhooks[name], networkAccess], [config, access])) continue
      this.#webhooks.delete(name)
      claims.release(name)
      void delivery.close()
    }
    const { clock, logger } = management
    for (const [name, config] of Object.entries(webhooks)) {
      if (this.#webhooks.has(name)) continue
      const about = { name, config, access: networkAccess }
      const delivery = new Delivery({ ...about, clock, logger, random, lookup, counts })
      const episodes = new Episodes({ name, clock, claims, repeatMs: config.repeat })
      this.#webhooks.set(name, { config, access: networkAccess, delivery, episodes })
      claims.open()
    }
  }
}
