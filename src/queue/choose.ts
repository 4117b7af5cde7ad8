import type { Contention } from './contention.ts'
import type { Place } from './place.ts'

export interface Choice {
  readonly chosen: readonly Place[]
  /** Whether some of them take what it was the turn of others to take. */
  readonly isTurnOfOthers: boolean
}

/**
 * Whose calls to charge together, of one charge set and `most` at most: those that have their turn when `free` calls can be admitted,
 * and as many as nobody claims.
 */
export function choose(contention: Contention<Place>, most: number, free: number, unclaimed: number): Choice {
  const chosen: Place[] = []
  let isTurnOfOthers = false
  for (const { place, position } of contention.next(unclaimed > 0 ? Infinity : free)) {
    const isOurTurn = position <= free || chosen.length < unclaimed
    if (!isOurTurn || chosen.length >= most || (chosen.length > 0 && place.chargeSet !== chosen[0]!.chargeSet)) break
    chosen.push(place)
    isTurnOfOthers = position > free
  }
  return { chosen, isTurnOfOthers }
}
