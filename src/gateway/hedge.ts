import type { Timer } from '../time/clock.ts'
import type { OutgoingRequest } from '../upstream/transport.ts'
import type { Attempt, AttemptOptions, Outcome } from './attempt.ts'
import type { Call } from './call.ts'

export interface HedgeOptions {
  /**
   * How long after the first attempt the second one begins, in milliseconds, unless the first has response headers by then. Undefined
   * if there is to be no second one.
   */
  afterMs(): number | undefined
  /** Admits a second attempt without waiting, and says what to send; undefined if there may be none. */
  begin(isStillWanted: () => boolean): Promise<Beginning | undefined>
  /** Called with a mistake of the gateway that does not end the call: the other attempt goes on, and may well answer it. */
  onMistake(mistake: unknown): void
}

export interface Beginning {
  readonly attempt: Attempt
  readonly request: OutgoingRequest
  readonly options: AttemptOptions
}

/**
 * An attempt, with a second one beside it if the first is late. The first of the two to get response headers that are no failure
 * decides the outcome. If one of them fails, the other decides. The time of both counts once, from the first dispatch.
 */
export class HedgedAttempt implements Disposable {
  readonly #call: Call
  readonly #first: Attempt
  readonly #hedge: HedgeOptions
  readonly #running = new Set<Attempt>()
  #second: Attempt | undefined
  #startedAt = 0
  #timer: Timer | undefined
  #isOver = false
  #resolve!: (outcome: Outcome) => void
  #reject!: (mistake: unknown) => void

  constructor(call: Call, first: Attempt, hedge: HedgeOptions) {
    this.#call = call
    this.#first = first
    this.#hedge = hedge
  }

  /** Rejects if a mistake of the gateway ends the last attempt that runs. */
  send(request: OutgoingRequest, options: AttemptOptions): Promise<Outcome> {
    const { clock } = this.#call
    const afterMs = this.#hedge.afterMs()
    if (afterMs === undefined) return this.#first.send(request, options)
    this.#startedAt = clock.now()
    return new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
      this.#timer = clock.schedule(afterMs, () => void this.#runSecond())
      this.#run({ attempt: this.#first, request, options }).catch(reject)
    })
  }

  [Symbol.dispose](): void {
    this.#end()
    try {
      this.#second?.[Symbol.dispose]()
    } finally {
      this.#first[Symbol.dispose]()
    }
  }

  async #runSecond(): Promise<void> {
    try {
      const beginning = await this.#hedge.begin(() => !this.#isOver && !this.#call.isGone)
      if (beginning === undefined) return
      if (this.#isOver) return beginning.attempt[Symbol.dispose]()
      this.#second = beginning.attempt
      await this.#run(beginning)
    } catch (mistake) {
      if (this.#second !== undefined) this.#running.delete(this.#second)
      this.#second?.[Symbol.dispose]()
      // If the first attempt has failed already, nothing else would end the wait of the call.
      if (this.#running.size === 0 && !this.#isOver) this.#reject(mistake)
      else this.#hedge.onMistake(mistake)
    }
  }

  async #run({ attempt, request, options }: Beginning): Promise<void> {
    this.#running.add(attempt)
    const outcome = await attempt.send(request, options)
    if (this.#isOver) return
    if (isFailed(outcome) && this.#running.size > 1) {
      if (outcome.kind === 'response') {
        outcome.response.drain(this.#call.clock)
        outcome.price?.settleByHead()
      }
      return this.#supersede(attempt)
    }
    this.#end()
    for (const other of this.#running) if (other !== attempt) this.#supersede(other)
    this.#resolve({ ...outcome, tookMs: this.#call.clock.now() - this.#startedAt })
  }

  /** Gives an attempt up. A mistake of the gateway in that is only reported, so that it does not stop the other attempt. */
  #supersede(attempt: Attempt): void {
    this.#running.delete(attempt)
    try {
      attempt.supersede()
    } catch (mistake) {
      this.#hedge.onMistake(mistake)
    }
  }

  #end(): void {
    this.#isOver = true
    this.#timer?.cancel()
  }
}

function isFailed(outcome: Outcome): boolean {
  if (outcome.kind !== 'response') return true
  const { meaning } = outcome.response
  return meaning === 429 || meaning >= 500
}
