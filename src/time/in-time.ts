import type { Clock } from './clock.ts'

/**
 * The answer; or an error, with `message`, if there is none within that many milliseconds. An answer that comes later is
 * ignored. If this process itself stood still, an answer that has arrived meanwhile still wins: the timer lets what is ready to
 * be read be read first.
 */
export function inTime<T>(
  answer: Promise<T>,
  withinMs: number,
  clock: Clock,
  message = `no answer within ${withinMs} ms`,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = clock.schedule(withinMs, () => clock.soon(() => reject(new Error(message))))
    answer.finally(() => timer.cancel()).then(resolve, reject)
  })
}
