import type { Clock } from '../time/clock.ts'
import type { TokenStore } from '../credentials/token-store.ts'
import { ANSWER_WITHIN_MS, WorkerLedger } from '../ledger/workers/worker-ledger.ts'
import type { UsageDays } from '../usage/days.ts'
import type { FromWorker, Shared, ToWorker, WorkerRequest } from './worker-link.ts'

/** Few enough that a message does not hold up calls while it is written or read. */
const ROWS_A_MESSAGE = 200

/**
 * A worker's access to what all workers share: the ledger, the rows of the day, and tokens. Only the first process has the embedded
 * store, so it is asked for them. When the first process ends, its workers end, too.
 */
export class FirstProcess {
  readonly ledger: WorkerLedger
  readonly usageDays: UsageDays
  readonly tokens: TokenStore
  readonly #open = new Map<number, (reply: NonNullable<ToWorker['given']>) => void>()
  #requests = 0

  constructor(clock: Clock) {
    this.ledger = new WorkerLedger(clock, (ledger, onSent) => tell({ ledger }, onSent))
    process.on('message', ({ ledger, given }: ToWorker) => {
      if (ledger !== undefined) this.ledger.receive(ledger)
      if (given !== undefined) this.#open.get(given.number)?.(given)
    })
    const ask = this.#ask.bind(this)
    this.usageDays = {
      rowsABatch: ROWS_A_MESSAGE,
      add: (batch) => ask<undefined>('addUsage', batch),
      read: (day) => ask('readUsage', day),
      close: () => undefined,
    }
    this.tokens = {
      get: (...input) => ask('getToken', ...input),
      set: (...input) => ask('setToken', ...input),
      lock: (...input) => ask('lockToken', ...input),
      unlock: (...input) => ask('unlockToken', ...input),
      close: () => undefined,
    }
  }

  /** Has the first process run a function of `Shared`. Rejects with the problem that it reports, or if no answer comes in time. */
  #ask<Answer>(what: keyof Shared, ...input: readonly unknown[]): Promise<Answer> {
    const number = this.#requests++
    const answer = new Promise<Answer>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('the first process did not answer')), ANSWER_WITHIN_MS)
      this.#open.set(number, ({ answer, problem }) => {
        clearTimeout(timer)
        if (problem === undefined) resolve(answer as Answer)
        else reject(new Error(problem))
      })
      tell({ request: { number, what, input } satisfies WorkerRequest })
    })
    return answer.finally(() => this.#open.delete(number))
  }
}

function tell(message: FromWorker, onSent?: () => void): void {
  // An error means that the channel has closed: then this process ends.
  process.send?.(message, () => onSent?.())
}
