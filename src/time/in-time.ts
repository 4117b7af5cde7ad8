import type { Clock } from './clock.ts'

/**
 * The answer, or an error if there is none within so many milliseconds; then whatever comes later is for nobody. Where it was
 * this process that stood still, an answer that is there is read before that.
 */
export function inTime<T>(answer: Promise<T>, withinMs: number, clock: Clock): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = clock.schedule(withinMs, () => clock.soon(() => reject(new Error(`no answer within ${withinMs} ms`))))
    answer.finally(() => timer.cancel()).then(resolve, reject)
  })
}
