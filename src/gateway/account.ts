import type { Preset } from '../config/presets/preset.ts'
import { isSame } from '../schema/difference.ts'
import type { UpstreamConfig } from '../schema/schema.ts'
import type { CredentialServices } from '../credentials/build.ts'
import { buildCredentialSet } from '../credentials/build-set.ts'
import { EchoGuard } from '../credentials/scrub.ts'
import type { CredentialSet } from '../credentials/credential-set.ts'
import type { ClassMetrics, Spending } from '../observe/call-metrics.ts'
import type { ClassLabels } from '../observe/series.ts'
import type { Ledger, ChargeSet } from '../ledger/ledger.ts'
import type { QueueCapacity } from '../queue/capacity.ts'
import type { AdmissionQueue } from '../queue/admission-queue.ts'
import type { Counting } from './charges.ts'
import { AdmissionPolicies } from './admission-policies.ts'
import type { LimitWatch, QuotaNotice } from './limit-watch.ts'

/** What the program provides to every account. */
export interface AccountServices extends CredentialServices {
  readonly ledger: Ledger
  /** Told what is worth a line in the log about a limit. */
  onQuotaNotice?(notice: QuotaNotice): void
  /** How many calls may wait in the whole process. */
  readonly queueCapacity?: QueueCapacity
}

export interface AccountOptions {
  /** Of its upstream. */
  readonly config: UpstreamConfig
  readonly preset: Preset | undefined
  /** Lower-case names of the headers in which clients may present their key. */
  readonly keyHeaders: ReadonlySet<string>
  /** Of its upstream. */
  readonly counting: Counting
  readonly services: AccountServices
  /** Of the account of that name before a reload. */
  readonly previous: Account | undefined
}

/** One account at a vendor: its credential, its quotas, and those who wait for them. */
export class Account {
  readonly name: string
  readonly id: string | undefined
  /** `upstream/account`. */
  readonly key: string
  readonly credential: CredentialSet | undefined
  /** Undefined where nothing is to be looked for in responses. */
  readonly echoes: EchoGuard | undefined
  /** Lower-case names of the headers that never go upstream as a client sent them: those of keys, and the account's. */
  readonly droppedNames: ReadonlySet<string>
  readonly admissionPolicies: AdmissionPolicies
  /** What the credential was made of. */
  readonly #madeOf: readonly unknown[]
  /** When the upstream last refused a call because there were too many. */
  throttledAt = -Infinity

  constructor(upstream: string, name: string, options: AccountOptions) {
    const { config, preset, keyHeaders, counting, services, previous } = options
    const { id, credential, credentials, pool } = config.accounts[name] ?? {}
    this.name = name
    this.key = `${upstream}/${name}`
    this.id = id ?? (credential?.value && preset?.accountInCredential?.(credential.value.reveal()))
    this.#madeOf = [credential, credentials, pool, config.credentialHeader, config.url]
    const host = config.url === undefined ? '' : new URL(config.url).host
    const place = { upstream, account: name, header: config.credentialHeader, host }
    this.credential =
      previous !== undefined && isSame(previous.#madeOf, this.#madeOf)
        ? previous.credential
        : buildCredentialSet(place, config.accounts[name] ?? {}, services)
    this.echoes =
      this.credential === undefined || !config.scrub
        ? undefined
        : new EchoGuard({ upstream, account: name, ...services })
    const droppedNames = new Set([...keyHeaders, ...(this.credential?.headerNames ?? [])])
    // An account without a known id leaves it to the client to name it.
    if (config.accountHeader !== undefined && this.id !== undefined)
      droppedNames.add(config.accountHeader.toLowerCase())
    this.droppedNames = droppedNames
    this.admissionPolicies = new AdmissionPolicies(
      { upstream, account: name, config, counting, services },
      previous?.admissionPolicies,
    )
  }
}

/** Where calls of one kind and account are admitted: what they are charged to, and where they wait. */
export interface AdmissionPolicy {
  readonly chargeSet: ChargeSet
  readonly queue: AdmissionQueue
  readonly labels: ClassLabels
  readonly metrics: ClassMetrics
  /** Of the charge set's limits, in their order; of those that are the gateway's own there is none. */
  readonly watches: readonly (LimitWatch | undefined)[]
  readonly spending: Spending
}
