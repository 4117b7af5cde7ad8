import { setTimeout as pause } from 'node:timers/promises'

const DAY_MS = 86_400_000
/** For a test that counts by the day, on a busy machine. */
const ENOUGH_MS = 30_000

/** Waits for the next day, by UTC, where so little is left of this one that a test which counts by the day could see two. */
export async function oneDay(): Promise<void> {
  const leftMs = DAY_MS - (Date.now() % DAY_MS)
  if (leftMs < ENOUGH_MS) await pause(leftMs + 100)
}
