import type { Waiter } from './admission.ts'
import type { FairScheduler } from './fair-scheduler.ts'
import type { AvailabilityForecast } from './forecast.ts'
import type { QueuedCall } from './queued-call.ts'

/** How often it is computed anew who comes while a call waits, because that is known only once it is known how long. */
const ROUNDS = 3

export interface Eta {
  /** Its turn, from 1, in the order of those that wait now. */
  readonly position: number
  readonly waitMs: number
  readonly isTooLate: boolean
  /** Whether it would be in time if there were no other clients. */
  readonly isBecauseOfOthers: boolean
}

/** When a call that comes now will have its turn, by those that wait and those that will come and go first. */
export function estimateEta(
  scheduler: FairScheduler<QueuedCall>,
  forecast: AvailabilityForecast,
  { client, priority, maxWaitMs }: Waiter,
): Eta {
  const now = scheduler.positionOfNext(client.name, priority, 0)
  let turn = now
  for (let round = 0; round < ROUNDS; round++) {
    turn = scheduler.positionOfNext(client.name, priority, forecast.waitMs(turn.position))
  }
  const { position, alone } = turn
  const waitMs = forecast.waitMs(position)
  const isTooLate = forecast.isLate(waitMs, position, maxWaitMs)
  const isBecauseOfOthers = isTooLate && position > alone && !forecast.isLate(forecast.waitMs(alone), alone, maxWaitMs)
  return { position: now.position, waitMs, isTooLate, isBecauseOfOthers }
}
