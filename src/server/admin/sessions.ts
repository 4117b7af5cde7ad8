import { createHmac, timingSafeEqual } from 'node:crypto'
import type { Clock } from '../../time/clock.ts'
import { digestOf, type Token } from './log-in.ts'

const LASTS_MS = 12 * 3_600_000
const NAME = 'sluice_session'

/**
 * Sessions of the live page. The cookie names the owner of a token and when it expires, and is signed with a key that is
 * derived from that token. So it contains no token, needs no memory, works at every instance with the same tokens, and becomes
 * invalid when its token is removed or gets another value.
 */
export class Sessions {
  readonly #tokens: readonly Token[]
  readonly #clock: Clock

  constructor(tokens: readonly Token[], clock: Clock) {
    this.#tokens = tokens
    this.#clock = clock
  }

  /** The `Set-Cookie` that signs the owner of a token in for twelve hours. */
  begin(label: string): string {
    const token = this.#tokens.find((one) => one.label === label)!
    const text = `${Buffer.from(label).toString('base64url')}.${this.#clock.wall() + LASTS_MS}`
    return cookie(`${text}.${signatureOf(text, token).toString('base64url')}`, LASTS_MS / 1_000)
  }

  /** The `Set-Cookie` that signs out. */
  end(): string {
    return cookie('', 0)
  }

  /** The owner of the session in a `Cookie` header; undefined if there is none, or it has expired. */
  ownerIn(header = ''): string | undefined {
    for (const pair of header.split(';')) {
      const [name, value = ''] = pair.trim().split('=', 2)
      const owner = name === NAME ? this.#ownerOf(value) : undefined
      if (owner !== undefined) return owner
    }
    return undefined
  }

  #ownerOf(value: string): string | undefined {
    const [label = '', until = '', signature = ''] = value.split('.')
    const owner = Buffer.from(label, 'base64url').toString()
    const token = this.#tokens.find((one) => one.label === owner)
    if (token === undefined || !(Number(until) > this.#clock.wall())) return undefined
    const expected = signatureOf(`${label}.${until}`, token)
    const told = Buffer.from(signature, 'base64url')
    return told.length === expected.length && timingSafeEqual(told, expected) ? owner : undefined
  }
}

function signatureOf(text: string, token: Token): Buffer {
  return createHmac('sha256', digestOf(token)).update(`sluice page session\n${text}`).digest()
}

/**
 * Scripts can not use the cookie, and other sites only for a link that somebody follows, such as one of a dashboard: no GET changes
 * anything. It is not `Secure`, because the admin port speaks plain HTTP.
 */
function cookie(value: string, seconds: number): string {
  return `${NAME}=${value}; Path=/; Max-Age=${seconds}; HttpOnly; SameSite=Lax`
}
