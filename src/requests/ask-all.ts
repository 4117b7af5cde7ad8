import type { StoreConfig } from '../schema/schema.ts'
import type { Clock } from '../time/clock.ts'
import { RequestPeers } from './peers.ts'
import { mergeAnswers, type RequestAnswers, type RequestQuestion } from './question.ts'

/** What became of calls, wherever they were served. */
export interface AllRequests {
  ask(question: RequestQuestion): Promise<RequestAnswers>
  close(): Promise<void>
}

export interface AllRequestsOptions {
  readonly store: StoreConfig
  readonly clock: Clock
  /** The name under which this instance is told from others. */
  readonly name: string
  /** What this instance, with all of its workers, knows. */
  answer(question: RequestQuestion): Promise<RequestAnswers>
}

/** Asks this instance, and all others that share its Redis. */
export function openAllRequests({ store, clock, name, answer }: AllRequestsOptions): AllRequests {
  const peers = store.kind === 'redis' ? new RequestPeers({ store, clock, name, answer }) : undefined
  return {
    async ask(question) {
      const asked = peers === undefined ? [answer(question)] : [answer(question), peers.ask(question)]
      return mergeAnswers(await Promise.all(asked), question)
    },
    close: () => peers?.close() ?? Promise.resolve(),
  }
}
