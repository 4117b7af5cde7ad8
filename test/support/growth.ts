const TIMES = 4
/** Linear is 4, and the square is 16. */
const MOST = 8
/** So short that even on a machine that is very busy now and then no one else has a turn in between. */
const LEAST_MS = 0.1
const MOST_ROUNDS = 1_000

/**
 * Whether something takes no more than eight times as long for an input of four times the size. Both sizes are timed by
 * turns, and of each the least time counts, so that what else the machine does only makes for another turn.
 */
export function growsLinearly(prepare: (size: number) => () => unknown, size: number): boolean {
  const [small, large] = [prepare(size), prepare(TIMES * size)]
  for (let i = 0; i < 20; i++) void [small(), large()] // compiled by then
  let repeats = 1
  while (timeOf(small, repeats) < LEAST_MS) repeats *= 2
  let [ofSmall, ofLarge] = [Infinity, Infinity]
  for (let round = 0; round < MOST_ROUNDS; round++) {
    ofSmall = Math.min(ofSmall, timeOf(small, repeats))
    ofLarge = Math.min(ofLarge, timeOf(large, repeats))
    if (round >= 5 && ofLarge < MOST * ofSmall) return true
  }
  return false
}

function timeOf(run: () => unknown, repeats: number): number {
  const before = performance.now()
  for (let i = 0; i < repeats; i++) run()
  return performance.now() - before
}
