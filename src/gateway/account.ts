import type { Preset } from '../config/presets/preset.ts'
import { isSame } from '../schema/difference.ts'
import type { UpstreamConfig } from '../schema/schema.ts'
import { buildCredentialSet } from '../credentials/build-set.ts'
import { EchoGuard } from '../credentials/scrub.ts'
import type { CredentialSet } from '../credentials/credential-set.ts'
import type { Counting } from './counting.ts'
import type { PriceList } from './price-list.ts'
import { type AccountServices, AdmissionPolicies } from './admission-policies.ts'

export interface AccountOptions {
  /** The configuration of its upstream. */
  readonly config: UpstreamConfig
  readonly preset: Preset | undefined
  /** Lower-case names of the headers in which clients may present their key. */
  readonly keyHeaders: ReadonlySet<string>
  /** How limits of its upstream are counted. */
  readonly counting: Counting
  readonly prices: PriceList | undefined
  readonly services: AccountServices
  /** The account of the same name before a reload. */
  readonly previous: Account | undefined
}

/** An account at a vendor: its credential, its limits, and the calls that wait for them. */
export class Account {
  readonly name: string
  readonly id: string | undefined
  /** `upstream/account`. */
  readonly key: string
  readonly credential: CredentialSet | undefined
  /** Undefined if responses are not searched for the credential. */
  readonly echoes: EchoGuard | undefined
  /**
   * Lower-case names of request headers that are removed: those that may hold a key or credential, and the one that names the
   * account.
   */
  readonly droppedNames: ReadonlySet<string>
  readonly admissionPolicies: AdmissionPolicies
  /** The configuration of the credential. After a reload with the same one, the credential is kept. */
  readonly #madeOf: readonly unknown[]
  /** When the upstream last refused a call for rate, by `Clock.now`. */
  throttledAt = -Infinity

  constructor(upstream: string, name: string, options: AccountOptions) {
    const { config, preset, keyHeaders, counting, prices, services, previous } = options
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
    // If the gateway does not know the account's id, the client's header is kept, because only it names the account.
    if (config.accountHeader !== undefined && this.id !== undefined)
      droppedNames.add(config.accountHeader.toLowerCase())
    this.droppedNames = droppedNames
    this.admissionPolicies = new AdmissionPolicies(
      { upstream, account: name, config, counting, prices, services },
      previous?.admissionPolicies,
    )
  }
}
