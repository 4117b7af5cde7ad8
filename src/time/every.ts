import type { Clock, Timer } from './clock.ts'

/** Calls `act` every `ms` milliseconds, for the first time when `ms` are over. Returns a function that stops this. */
export function every(ms: number, clock: Clock, act: () => void): () => void {
  let timer: Timer
  const later = (): void => {
    timer = clock.schedule(ms, () => {
      later()
      act()
    })
  }
  later()
  return () => timer.cancel()
}
