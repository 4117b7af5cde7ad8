import { createRequire } from 'node:module'
import type { Pool } from 'undici'

// Inner names of undici, which has no public way to what happens at an interim response. Its version is pinned, and the tests of
// interim responses fail if a new one has other names.
const { kSocket, kParser, kQueue, kRunningIdx } = createRequire(import.meta.url)('undici/lib/core/symbols.js') as {
  readonly kSocket: unique symbol
  readonly kParser: unique symbol
  readonly kQueue: symbol
  readonly kRunningIdx: symbol
}

interface Parser {
  readonly client: Readonly<Record<symbol, unknown>>
  onHeadersComplete(status: number, upgrade: boolean, shouldKeepAlive: boolean): number
}

type Client = { readonly [kSocket]?: { readonly [kParser]?: Parser | null } | null }

/** The status that stands for 100 where undici would break off: one that no server sends, and that nobody is told. */
export const CONTINUE = 199

/** What the parser takes for: stop here. */
const STOP = -1

/**
 * Makes a pool read past `100 Continue` responses that nobody asked for, as a client must (RFC 9110 §15.2). undici takes them
 * for an error and destroys the connection, in the middle of a request that the upstream carries out: the call would be
 * answered 502, and where its method allows it sent again and again. Its parser reads them like any other 1xx once they have
 * another status. Of a 101 without a request for it, whatever it switches to, the call hears before its connection ends: the
 * upstream had begun with it. What stays: such a 101, and an interim response of HTTP/1.0 or with `Connection: close`,
 * behind which the parser takes no more.
 */
export function acceptUnaskedContinue(pool: Pool): void {
  pool.on('connect', (_, targets) => {
    const parser = (targets.at(-1) as Client | undefined)?.[kSocket]?.[kParser]
    // A connection of HTTP/2 has none, and needs none.
    if (parser === undefined || parser === null) return
    const onHeadersComplete = parser.onHeadersComplete.bind(parser)
    parser.onHeadersComplete = (status, upgrade, shouldKeepAlive) => {
      const { client } = parser
      const requests = client[kQueue] as readonly ({ readonly upgrade: unknown } | null)[]
      const isUnasked = upgrade && !requests[client[kRunningIdx] as number]?.upgrade
      const next = onHeadersComplete(status === 100 ? CONTINUE : status, upgrade && !isUnasked, shouldKeepAlive)
      return isUnasked ? STOP : next
    }
  })
}
