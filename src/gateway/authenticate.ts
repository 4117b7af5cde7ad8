import type { IncomingHttpHeaders } from 'node:http'
import { onlyMember } from '../http/fields.ts'
import { ANONYMOUS, type Client } from '../clients/client.ts'
import { type TokenRefusal, withoutScheme } from '../clients/callers.ts'
import { hashKey } from '../clients/keys.ts'
import type { Failure } from './failure.ts'
import type { Snapshot, Upstream } from './snapshot.ts'

/** What of a request tells who sent it. */
export interface Proof {
  readonly headers: IncomingHttpHeaders
  /** Stands for the client's connection. */
  readonly connection: object
  /** For how long no other key is tried than the one that this connection was let in with; 0 if any is. */
  readonly blockedMs?: number
}

/** The client whose key the request presents. With an unknown upstream, its key may be in the header of any. */
export function authenticate(
  { callers, keyHeaders }: Snapshot,
  { headers, connection, blockedMs = 0 }: Proof,
  upstream: Upstream | undefined,
): Client | Failure {
  if (callers.isOpen) return ANONYMOUS
  let presented: string | undefined
  let guess = ''
  let isOurs = false
  let isUnknown = false
  for (const name of upstream?.keyHeaders ?? keyHeaders) {
    const field = headers[name]
    if (typeof field !== 'string') continue
    const value = name === 'authorization' ? field : (onlyMember(field) ?? field)
    const key = name === 'authorization' ? withoutScheme(value) : value
    const byToken = callers.findByToken(key)
    if (byToken !== undefined) {
      if ('name' in byToken) return byToken
      return tokenRefused(byToken)
    }
    if (presented === undefined) {
      presented = name
      guess = key
    }
    const found = blockedMs > 0 ? callers.recall(key, connection) : callers.find(key, connection)
    if (typeof found === 'object') return found
    if (found === 'expired') return unauthenticated(`the client key in ${name} has expired`)
    isUnknown ||= found === 'unknown'
    if (name === 'x-sluice-key') {
      isOurs = true // it is meant for us and nobody else
      break
    }
  }
  const byCertificate = isOurs ? undefined : callers.findByCertificate(connection)
  if (byCertificate !== undefined) return byCertificate
  if (isUnknown) {
    const message = 'the clients of the admin API can’t be read, and the key may be one of theirs'
    return { kind: 'store_unavailable', message }
  }
  if (presented === undefined) {
    return unauthenticated('no client key: send one in X-Sluice-Key, Authorization, or the upstream’s own key header')
  }
  if (blockedMs > 0) return tooManyAttempts(blockedMs)
  const message = `unknown client key in ${presented}: its hash is not listed under clients`
  return { ...unauthenticated(message), guess: hashKey(guess) }
}

function tokenRefused(refusal: TokenRefusal): Failure {
  switch (refusal.kind) {
    case 'invalid':
      return unauthenticated(`the token is not valid: ${refusal.why}`)
    case 'nobody':
      return unauthenticated(`the token of ${refusal.issuer} is valid, but no client has its claims`)
    case 'unavailable': {
      const message = `the keys of the token issuer ${refusal.issuer} can’t be had, so its tokens can’t be checked`
      return { kind: 'credential_unavailable', message, retryAfterMs: 5_000 }
    }
  }
}

export function tooManyAttempts(retryAfterMs: number): Failure {
  const message = 'too many wrong client keys came from this address, so no other is tried for a while'
  return { kind: 'too_many_attempts', message, retryAfterMs }
}

function unauthenticated(message: string): Failure {
  return { kind: 'unauthenticated', message }
}
