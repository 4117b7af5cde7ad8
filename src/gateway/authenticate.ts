import type { IncomingHttpHeaders } from 'node:http'
import { onlyMember } from '../http/fields.ts'
import { ANONYMOUS, type Client } from '../clients/client.ts'
import type { TokenRefusal } from '../clients/callers.ts'
import { hashKey } from '../clients/keys.ts'
import { isKeyless, readKeys } from '../clients/presented-keys.ts'
import { Failure, isFailure } from './failure.ts'
import { PROXY_KEY_HEADERS } from './proxied.ts'
import type { Snapshot, Upstream } from './snapshot.ts'

/** The parts of a request that tell who sent it. */
export interface ClientCredentials {
  readonly headers: IncomingHttpHeaders
  /** Identifies the client's connection. */
  readonly connection: object
  /**
   * For how long the client's address is blocked; 0 if it is not. While it is, the only key that counts is the one that this
   * connection was admitted with before. Signed tokens and client certificates still count.
   */
  readonly blockedMs?: number
}

/**
 * Finds the client whose key the request presents. If the upstream is unknown, the key may be in the key header of any
 * upstream. If X-Sluice-Key holds a key, no other header is read. A request with the keys of two clients is refused.
 */
export function authenticate(
  { callers, keyHeaders }: Pick<Snapshot, 'callers' | 'keyHeaders'>,
  { headers, connection, blockedMs = 0 }: ClientCredentials,
  upstream: Upstream | undefined,
): Client | Failure {
  if (callers.isOpen) return ANONYMOUS
  let found: { readonly client: Client; readonly name: string } | undefined
  const tried: string[] = []
  let unknown: Place | undefined
  let without: Place | undefined
  let isOurs = false
  let isUnreadable = false
  const names = upstream?.keyHeaders ?? keyHeaders
  for (const name of names) {
    const field = headers[name]
    if (typeof field !== 'string') continue
    const { scheme, keys } = readKeys(name === 'authorization' ? field : (onlyMember(field) ?? field))
    const place = { name, scheme }
    if (keys.length === 0) {
      const client = findByWord(callers, field, { connection, blockedMs })
      if (client === undefined) without ??= place
      else if (found !== undefined && found.client !== client)
        return severalKeys(found.client, found.name, client, name)
      else found ??= { client, name }
    }
    for (const key of keys) {
      const judged = judge(callers, key, { connection, blockedMs })
      if (judged === undefined || judged === 'unknown') {
        isUnreadable ||= judged === 'unknown'
        tried.push(key)
        unknown ??= place
      } else if (judged === 'expired' || 'kind' in judged) {
        if (found !== undefined) continue
        return judged === 'expired' ? unauthenticated(`the client key in ${name} has expired`) : tokenRefused(judged)
      } else {
        found ??= { client: judged, name }
        if (found.client !== judged) return severalKeys(found.client, found.name, judged, name)
      }
    }
    if (name === 'x-sluice-key' && (keys.length > 0 || found?.name === name)) {
      isOurs = true // the client means this gateway, so that its certificate does not count
      break
    }
  }
  if (found !== undefined) return found.client
  const byCertificate = isOurs ? undefined : callers.findByCertificate(connection)
  if (byCertificate !== undefined) return byCertificate
  if (isUnreadable) {
    const message = 'the clients of the admin API can’t be read, and the key may be one of theirs'
    return new Failure('store_unavailable', message)
  }
  if (callers.mayBeOpen) {
    const message = 'the clients of the admin API can’t be read, and if there are any, a key is needed: see the log'
    return new Failure('store_unavailable', message)
  }
  if (unknown === undefined) return noKey(without)
  if (blockedMs > 0) return tooManyAttempts(blockedMs)
  const message = unknownKey(unknown, headers, names)
  return new Failure('unauthenticated', message, { guess: hashKey(tried.join('\n')) })
}

/**
 * Finds the client of a request to the forward proxy. Its key is the password or the user of the proxy credentials. A refusal of the
 * kind `unauthenticated` becomes `proxy_unauthenticated`.
 */
export function authenticateProxied(
  { callers }: Pick<Snapshot, 'callers'>,
  credentials: ClientCredentials,
): Client | Failure {
  const client = authenticate({ callers, keyHeaders: PROXY_KEY_HEADERS }, credentials, undefined)
  if (!isFailure(client) || client.kind !== 'unauthenticated') return client
  const { guess, message } = client
  const why = Object.keys(credentials.headers).length === 0 ? 'no proxy credentials' : message
  const advice = 'the forward proxy wants the key of a client, as in HTTPS_PROXY=http://CLIENT:KEY@HOST:PORT'
  return new Failure('proxy_unauthenticated', `${why}: ${advice}`, { guess })
}

/** The header in which a key was presented, and the scheme before it. */
interface Place {
  readonly name: string
  readonly scheme: string | undefined
}

function judge(
  callers: Snapshot['callers'],
  key: string,
  { connection, blockedMs }: { connection: object; blockedMs: number },
): Client | TokenRefusal | 'expired' | 'unknown' | undefined {
  const byToken = callers.findByToken(key)
  if (byToken !== undefined) return byToken
  return blockedMs > 0 ? callers.recall(key, connection) : callers.find(key, connection)
}

/**
 * Finds the client whose key is the only word of a header. Such a word usually is a scheme without a key, but a short key may
 * well be called `bot` or `key`.
 */
function findByWord(
  callers: Snapshot['callers'],
  field: string,
  options: { connection: object; blockedMs: number },
): Client | undefined {
  const word = field.trim()
  const judged = word === '' || word.includes(' ') ? undefined : judge(callers, word, options)
  return typeof judged === 'object' && !('kind' in judged) ? judged : undefined
}

const SEND_IT = 'send it as X-Sluice-Key: KEY, as Authorization: Bearer KEY, or in the upstream’s own key header'

function noKey(place: Place | undefined): Failure {
  if (place === undefined) {
    return unauthenticated('no client key: send one in X-Sluice-Key, Authorization, or the upstream’s own key header')
  }
  const { name, scheme } = place
  if (scheme !== undefined && isKeyless(scheme)) {
    return unauthenticated(`no client key: ${name} has the scheme ${scheme}, which shows none; ${SEND_IT}`)
  }
  const behind = scheme === undefined ? '' : ` behind ${scheme}`
  return unauthenticated(
    `the client key in ${name} is empty${behind}: see where the program takes it from, and ${SEND_IT}`,
  )
}

function unknownKey({ name, scheme }: Place, headers: IncomingHttpHeaders, names: Iterable<string>): string {
  const field = headers[name]
  if (name !== 'authorization' && typeof field === 'string' && field.includes(',') && onlyMember(field) === undefined) {
    return `unknown client key in ${name}: it came several times with different values, or holds a comma; send one key`
  }
  const behind = scheme === undefined ? '' : ` behind ${scheme}`
  const other =
    name === 'x-sluice-key' ? [...names].find((one) => one !== name && headers[one] !== undefined) : undefined
  const beside = other === undefined ? '' : `; ${other} is not looked at beside it`
  const advice = 'use the key of a client of this gateway, not one of the vendor, or ask who runs the gateway for one'
  return `unknown client key in ${name}${behind}: no client has it${beside}; ${advice}`
}

function severalKeys(first: Client, firstName: string, second: Client, secondName: string): Failure {
  const where = firstName === secondName ? firstName : `${firstName} and ${secondName}`
  const message = `${where} hold keys of two clients, ${first.name} and ${second.name}: send one, or the right one in X-Sluice-Key`
  return unauthenticated(message)
}

function tokenRefused(refusal: TokenRefusal): Failure {
  switch (refusal.kind) {
    case 'invalid':
      return unauthenticated(`the token is not valid: ${refusal.why}`)
    case 'nobody':
      return unauthenticated(`the token of ${refusal.issuer} is valid, but no client has its claims`)
    case 'unavailable': {
      const message = `the keys of the token issuer ${refusal.issuer} can’t be had, so its tokens can’t be checked`
      return new Failure('credential_unavailable', message, { retryAfterMs: 5_000 })
    }
  }
}

/** The refusal for an address that is blocked. `guess` is the hash of the wrong key that was one too many. */
export function tooManyAttempts(retryAfterMs: number, guess?: string): Failure {
  const message = 'too many wrong client keys came from this address, so no other is tried for a while'
  return new Failure('too_many_attempts', message, { retryAfterMs, guess })
}

function unauthenticated(message: string): Failure {
  return new Failure('unauthenticated', message)
}
