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
/** When a span or an answer has this many rows, further rows name neither account nor client. Rows that it has count on. */
const MOST_ROWS = 1_000

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
  /** The key of calls that went well, by upstream and account, so that no new string has to be made for each of them. */
  readonly #keysOfWell = new Map<string, Map<string, string>>()
  /** The number of the newest span. */
  #newest = 0

  count(line: Ended, at: EpochMs): void {
    this.#goOn(at)
    const rows = this.#spans[this.#newest % SPANS]!
    const isWell = line.outcome === 'delivered' && line.status < '4'
    let row = rows.get(isWell ? this.#keyOfWell(line) : keyOf(line))
    if (row === undefined) {
      const kind = kindOf(line, { isWell, isNamed: rows.size < MOST_ROWS })
      const key = keyOf(kind)
      row = rows.get(key) ?? { ...kind, calls: 0, slow: 0, correlationId: line.correlationId, at }
      rows.set(key, row)
    }
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
      for (const [ownKey, row] of rows) {
        const isNamed = all.size < MOST_ROWS || all.has(ownKey)
        const shown = isNamed ? { ...row } : { ...row, account: null, client: null }
        const key = isNamed ? ownKey : keyOf(shown)
        const known = all.get(key)
        if (known === undefined) all.set(key, shown)
        else {
          known.calls += row.calls
          known.slow += row.slow
          if (row.at >= known.at) Object.assign(known, { correlationId: row.correlationId, at: row.at })
        }
      }
    }
    return [...all.values()]
  }

  #keyOfWell(line: Ended): string {
    const { upstream = '', account = '' } = line
    let keys = this.#keysOfWell.get(upstream)
    if (keys === undefined) this.#keysOfWell.set(upstream, (keys = new Map()))
    let key = keys.get(account)
    if (key === undefined) keys.set(account, (key = keyOf(kindOf(line, { isWell: true, isNamed: true }))))
    return key
  }

  /** Forgets spans that are too old. If the clock was set back, calls are counted in the newest span. */
  #goOn(at: EpochMs): void {
    const span = Math.floor(at / SPAN_MS)
    if (span <= this.#newest) return
    for (let i = Math.max(this.#newest + 1, span - SPANS + 1); i <= span; i++) this.#spans[i % SPANS]!.clear()
    this.#newest = span
  }
}

/** What the calls of a row have in common. */
type Kind = Pick<LatelyRow, 'upstream' | 'account' | 'client' | 'outcome' | 'status'>

function kindOf(line: Ended, { isWell, isNamed }: { isWell: boolean; isNamed: boolean }): Kind {
  const { upstream = null, account = null, client = null, outcome, status } = line
  return {
    upstream,
    account: isNamed ? account : null,
    client: isNamed && !isWell ? client : null,
    outcome,
    status: isWell ? null : status,
  }
}

function keyOf({ upstream, account, client, outcome, status }: Kind | Ended): string {
  return `${upstream ?? ''}\n${account ?? ''}\n${client ?? ''}\n${outcome}\n${status}`
}

/** Whether somebody should look at a call: its upstream or the gateway failed, or the gateway refused it. */
export function isTrouble({ outcome, status }: { readonly outcome: string; readonly status: string | null }): boolean {
  return outcome !== 'client_gone' && (outcome !== 'delivered' || Number(status) >= 500)
}
