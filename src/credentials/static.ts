import { decoded } from '../http/decode.ts'
import { whyNoHeaderValue, whyNoLine } from '../http/fields.ts'
import type { Clock } from '../time/clock.ts'
import type { Route } from '../routing/route.ts'
import type { Credential, Unproven } from './credential.ts'
import { SecretLook } from './secret-look.ts'
import type { Secret } from '../schema/secret.ts'

/** A secret that is sent unchanged. A new value can only come from its source. */
abstract class StaticCredential implements Credential {
  readonly name: string
  readonly isRenewable = false
  abstract readonly headerNames: readonly string[]
  protected readonly value: Secret
  readonly #look: SecretLook

  constructor(name: string, value: Secret, clock: Clock, ...others: readonly Secret[]) {
    this.name = name
    this.value = value
    this.#look = new SecretLook([value, ...others], clock)
  }

  get version(): number {
    return this.value.version
  }

  get exposed(): string {
    return this.value.reveal()
  }

  ready(wasRefused?: boolean): Promise<void> | undefined {
    return wasRefused === true ? this.#look.pending : undefined
  }

  refused(status: number, version: number): boolean {
    return status === 401 && (version !== this.version || this.#look.begin())
  }

  abstract addTo(request: Unproven, route: Route): void
}

/** A secret in a header, perhaps behind a scheme. */
export class HeaderCredential extends StaticCredential {
  readonly headerNames: readonly string[]
  readonly #header: string
  readonly #scheme: string

  constructor(name: string, value: Secret, clock: Clock, header: string, scheme = '') {
    super(name, value, clock)
    this.headerNames = [header.toLowerCase()]
    this.#header = header
    this.#scheme = scheme
    value.whyNot = whyNoHeaderValue
  }

  addTo({ headers }: Unproven, route: Route): void {
    const value = this.value.reveal()
    if (route.credential === 'bearer') headers.push('Authorization', `Bearer ${value}`)
    else headers.push(this.#header, this.#scheme + value)
  }
}

/** User name and password (RFC 7617), in UTF-8. */
export class BasicCredential extends StaticCredential {
  readonly headerNames = ['authorization']
  readonly #username: Secret

  constructor(name: string, password: Secret, clock: Clock, username: Secret) {
    super(name, password, clock, username)
    this.#username = username
    password.whyNot = whyNoLine
    username.whyNot = (text) => (text.includes(':') ? 'the new value holds a ":"' : whyNoLine(text))
  }

  override get version(): number {
    return super.version + this.#username.version
  }

  addTo({ headers }: Unproven): void {
    const pair = Buffer.from(`${this.#username.reveal()}:${this.value.reveal()}`)
    headers.push('Authorization', `Basic ${pair.toString('base64')}`)
  }
}

/** A secret in a parameter of the URL, which is never logged. A parameter of that name from the client is removed. */
export class QueryCredential extends StaticCredential {
  readonly headerNames = []
  readonly #parameter: string

  constructor(name: string, value: Secret, clock: Clock, parameter: string) {
    super(name, value, clock)
    this.#parameter = parameter
    value.whyNot = whyNoLine
  }

  addTo(request: Unproven): void {
    const own = `${this.#parameter}=${encodeURIComponent(this.value.reveal())}`
    const queryAt = request.path.indexOf('?')
    if (queryAt < 0) {
      request.path += `?${own}`
      return
    }
    const kept = request.path
      .slice(queryAt + 1)
      .split('&')
      .filter((pair) => !this.#isOwn(pair))
    request.path = `${request.path.slice(0, queryAt)}?${[...kept, own].join('&')}`
  }

  /** Whether a pair has the name of the parameter, in any encoding: servers decode names, too. */
  #isOwn(pair: string): boolean {
    const [name = ''] = pair.split('=', 1)
    return decoded(name.replaceAll('+', ' ')) === this.#parameter
  }
}
