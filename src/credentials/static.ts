import { HEADER_VALUE } from '../config/credential-problems.ts'
import type { Route } from '../routing/route.ts'
import type { Credential, Unproven } from './credential.ts'
import type { Secret } from './secret.ts'

/** A secret that is sent as it is, in a header. */
export class HeaderCredential implements Credential {
  readonly name: string
  readonly headerNames: readonly string[]
  readonly #header: string
  readonly #value: Secret
  readonly #scheme: string

  constructor(name: string, header: string, value: Secret, scheme = '') {
    this.name = name
    this.headerNames = [header.toLowerCase()]
    this.#header = header
    this.#value = value
    this.#scheme = scheme
    value.whyNot = whyNoHeaderValue
  }

  addTo({ headers }: Unproven, route: Route): void {
    const value = this.#value.reveal()
    if (route.credential === 'bearer') headers.push('Authorization', `Bearer ${value}`)
    else headers.push(this.#header, this.#scheme + value)
  }
}

/** User name and password (RFC 7617), in UTF-8. */
export class BasicCredential implements Credential {
  readonly name: string
  readonly headerNames = ['authorization']
  readonly #username: string
  readonly #password: Secret

  constructor(name: string, username: string, password: Secret) {
    this.name = name
    this.#username = username
    this.#password = password
  }

  addTo({ headers }: Unproven): void {
    const pair = Buffer.from(`${this.#username}:${this.#password.reveal()}`)
    headers.push('Authorization', `Basic ${pair.toString('base64')}`)
  }
}

/** A parameter of the URL, which the gateway never logs. One that the client sent under that name is left out. */
export class QueryCredential implements Credential {
  readonly name: string
  readonly headerNames = []
  readonly #parameter: string
  readonly #value: Secret

  constructor(name: string, parameter: string, value: Secret) {
    this.name = name
    this.#parameter = parameter
    this.#value = value
  }

  addTo(request: Unproven): void {
    const own = `${this.#parameter}=${encodeURIComponent(this.#value.reveal())}`
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

  /** However it is encoded: servers decode names, too. */
  #isOwn(pair: string): boolean {
    const [name = ''] = pair.split('=', 1)
    try {
      return decodeURIComponent(name.replaceAll('+', ' ')) === this.#parameter
    } catch {
      return name === this.#parameter
    }
  }
}

function whyNoHeaderValue(text: string): string | undefined {
  return HEADER_VALUE.test(text) ? undefined : 'the new value holds a character that no header value may have'
}
