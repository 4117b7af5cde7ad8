import type { Clock } from './clock.ts'

/**
 * Settles as `answer` does. Rejects with an Error of `message` if that takes longer than `withinMs` milliseconds. A later answer
 * is ignored. If this process itself stood still, an answer that has arrived meanwhile still wins: what is ready to be read is
 * read first.
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
