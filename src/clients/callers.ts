/*
 * src/clients: who calls (keys, tokens, certificates), and what each may do (scopes, budgets, network access).
 * It imports what .oxlintrc.ts lists, and knows nothing of a call beyond its head.
 * A change here must prove that a wrong, expired or guessed key gets in nowhere (test/clients,
 * test/system/guesses.test.ts).
 */

import type { IncomingHttpHeaders } from 'node:http'
import type { Clock } from '../time/clock.ts'
import type { ClientConfig, ClientScope } from '../schema/client-schema.ts'
import { Budgets, type Hierarchy, type Level } from './budget.ts'
import { type CertificateRule, certificateOf, fitsCertificate } from './certificates.ts'
import { type Client, clientOf } from './client.ts'
import { ConnectionNotes } from './connection-notes.ts'
import { ClientKeys, type Key, keyOf } from './keys.ts'
import type { ManagedClients } from './managed.ts'
import { readKeys } from './presented-keys.ts'
import type { TokenIssuers, Verdict } from './token-issuers.ts'

const CERTIFICATE = Symbol('client of the certificate')

export interface CallersOptions {
  /** Undefined if the configuration has no clients. */
  readonly configured: Readonly<Record<string, ClientConfig>> | undefined
  readonly managed: ManagedClients | undefined
  /** What clients belong to. */
  readonly hierarchy: Hierarchy
  /** Undefined if there are none. */
  readonly issuers: TokenIssuers | undefined
  readonly clock: Clock
}

/** Why a token identifies no client. */
export type TokenRefusal = Exclude<Verdict, { kind: 'valid' }> | { readonly kind: 'nobody'; readonly issuer: string }

interface Index {
  readonly clients: readonly Client[]
  readonly keys: ClientKeys<Client>
  readonly byToken: readonly { readonly client: Client; readonly rules: NonNullable<ClientScope['tokens']> }[]
  readonly byCertificate: readonly { readonly client: Client; readonly rules: readonly CertificateRule[] }[]
  /** The clients that were found before, by the claims of a token. */
  readonly byClaims: WeakMap<object, Client>
  /** The same by the connection of a certificate, and when that expires. */
  readonly byConnection: ConnectionNotes<{ readonly client: Client | undefined; readonly expires: number }>
}

/**
 * Everyone who may call: the clients of the configuration, and those of the admin API as they are now. An index of both
 * is kept and built again when a client of the admin API changes.
 */
export class Callers {
  readonly #options: CallersOptions
  readonly #configured: readonly { config: ClientConfig; client: Client }[]
  /** The teams and organisations, with their budgets. */
  readonly budgets: Budgets
  #index: Index
  #revision: number

  constructor(options: CallersOptions) {
    this.#options = options
    this.budgets = new Budgets(options.hierarchy)
    this.#configured = Object.entries(options.configured ?? {}).map(([name, config]) => {
      return { config, client: clientOf(name, config, this.budgets) }
    })
    this.#revision = options.managed?.revision ?? 0
    this.#index = this.#build()
  }

  /**
   * Whether everyone who can connect may call, because no client was ever described. The configuration allows that on loopback
   * only. False until the clients of the admin API have been read: see `mayBeOpen`.
   */
  get isOpen(): boolean {
    const { configured, managed } = this.#options
    return configured === undefined && (managed === undefined || (managed.isKnown && !managed.isUsed))
  }

  /** Whether it is not known yet if everyone may call. */
  get mayBeOpen(): boolean {
    const { configured, managed } = this.#options
    return configured === undefined && managed?.isKnown === false
  }

  /**
   * The client that a key belongs to. `unknown` if it may belong to a client of the admin API, and those could not be read yet.
   * A key that a connection presents again is not looked up again.
   */
  find(key: string, connection: object): Client | 'expired' | 'unknown' | undefined {
    const { managed } = this.#options
    return this.#current.keys.find(key, connection) ?? (managed?.isKnown === false ? 'unknown' : undefined)
  }

  /** The client that a key belongs to, if this connection was last accepted with that key. Looks up no other key. */
  recall(key: string, connection: object): Client | 'expired' | undefined {
    return this.#current.keys.recall(key, connection)
  }

  /** Every client that may call. */
  get clients(): readonly Client[] {
    return this.#current.clients
  }

  /** The levels that have a budget: all teams and organisations, and the first `most` clients. */
  *levels(most = Infinity): Generator<Level> {
    yield* this.budgets.levels
    let count = 0
    for (const { budget } of this.clients) {
      if (budget === undefined || budget === 'missing-team' || budget.own === undefined) continue
      if (++count > most) return
      yield budget.own
    }
  }

  /** Every key that is in force, and the name of its client. */
  *keys(): Generator<Key & { readonly client: string }> {
    for (const { config, client } of this.#configured) {
      for (const key of config.keys) yield { ...keyOf(key), client: client.name }
    }
    for (const { name, keys } of this.#options.managed?.active ?? []) {
      for (const key of keys) yield { ...key, client: name }
    }
  }

  /** Verifies the tokens in these headers that were not verified yet. Undefined if there is nothing to wait for. */
  check(headers: IncomingHttpHeaders, names: readonly string[]): Promise<unknown> | undefined {
    const { issuers } = this.#options
    if (issuers === undefined) return undefined
    let checks: Promise<void>[] | undefined
    for (const name of names) {
      const value = headers[name]
      for (const key of typeof value === 'string' ? readKeys(value).keys : []) {
        const check = issuers.check(key)
        if (check !== undefined) (checks ??= []).push(check)
      }
    }
    return checks && Promise.all(checks)
  }

  /**
   * The client that a token identifies, or why it identifies none. Undefined if the text is no token of a known issuer. `check`
   * must have ended before.
   */
  findByToken(token: string): Client | TokenRefusal | undefined {
    const verdict = this.#options.issuers?.verdictOf(token)
    if (verdict?.kind !== 'valid') return verdict
    const { byToken, byClaims } = this.#current
    const { issuer, claims } = verdict
    let client = byClaims.get(claims)
    if (client !== undefined) return client
    client = byToken.find(({ rules }) =>
      rules.some((rule) => rule.issuer === issuer && fits(rule.claims, claims)),
    )?.client
    if (client === undefined) return { kind: 'nobody', issuer }
    byClaims.set(claims, client)
    return client
  }

  /** The client that the certificate of a connection identifies. A connection may outlive the certificate it began with. */
  findByCertificate(connection: object): Client | undefined {
    const { byCertificate, byConnection } = this.#current
    if (byCertificate.length === 0) return undefined
    let found = byConnection.get(connection)
    if (found === undefined) {
      const presented = certificateOf(connection)
      const fitting = (rule: CertificateRule): boolean => presented !== undefined && fitsCertificate(rule, presented)
      const client = byCertificate.find(({ rules }) => rules.some(fitting))?.client
      byConnection.set(connection, (found = { client, expires: presented?.expires ?? 0 }))
    }
    return found.expires > this.#options.clock.wall() ? found.client : undefined
  }

  /**
   * Whether a header holds anything that is, was or may be a key or token of a client. Such a value must never go upstream. A token
   * need not be verified for that: the call may have waited for longer than a token is believed.
   */
  isKnown(value: string, connection: object): boolean {
    const { keys } = readKeys(value)
    return [...keys, value.trim()].some(
      (key) => this.find(key, connection) !== undefined || this.#options.issuers?.isClaimed(key) === true,
    )
  }

  get #current(): Index {
    const { managed } = this.#options
    if (managed !== undefined && managed.revision !== this.#revision) {
      this.#revision = managed.revision
      this.#index = this.#build()
    }
    return this.#index
  }

  #build(): Index {
    const { clock, managed } = this.#options
    const keys = new ClientKeys<Client>(clock)
    const byToken: { client: Client; rules: NonNullable<ClientScope['tokens']> }[] = []
    const byCertificate: { client: Client; rules: readonly CertificateRule[] }[] = []
    const clients: Client[] = []
    const addScope = (client: Client, { tokens, certificates }: ClientScope): void => {
      clients.push(client)
      if (tokens !== undefined) byToken.push({ client, rules: tokens })
      if (certificates !== undefined) byCertificate.push({ client, rules: certificates })
    }
    for (const { config, client } of this.#configured) {
      for (const key of config.keys) keys.add(keyOf(key), client)
      addScope(client, config)
    }
    for (const { name, keys: stored, scope } of managed?.active ?? []) {
      const client = clientOf(name, scope, this.budgets)
      for (const key of stored) keys.add(key, client)
      addScope(client, scope)
    }
    return {
      clients,
      keys,
      byToken,
      byCertificate,
      byClaims: new WeakMap(),
      byConnection: new ConnectionNotes(CERTIFICATE),
    }
  }
}

function fits(wanted: Readonly<Record<string, string | readonly string[]>>, claims: object): boolean {
  return Object.entries(wanted).every(([name, value]) => {
    const given = new Set([(claims as Record<string, unknown>)[name]].flat())
    return [value].flat().some((text) => given.has(text))
  })
}
