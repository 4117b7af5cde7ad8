import { readFileSync } from 'node:fs'
import { uptime } from 'node:os'

declare const epoch: unique symbol

/**
 * A moment: milliseconds since 1970, UTC, by the wall clock. That clock may be wrong, and is set forward or back at any
 * time (NTP after boot, an administrator), so a moment is for what others read or wrote (dates, expiries, windows of the
 * calendar), and never for how long something took. The compiler refuses `Clock.now()` where a moment is asked for.
 */
export type EpochMs = number & { readonly [epoch]: true }

/** The source of time for everything that waits or counts, so that tests can step it. */
export interface Clock {
  /**
   * Milliseconds of a clock that nobody sets: for durations and deadlines. Its zero means nothing. It goes on while the
   * machine is suspended, which it may notice a second late, and never goes back.
   */
  now(): number
  /** The time of day. It may jump, both ways. */
  wall(): EpochMs
  /** Names the start of the machine: `now` of two processes can be compared if both know it, and it is the same. */
  readonly boot: string | undefined
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

/** The moment that lies so many milliseconds after another, or before it. */
export function after(moment: EpochMs, ms: number): EpochMs {
  return (moment + ms) as EpochMs
}

/**
 * Added to the time since the machine began, so that a time shortly before another is not negative. And so that a use of it
 * as a time of day is wrong at once, in 1973, and not only on a machine whose clock was set.
 */
const BASE_MS = 1e11
/** How often to look whether the machine was suspended. */
const LOOK_EVERY_MS = 1_000
/** What `uptime` is known to within, and then some: it is told in hundredths of a second. */
const SUSPEND_MS = 500

let asleepBeforeMs = asleepMs()
let offsetMs = BASE_MS + Number(process.hrtime.bigint()) / 1e6 - performance.now() + Math.max(0, asleepBeforeMs)
let lookAtMs = 0

/** The clock of this machine. `performance.now` stands still during a suspend (CLOCK_MONOTONIC), `uptime` does not. */
export const systemClock: Clock = {
  boot: bootId(),
  now() {
    const awakeMs = performance.now()
    if (awakeMs >= lookAtMs) lookForSuspend(awakeMs)
    return offsetMs + awakeMs
  },
  wall: () => Date.now() as EpochMs,
  schedule(delayMs, wake) {
    // Node fires a delay above 2^31-1 ms at once; whoever waits longer than 24 days may look again by then.
    const timer = setTimeout(wake, Math.min(delayMs, 0x7fff_ffff))
    return { cancel: () => clearTimeout(timer) }
  },
  soon: (run) => void setImmediate(run),
}

function lookForSuspend(awakeMs: number): void {
  lookAtMs = awakeMs + LOOK_EVERY_MS
  const suspendedMs = asleepMs() - asleepBeforeMs
  if (suspendedMs < SUSPEND_MS) return
  asleepBeforeMs += suspendedMs
  offsetMs += suspendedMs
}

/** How long the machine was suspended since it began; negative where a container is told its own uptime. */
function asleepMs(): number {
  return uptime() * 1_000 - Number(process.hrtime.bigint()) / 1e6
}

/** Linux tells it; elsewhere what is known of the time between two processes is less, see `LedgerFiles`. */
function bootId(): string | undefined {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch {
    return undefined
  }
}
