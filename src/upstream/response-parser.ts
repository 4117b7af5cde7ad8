import type { Pool } from 'undici'
// @ts-expect-error: it has no types
import symbols from 'undici/lib/core/symbols.js'
import type { Fields } from '../http/fields.ts'
import { readFields } from './read-fields.ts'

// Internal names of undici, which has no public hook for interim responses. Its version is pinned. The tests of interim responses
// fail if a new version has other names.
const { kSocket, kParser, kQueue, kRunningIdx } = symbols as {
  readonly kSocket: unique symbol
  readonly kParser: unique symbol
  readonly kQueue: symbol
  readonly kRunningIdx: symbol
}

interface Parser {
  readonly client: Readonly<Record<symbol, unknown>>
  /** Names and values in turn. undici passes on unchanged what is not a list. */
  headers: readonly Buffer[] | Fields
  onHeadersComplete(status: number, upgrade: boolean, shouldKeepAlive: boolean): number
}

type Client = { readonly [kSocket]?: { readonly [kParser]?: Parser | null } | null }

/** The status that undici is told in place of 100. No server sends it, and no client sees it. */
export const CONTINUE = 199

/** The return value that makes the parser stop. */
const STOP = -1

/**
 * Makes a pool skip `100 Continue` responses that nobody asked for, as a client must (RFC 9110 §15.2). undici takes them for
 * an error and destroys the connection while the upstream carries out the request. The call would be answered with 502, and if
 * its method allows it, sent again and again. Under another status undici's parser reads them like any other 1xx.
 *
 * A 101 that nobody asked for still ends the connection. The call is told of it first, because it shows that the upstream has
 * begun. An interim response of HTTP/1.0 or with `Connection: close` still ends the connection, too: the parser reads nothing
 * after it.
 *
 * If `readsFields` is true, `readFields` reads the fields of a response instead of undici. `rawHeaders` is then an object, not a
 * list. An exception is a response with a field named `length`: undici still reads that one.
 */
export function adaptParsers(pool: Pool, { readsFields }: { readonly readsFields: boolean }): void {
  pool.on('connect', (_, targets) => {
    const parser = (targets.at(-1) as Client | undefined)?.[kSocket]?.[kParser]
    // An HTTP/2 connection has no parser, and needs none.
    if (parser === undefined || parser === null) return
    const onHeadersComplete = parser.onHeadersComplete.bind(parser)
    parser.onHeadersComplete = (status, upgrade, shouldKeepAlive) => {
      const { client } = parser
      if (readsFields) {
        const fields = readFields(parser.headers as readonly Buffer[])
        // undici reads the length of the list. It would take a field named `length` for it.
        if (fields['length'] === undefined) parser.headers = fields
      }
      const requests = client[kQueue] as readonly ({ readonly upgrade: unknown } | null)[]
      const isUnasked = upgrade && !requests[client[kRunningIdx] as number]?.upgrade
      const next = onHeadersComplete(status === 100 ? CONTINUE : status, upgrade && !isUnasked, shouldKeepAlive)
      return isUnasked ? STOP : next
    }
  })
}
