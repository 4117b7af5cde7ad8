/** The source of time for everything that waits or counts, so that tests can step it. */
export interface Clock {
  /** Milliseconds since 1970, near to the wall clock's; never goes back while the process runs. */
  now(): number
  /** Calls `wake` once after `delayMs`, unless the returned timer is cancelled first. */
  schedule(delayMs: number, wake: () => void): Timer
  /** Calls `run` once what is ready to run now has run. */
  soon(run: () => void): void
}

export interface Timer {
  cancel(): void
}

/** A number in [0, 1), as `Math.random` gives. */
export type Random = () => number

const startedAt = performance.timeOrigin

export const systemClock: Clock = {
  now: () => startedAt + performance.now(),
  schedule(delayMs, wake) {
    // Node fires a delay above 2^31-1 ms at once; whoever waits longer than 24 days may look again by then.
    const timer = setTimeout(wake, Math.min(delayMs, 0x7fff_ffff))
    return { cancel: () => clearTimeout(timer) }
  },
  soon: (run) => void setImmediate(run),
}
