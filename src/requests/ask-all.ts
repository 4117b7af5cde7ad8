import { type PeersOptions, RequestPeers } from './peers.ts'
import { mergeAnswers, type RequestAnswers, type RequestQuestion } from './question.ts'

/** What became of calls, wherever they were served. */
export interface AllRequests {
  ask(question: RequestQuestion): Promise<RequestAnswers>
  close(): Promise<void>
}

/** Asks this instance, and all others that share its Redis. */
export function openAllRequests(options: PeersOptions): AllRequests {
  const { store, answer } = options
  const peers = store.kind === 'redis' ? new RequestPeers(options) : undefined
  return {
    async ask(question) {
      const asked = peers === undefined ? [answer(question)] : [answer(question), peers.ask(question)]
      return mergeAnswers(await Promise.all(asked), question)
    },
    close: () => peers?.close() ?? Promise.resolve(),
  }
}
