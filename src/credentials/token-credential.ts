import type { Credential, Unproven } from './credential.ts'
import type { TokenKeeper } from './token-keeper.ts'

/** A token that expires and is renewed, sent as `Authorization: Bearer` (RFC 6750 §2.1). */
export class TokenCredential implements Credential {
  readonly name: string
  readonly headerNames = ['authorization']
  readonly isRenewable = true
  readonly #keeper: TokenKeeper

  constructor(name: string, keeper: TokenKeeper) {
    this.name = name
    this.#keeper = keeper
  }

  get version(): number {
    return this.#keeper.version
  }

  get exposed(): string {
    return this.#keeper.text ?? ''
  }

  ready(): Promise<void> | undefined {
    return this.#keeper.ready()
  }

  addTo({ headers }: Unproven): void {
    headers.push('Authorization', `Bearer ${this.#keeper.text}`)
  }

  refused(status: number, version: number): boolean {
    return status === 401 && this.#keeper.refused(version)
  }
}
