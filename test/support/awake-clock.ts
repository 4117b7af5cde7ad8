import { setTimeout as pause } from 'node:timers/promises'

const TICK_MS = 5

let ticks = 0
const tick = (): void => {
  ticks++
  setTimeout(tick, TICK_MS).unref()
}
tick()

/**
 * Milliseconds that this process was there to notice, by ticks of a timer. On a busy machine they pass more slowly than time
 * does, as everything else does there: so a bound on how long something takes holds there, too, and what hangs still exceeds it.
 */
export function awakeMs(): number {
  return ticks * TICK_MS
}

/** Waits for so long of that time. */
export async function pauseAwake(ms: number): Promise<void> {
  for (const until = awakeMs() + ms; awakeMs() < until;) await pause(TICK_MS)
}
