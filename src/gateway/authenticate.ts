import type { IncomingHttpHeaders } from 'node:http'
import { ANONYMOUS, type Client } from '../clients/client.ts'
import type { Failure } from './failure.ts'
import type { Snapshot, Upstream } from './snapshot.ts'

/** What of a request tells who sent it. */
export interface Proof {
  readonly headers: IncomingHttpHeaders
  /** Stands for the client's connection. */
  readonly connection: object
}

/** The client whose key the request presents. With an unknown upstream, its key may be in the header of any. */
export function authenticate(
  { callers, keyHeaders }: Snapshot,
  { headers, connection }: Proof,
  upstream: Upstream | undefined,
): Client | Failure {
  if (callers.isOpen) return ANONYMOUS
  let presented: string | undefined
  let isUnknown = false
  for (const name of upstream?.keyHeaders ?? keyHeaders) {
    const value = headers[name]
    if (typeof value !== 'string') continue
    presented ??= name
    const key = name === 'authorization' ? value.replace(/^bearer +/i, '') : value
    const found = callers.find(key, connection)
    if (typeof found === 'object') return found
    if (found === 'expired') return unauthenticated(`the client key in ${name} has expired`)
    isUnknown ||= found === 'unknown'
    if (name === 'x-sluice-key') break // it is meant for us and nobody else
  }
  if (isUnknown) {
    const message = 'the clients of the admin API can’t be read, and the key may be one of theirs'
    return { kind: 'store_unavailable', message }
  }
  return unauthenticated(
    presented === undefined
      ? 'no client key: send one in X-Sluice-Key, Authorization, or the upstream’s own key header'
      : `unknown client key in ${presented}: its hash is not listed under clients`,
  )
}

function unauthenticated(message: string): Failure {
  return { kind: 'unauthenticated', message }
}
