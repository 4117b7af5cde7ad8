/** The greatest number of the given times that lie in one window `(t - windowMs, t]`. Times must ascend. */
export function worstCount(times: readonly number[], windowMs: number): number {
  let worst = 0
  let first = 0
  for (let last = 0; last < times.length; last++) {
    while (times[first]! <= times[last]! - windowMs) first++
    worst = Math.max(worst, last - first + 1)
  }
  return worst
}
