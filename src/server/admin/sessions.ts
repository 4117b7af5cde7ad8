import { createHmac, timingSafeEqual } from 'node:crypto'
import type { Clock } from '../../time/clock.ts'
import type { Token } from './log-in.ts'

const LASTS_MS = 12 * 3_600_000
const NAME = 'sluice_session'

/**
 * Who is signed in to the live page. The cookie says whose token it was and until when, and is signed with a key made of that
 * token. So it holds no token, needs no memory, is good at every instance with the same tokens, and ends with its token.
 */
export class Sessions {
  readonly #tokens: readonly Token[]
  readonly #clock: Clock

  constructor(tokens: readonly Token[], clock: Clock) {
    this.#tokens = tokens
    this.#clock = clock
  }

  /** The `Set-Cookie` that signs in the owner of a token, for twelve hours. */
  begin(label: string): string {
    const token = this.#tokens.find((one) => one.label === label)!
    const text = `${Buffer.from(label).toString('base64url')}.${this.#clock.wall() + LASTS_MS}`
    return cookie(`${text}.${signatureOf(text, token).toString('base64url')}`, LASTS_MS / 1_000)
  }

  /** The `Set-Cookie` that signs out. */
  end(): string {
    return cookie('', 0)
  }

  /** Who sent this `Cookie` header; undefined if nobody is signed in, or not any more. */
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

function signatureOf(text: string, { digest }: Token): Buffer {
  return createHmac('sha256', digest).update(`sluice page session\n${text}`).digest()
}

/** Out of reach of scripts and of other sites. Not `Secure`: the admin port speaks plain HTTP, mostly on loopback. */
function cookie(value: string, seconds: number): string {
  return `${NAME}=${value}; Path=/; Max-Age=${seconds}; HttpOnly; SameSite=Strict`
}
