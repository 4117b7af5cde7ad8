import type { Clock, Timer } from './clock.ts'

/** Calls `act` each time that so many milliseconds are over. Returns what ends that. */
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
