import { randomUUID } from 'node:crypto'
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { harness } from '../config/presets/harness.ts'
import { type ClaimRules, collectClaims } from '../routing/account.ts'
import type { Route } from '../routing/route.ts'
import { RouteTable } from '../routing/route-table.ts'

/** What the head of a request says about it. */
export interface Question {
  readonly method: string
  /** Without `/gateway` and empty segments. */
  readonly path: string
  readonly query: string
  readonly route: Route
  readonly account: string
  /** Whether it may be answered: its token names the account, or its route takes no token. */
  readonly isProven: boolean
  /** The one that the request came with, else a new one; in the body of the answer. */
  readonly correlationId: string
  readonly ifNoneMatch: string | undefined
}

export function identify({ method = '', url = '', headers }: IncomingMessage, routes: RouteTable): Question {
  const queryAt = url.indexOf('?')
  const sent = queryAt < 0 ? url : url.slice(0, queryAt)
  const query = queryAt < 0 ? '' : url.slice(queryAt + 1)
  const { route, path } = routes.locate(method, sent, harness.aliasPrefix ?? '')
  const proven = accountInToken(route, headers)
  const account = proven ?? collectClaims(CLAIMS, [path], query, headers)[0]?.id ?? 'unknown'
  const given = headers['x-correlation-id']
  const correlationId = typeof given === 'string' ? given : randomUUID()
  const isProven = proven !== undefined || route.credential === 'none'
  return { method, path, query, route, account, isProven, correlationId, ifNoneMatch: headers['if-none-match'] }
}

const CLAIMS: ClaimRules = { headers: ['harness-account'], query: new Set(['accountIdentifier']), inPath: () => [] }

function accountInToken({ credential }: Route, headers: IncomingHttpHeaders): string | undefined {
  const token =
    credential === 'bearer' ? /^bearer +(.+)$/i.exec(headers.authorization ?? '')?.[1] : headers['x-api-key']
  return typeof token === 'string' ? harness.accountInCredential?.(token) : undefined
}

let sharedTable: RouteTable | undefined

/** One for all sandboxes of a process, built for the first. */
export function routeTable(): RouteTable {
  return (sharedTable ??= new RouteTable({ layers: [harness.routes()], classify: harness.classify }))
}
