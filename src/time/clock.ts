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
   * machine is suspended, and never goes back.
   */
  now(): number
  /** The time of day. It may jump, both ways. */
  wall(): EpochMs
  /**
   * Names the start of the machine. If two processes name the same, their `now` is the same. Undefined where that is not
   * known for sure.
   */
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

/**
 * Added to the time since the machine began, so that a time shortly before another is not negative. And so that a use of it
 * as a time of day is wrong at once, in 1973, and not only on a machine whose clock was set.
 */
const BASE_MS = 1e11
/** A suspend takes longer. The uptime is told in hundredths of a second, and the wall clock goes in milliseconds. */
const SUSPEND_MS = 500

/** What a machine tells of time, in milliseconds. */
export interface Machine {
  /** Since some instant; stands still while the machine is suspended (CLOCK_MONOTONIC). */
  awakeMs(): number
  /** The time of day. */
  wallMs(): number
  /** Since the machine began, suspends included (CLOCK_BOOTTIME); less where a container is told its own. */
  uptimeMs(): number
  /** The same, without the time in which it was suspended. */
  uptimeAwakeMs(): number
  /** Names this start of it. */
  readonly boot: string | undefined
}

/**
 * The clock of a machine. After a suspend the wall clock has moved against the one that stood still, as it has after it was set;
 * then the uptime tells which of the two it was. To ask it each time would cost more than all the rest.
 */
export function clockOf(machine: Machine): Clock {
  const asleepMs = (): number => machine.uptimeMs() - machine.uptimeAwakeMs()
  let asleepBeforeMs = asleepMs()
  let wallAheadMs = machine.wallMs() - machine.awakeMs()
  let offsetMs = BASE_MS + machine.uptimeAwakeMs() - machine.awakeMs() + Math.max(0, asleepBeforeMs)
  return {
    // How long the machine was suspended before is known to a hundredth of a second only.
    boot: asleepBeforeMs < SUSPEND_MS ? machine.boot : undefined,
    now() {
      const awakeMs = machine.awakeMs()
      const aheadMs = machine.wallMs() - awakeMs
      if (Math.abs(aheadMs - wallAheadMs) > SUSPEND_MS) {
        wallAheadMs = aheadMs
        const suspendedMs = asleepMs() - asleepBeforeMs
        if (suspendedMs > SUSPEND_MS) {
          asleepBeforeMs += suspendedMs
          offsetMs += suspendedMs
        }
      }
      return offsetMs + awakeMs
    },
    wall: () => machine.wallMs() as EpochMs,
    schedule(delayMs, wake) {
      // Node fires a delay above 2^31-1 ms at once; whoever waits longer than 24 days may look again by then.
      const timer = setTimeout(wake, Math.min(delayMs, 0x7fff_ffff))
      return { cancel: () => clearTimeout(timer) }
    },
    soon: (run) => void setImmediate(run),
  }
}

/** Linux tells it; elsewhere less is known of the time between two processes, see `MemoryLedger`. */
function bootId(): string | undefined {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch {
    return undefined
  }
}

export const systemClock: Clock = clockOf({
  awakeMs: () => performance.now(),
  wallMs: () => Date.now(),
  uptimeMs: () => uptime() * 1_000,
  uptimeAwakeMs: () => Number(process.hrtime.bigint()) / 1e6,
  boot: bootId(),
})
