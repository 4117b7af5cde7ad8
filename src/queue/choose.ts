import type { FairScheduler } from './fair-scheduler.ts'
import type { QueuedCall } from './queued-call.ts'

export interface Choice {
  readonly chosen: readonly QueuedCall[]
  /** Whether some of them take what it was the turn of others to take. */
  readonly isTurnOfOthers: boolean
}

/**
 * Whose calls to charge together, of one charge set and `most` at most: those that have their turn when `free` calls can be admitted,
 * and as many as nobody claims.
 */
export function choose(scheduler: FairScheduler<QueuedCall>, most: number, free: number, unclaimed: number): Choice {
  const chosen: QueuedCall[] = []
  let isTurnOfOthers = false
  for (const { queuedCall, position } of scheduler.next(unclaimed > 0 ? Infinity : free)) {
    const isOurTurn = position <= free || chosen.length < unclaimed
    if (!isOurTurn || chosen.length >= most || (chosen.length > 0 && queuedCall.chargeSet !== chosen[0]!.chargeSet))
      break
    chosen.push(queuedCall)
    isTurnOfOthers = position > free
  }
  return { chosen, isTurnOfOthers }
}
