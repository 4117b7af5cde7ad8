import type { CachePeers } from '../cache/open-cache.ts'
import type { FromWorker, ToWorker } from './worker-link.ts'

/** How the cache of this worker learns of writes through the other workers, by way of the first process. */
export function cachePeers(): CachePeers {
  let ended = new Set<string>()
  const send = (): void => {
    process.send?.({ invalidated: [...ended] } satisfies FromWorker, () => undefined)
    ended = new Set()
  }
  return {
    tell(resource) {
      // What is ended in one turn of the event loop goes in one message.
      if (ended.size === 0) setImmediate(send)
      ended.add(resource)
    },
    onTold(forget) {
      process.on('message', ({ invalidated = [] }: ToWorker) => {
        for (const resource of invalidated) forget(resource)
      })
    },
  }
}
