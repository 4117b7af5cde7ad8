import type { Preset } from '../config/presets/preset.ts'
import { isSame } from '../schema/difference.ts'
import type { UpstreamConfig } from '../schema/schema.ts'
import { buildCredentialSet } from '../credentials/build-set.ts'
import { EchoGuard } from '../credentials/scrub.ts'
import type { CredentialSet } from '../credentials/credential-set.ts'
import type { Counting } from './charges.ts'
import { type AccountServices, AdmissionPolicies } from './admission-policies.ts'

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
