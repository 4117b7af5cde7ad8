import type { Waiter } from './admission.ts'
import type { Contention } from './contention.ts'
import type { Outlook } from './outlook.ts'
import type { QueuedCall } from './queued-call.ts'

/** How often it is computed anew who comes while a call waits, because that is known only once it is known how long. */
const ROUNDS = 3

export interface ExpectedTurn {
  /** Its turn, from 1, in the order of those that wait now. */
  readonly position: number
  readonly waitMs: number
  readonly isTooLate: boolean
  /** Whether it would be in time if there were no other clients. */
  readonly isBecauseOfOthers: boolean
}

/** When a call that comes now will have its turn, by those that wait and those that will come and go first. */
export function expectTurn(
  contention: Contention<QueuedCall>,
  outlook: Outlook,
  { client, priority, maxWaitMs }: Waiter,
): ExpectedTurn {
  const now = contention.positionOfNext(client.name, priority, 0)
  let turn = now
  for (let round = 0; round < ROUNDS; round++) {
    turn = contention.positionOfNext(client.name, priority, outlook.waitMs(turn.position))
  }
  const { position, alone } = turn
  const waitMs = outlook.waitMs(position)
  const isTooLate = outlook.isLate(waitMs, position, maxWaitMs)
  const isBecauseOfOthers = isTooLate && position > alone && !outlook.isLate(outlook.waitMs(alone), alone, maxWaitMs)
  return { position: now.position, waitMs, isTooLate, isBecauseOfOthers }
}
