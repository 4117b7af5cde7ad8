/*
 * src/ledger/workers: the embedded ledger, kept by the first of several processes and used by all of them. The first process
 * charges, and so every quota is counted once; workers ask it in batches, one message for each turn of their event loop.
 * It imports only ledger, ledger/embedded and time; who carries the messages stands above.
 * A change here must prove that workers are answered what the embedded ledger would answer one process, and that one that dies
 * leaves nothing charged for longer than a window (test/ledger/workers, test/system/workers-embedded.test.ts).
 */

import type { Clock } from '../../time/clock.ts'
import type { MemoryLedger } from '../embedded/memory-ledger.ts'
import { type ChargeSet, chargeSetOf, Grant, StoreUnavailableError, type QueueTurn } from '../ledger.ts'
import type { Limit } from '../limit.ts'
import { DemandExchange } from './demand-exchange.ts'
import { type Answer, limitOfTold, type State, type Told, toldGrant } from './wire.ts'

type Send = (answers: readonly Answer[]) => void

/** Charges for workers, in the process that owns the embedded ledger. */
export class LedgerService {
  readonly ledger: MemoryLedger
  readonly clock: Clock
  readonly demands = new DemandExchange()
  readonly #workers = new Set<LedgerConnection>()
  state: State

  constructor(ledger: MemoryLedger, clock: Clock) {
    this.ledger = ledger
    this.clock = clock
    this.state = this.#stateNow()
  }

  /** Begins to serve a worker, which is sent answers by `send`. */
  open(send: Send): LedgerConnection {
    const connection = new LedgerConnection(this, send)
    this.#workers.add(connection)
    return connection
  }

  /** A worker has ended. */
  forget(connection: LedgerConnection): void {
    this.demands.forget(connection)
    this.#workers.delete(connection)
  }

  /** To be called when the ledger can't write, or can again. */
  readonly onChange = (): void => {
    const now = this.#stateNow()
    const { isReady, isDegraded, problem } = this.state
    if (now.isReady === isReady && now.isDegraded === isDegraded && now.problem === problem) return
    this.state = now
    this.tellAll(['state', now])
  }

  tellAll(answer: Answer): void {
    for (const { send } of this.#workers) send([answer])
  }

  #stateNow(): State {
    const { isReady, isDegraded, problem = null } = this.ledger
    return { isReady, isDegraded, problem }
  }
}

/** Does what one worker asks, and knows what that has in flight. */
export class LedgerConnection {
  readonly #service: LedgerService
  readonly send: Send
  readonly #limits: (Limit | undefined)[] = []
  readonly #chargeSets: (ChargeSet | undefined)[] = []
  /** By slot. A grant that is over stays until its slot is used again. */
  readonly #grants: (Grant | undefined)[] = []
  #isClosed = false

  constructor(service: LedgerService, send: Send) {
    this.#service = service
    this.send = send
  }

  /** Does what the worker says, in its order, and answers. Does nothing for a worker that has ended. */
  receive(all: readonly Told[]): void {
    if (this.#isClosed) return
    const answers: Answer[] = []
    for (const told of all) {
      const answer = this.#do(told)
      if (answer !== undefined) answers.push(answer)
    }
    if (answers.length > 0) this.send(answers)
    this.#service.onChange()
  }

  /** The worker has ended: the upstream may still count what it had in flight, a little later than now. */
  close(): void {
    const { ledger } = this.#service
    if (this.#isClosed) return
    this.#isClosed = true
    this.#service.forget(this)
    for (const grant of this.#grants) {
      if (grant === undefined) continue
      const { rest, chargeSet } = grant
      while (grant.uncommitted > 0) ledger.abandon(grant)
      while (rest !== undefined && rest.uncommitted > 0) ledger.abandon(rest)
      while (chargeSet.hasConcurrent && grant.open > 0) ledger.leave(grant)
    }
  }

  #do(told: Told): Answer | undefined {
    const { ledger, clock, demands, state } = this.#service
    switch (told[0]) {
      case 'begin':
        return ['state', state]
      case 'limit':
        this.#limits[told[1]] = limitOfTold(told[2])
        return undefined
      case 'set': {
        const [, number, partition, account, limits, units] = told
        const charges = limits.map((limit, i) => ({ limit: this.#limits[limit]!, units: units[i]! }))
        this.#chargeSets[number] = chargeSetOf(partition, charges, account)
        return undefined
      }
      case 'forget':
        // Grants in flight keep a reference to theirs.
        if (told[1] === 'limit') this.#limits[told[2]] = undefined
        else this.#chargeSets[told[2]] = undefined
        return undefined
      case 'charge':
        return this.#charge(told[1], this.#chargeSets[told[2]]!, told[3], told[4])
      case 'commit':
        ledger.commit(this.#grantOf(told[1], told[2]), told[3])
        return undefined
      case 'abandon':
      case 'refund':
      case 'leave':
        ledger[told[0]](this.#grantOf(told[1], told[2]))
        return undefined
      case 'feedback': {
        const [, set, chargedAt, feedback] = told
        const chargeSet = this.#chargeSets[set]!
        ledger.applyFeedback(new Grant(chargeSet, chargedAt, 0, []), feedback)
        if (feedback.kind === 'pause') this.#service.tellAll(['paused', chargeSet.account, feedback.ms])
        return undefined
      }
      case 'exchange':
        return ['heard', told[1], demands.exchange(this, queueKey(told[2], told[3]), told[4], clock.now())]
    }
  }

  #charge(slot: number, chargeSet: ChargeSet, wanted: number, turn: QueueTurn | undefined): Answer {
    const { ledger, demands } = this.#service
    let grant: Grant
    try {
      grant = ledger.charge(chargeSet, wanted, turn)
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) throw error
      return ['unavailable', slot, error.cause instanceof Error ? error.cause.message : error.message]
    }
    this.#grants[slot] = grant
    const turns = turn && demands.serve(queueKey(chargeSet.partition, turn.queue), turn.costs, grant.granted)
    return ['granted', slot, toldGrant(grant, turns)]
  }

  #grantOf(slot: number, isRest: boolean): Grant {
    const grant = this.#grants[slot]!
    return isRest ? grant.rest! : grant
  }
}

function queueKey(partition: string, queue: string): string {
  return `${partition}\n${queue}`
}
