import type { AccessLine } from '../observe/log.ts'
import type { EpochMs } from '../time/clock.ts'

/** Calls of the last five minutes that ended alike. It goes to other processes as JSON. */
export interface LatelyRow {
  readonly upstream: string | null
  /** Null where none is known, and for calls of more accounts than have rows of their own. Releases before this one have none. */
  readonly account?: string | null
  /** Null for calls that succeeded. Also null for failed calls of more clients than have rows of their own. */
  readonly client: string | null
  readonly outcome: string
  /** Null for calls that succeeded. */
  readonly status: string | null
  calls: number
  /** How many of the calls took longer than `SLOW_MS`, without their `waitMs`. */
  slow: number
  /** The latest of the calls, and when it ended. */
  correlationId: string
  at: EpochMs
}

export const SLOW_MS = 5_000
/** How far back calls are counted, in milliseconds, exact to one span. */
export const LATELY_MS = 5 * 60_000
const SPAN_MS = 10_000
const SPANS = LATELY_MS / SPAN_MS + 1
/** So many accounts have rows of their own: the first ones that have calls. The calls of all others are counted together. */
const MOST_ACCOUNTS = 1_000
/** When a span or an answer has this many rows, further rows name no client. Rows that it has count on. */
const MOST_ROWS = 2 * MOST_ACCOUNTS

/** The status of a WebSocket or a tunnel, which is never slow: it lasts as long as its client wants. */
const SWITCHING = '101'

type Ended = Pick<
  AccessLine,
  'upstream' | 'account' | 'client' | 'outcome' | 'status' | 'durationMs' | 'waitMs' | 'correlationId'
>

/**
 * Counts how the calls of the last five minutes ended, however many there were. The history can't tell that, because it keeps a
 * bounded number of calls, which a busy gateway replaces within seconds.
 */
export class Lately {
  /** A ring with the rows of each span of time. The key of a row is what its calls have in common. */
  readonly #spans = Array.from({ length: SPANS }, () => new Map<string, LatelyRow>())
  /** The accounts, by upstream, that have rows of their own. None gets or loses them: a part of its calls would look like all of them. */
  readonly #accounts = new Map<string, Map<string, Own>>()
  #accountCount = 0
  /** The number of the newest span. */
  #newest = 0

  count(line: Ended, at: EpochMs): void {
    this.#goOn(at)
    const rows = this.#spans[this.#newest % SPANS]!
    const isWell = line.outcome === 'delivered' && line.status < '4'
    const { account, keyOfWell } = this.#ownOf(line)
    const row = (isWell ? rows.get(keyOfWell) : undefined) ?? rowIn(rows, rowOf(line, { account, isWell, at }))
    row.calls++
    if (line.durationMs - line.waitMs > SLOW_MS && line.status !== SWITCHING) row.slow++
    row.correlationId = line.correlationId
    row.at = at
  }

  /** All calls that are counted at this time, over all spans. */
  rows(at: EpochMs): LatelyRow[] {
    this.#goOn(at)
    const all = new Map<string, LatelyRow>()
    for (const rows of this.#spans) {
      for (const row of rows.values()) {
        const sum = rowIn(all, { ...row, calls: 0, slow: 0 })
        sum.calls += row.calls
        sum.slow += row.slow
        if (row.at >= sum.at) Object.assign(sum, { correlationId: row.correlationId, at: row.at })
      }
    }
    return [...all.values()]
  }

  #ownOf({ upstream = '', account }: Ended): Own {
    const accounts = this.#accounts.getOrInsertComputed(
      upstream,
      () => new Map<string, Own>([['', ownOf(upstream, null)]]),
    )
    const known = accounts.get(account ?? '')
    if (known !== undefined || account === undefined) return known!
    if (this.#accountCount === MOST_ACCOUNTS) return accounts.get('')!
    this.#accountCount++
    return accounts.getOrInsert(account, ownOf(upstream, account))
  }

  /** Forgets spans that are too old. If the clock was set back, calls are counted in the newest span. */
  #goOn(at: EpochMs): void {
    const span = Math.floor(at / SPAN_MS)
    if (span <= this.#newest) return
    for (let i = Math.max(this.#newest + 1, span - SPANS + 1); i <= span; i++) this.#spans[i % SPANS]!.clear()
    this.#newest = span
  }
}

/** The account that rows name, or null for one that has none of its own. */
interface Own {
  readonly account: string | null
  /** The key of its calls that went well, so that no new string has to be made for each of them. */
  readonly keyOfWell: string
}

function ownOf(upstream: string, account: string | null): Own {
  return { account, keyOfWell: keyOf({ upstream, account, client: null, outcome: 'delivered', status: null }) }
}

function rowOf(
  line: Ended,
  { account, isWell, at }: { account: string | null; isWell: boolean; at: EpochMs },
): LatelyRow {
  const { upstream = null, client = null, outcome, status, correlationId } = line
  const kind = { upstream, account, client: isWell ? null : client, outcome, status: isWell ? null : status }
  return { ...kind, calls: 0, slow: 0, correlationId, at }
}

/** The row among `rows` whose calls are alike, else this one. */
function rowIn(rows: Map<string, LatelyRow>, row: LatelyRow): LatelyRow {
  const known = rows.get(keyOf(row))
  if (known !== undefined) return known
  const kept = rows.size < MOST_ROWS ? row : { ...row, client: null }
  return rows.getOrInsert(keyOf(kept), kept)
}

/** What the calls of a row have in common. */
function keyOf({
  upstream,
  account,
  client,
  outcome,
  status,
}: Omit<LatelyRow, 'calls' | 'slow' | 'correlationId' | 'at'>): string {
  return `${upstream ?? ''}\n${account ?? ''}\n${client ?? ''}\n${outcome}\n${status}`
}

/** Whether somebody should look at a call: its upstream or the gateway failed, or the gateway refused it. */
export function isTrouble({ outcome, status }: { readonly outcome: string; readonly status: string | null }): boolean {
  return outcome !== 'client_gone' && (outcome !== 'delivered' || Number(status) >= 500)
}
