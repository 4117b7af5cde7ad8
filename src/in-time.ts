import type { Clock } from './clock.ts'

/** The answer, or an error if there is none within so many milliseconds; then whatever comes later is for nobody. */
export function inTime<T>(answer: Promise<T>, withinMs: number, clock: Clock): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = clock.schedule(withinMs, () => reject(new Error(`no answer within ${withinMs} ms`)))
    answer.finally(() => timer.cancel()).then(resolve, reject)
  })
}
