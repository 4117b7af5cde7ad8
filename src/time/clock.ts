/*
 * src/time: clocks that tests can step, timeouts, cancellation.
 * It imports no other folder, and everything that waits or measures uses it.
 * A change here must prove that durations survive suspends and clocks that are set (test/time).
 */

import { readFileSync } from 'node:fs'
import { uptime } from 'node:os'

declare const epoch: unique symbol

/**
 * A moment: milliseconds since 1970, UTC, by the wall clock. That clock may be wrong, and may be set forward or back at
 * any time, by NTP or an administrator. So a moment is for what others read or wrote (dates, expiries, calendar
 * windows), and never for how long something took. The compiler refuses `Clock.now()` where a moment is expected.
 */
export type EpochMs = number & { readonly [epoch]: true }

/** The source of time for everything that waits or counts. Tests can step it. */
export interface Clock {
  /**
   * Milliseconds of a clock that nobody sets, for durations and deadlines. Its zero means nothing. It runs on while the
   * machine is suspended, and never goes back.
   */
  now(): number
  /** The time of day. It may jump in both directions. */
  wall(): EpochMs
  /**
   * The id of this start of the machine. If two processes have the same, their `now` is the same. Undefined where that
   * is not certain.
   */
  readonly boot: string | undefined
  /**
   * Calls `wake` once after `delayMs`, unless the returned timer is cancelled first. What has arrived by then is read before. So an
   * answer that came in time counts as in time, even if this process itself stood still. A wait of more than 24 days may end early:
   * `wake` must look at the time again.
   */
  schedule(delayMs: number, wake: () => void): Timer
  /** Calls `run` after everything that is ready to run now. */
  soon(run: () => void): void
}

export interface Timer {
  cancel(): void
}

/** A number in [0, 1), as `Math.random` gives. */
export type Random = () => number

/**
 * Added to the time since boot, so that times shortly before boot are not negative. It also makes a use as a time of
 * day wrong at once (1973), and not only on a machine whose clock was set.
 */
const BASE_MS = 1e11
/** The least time awake between two looks at the wall clock. To read it costs as much as the rest of `now`. */
const LOOK_MS = 1
/** Only what is longer than this counts as a suspend. The uptime has a resolution of 10 ms, and the wall clock one of 1 ms. */
const SUSPEND_MS = 500

/** The clocks of a machine, in milliseconds. */
export interface Machine {
  /** Since some instant, without suspends (CLOCK_MONOTONIC). */
  awakeMs(): number
  /** The time of day. */
  wallMs(): number
  /** Since boot, including suspends (CLOCK_BOOTTIME). A container may have its own, smaller value. */
  uptimeMs(): number
  /** Since boot, without suspends. */
  uptimeAwakeMs(): number
  /** The id of this boot. */
  readonly boot: string | undefined
}

/**
 * Makes a clock from those of a machine. If the wall clock has moved against the monotonic one, the machine was
 * suspended or its clock was set. Only then the uptime is read, which tells which of the two it was: to read it each
 * time would cost more than all the rest. A suspend is noticed a millisecond after its end, or sooner.
 */
export function clockOf(machine: Machine): Clock {
  const asleepMs = (): number => machine.uptimeMs() - machine.uptimeAwakeMs()
  let asleepBeforeMs = asleepMs()
  let wallAheadMs = machine.wallMs() - machine.awakeMs()
  let offsetMs = BASE_MS + machine.uptimeAwakeMs() - machine.awakeMs() + Math.max(0, asleepBeforeMs)
  let lookedAtMs = -Infinity
  const look = (awakeMs: number): void => {
    lookedAtMs = awakeMs
    const aheadMs = machine.wallMs() - awakeMs
    if (Math.abs(aheadMs - wallAheadMs) <= SUSPEND_MS) return
    wallAheadMs = aheadMs
    const suspendedMs = asleepMs() - asleepBeforeMs
    if (suspendedMs <= SUSPEND_MS) return
    asleepBeforeMs += suspendedMs
    offsetMs += suspendedMs
  }
  return {
    // How long suspends before the start of this process took is known to 10 ms only: `now` of two processes may differ.
    boot: asleepBeforeMs < SUSPEND_MS ? machine.boot : undefined,
    now() {
      const awakeMs = machine.awakeMs()
      if (awakeMs - lookedAtMs >= LOOK_MS) look(awakeMs)
      return offsetMs + awakeMs
    },
    wall: () => machine.wallMs() as EpochMs,
    schedule(delayMs, wake) {
      // Node fires a delay above 2^31-1 ms at once. So a longer wait ends after 24 days, and its caller looks again.
      return new SystemTimer(Math.min(delayMs, 0x7fff_ffff), wake)
    },
    soon: (run) => void setImmediate(run),
  }
}

/** Node runs timers before it reads sockets, and immediates after that. So a timer that is due wakes in an immediate. */
class SystemTimer implements Timer {
  readonly #timeout: NodeJS.Timeout
  readonly #wake: () => void
  #immediate: NodeJS.Immediate | undefined

  constructor(delayMs: number, wake: () => void) {
    this.#wake = wake
    this.#timeout = setTimeout(SystemTimer.#due, delayMs, this)
  }

  static #due(timer: SystemTimer): void {
    timer.#immediate = setImmediate(timer.#wake)
  }

  cancel(): void {
    clearTimeout(this.#timeout)
    if (this.#immediate !== undefined) clearImmediate(this.#immediate)
  }
}

/** Linux has a boot id. Elsewhere less is known of the time between two processes; see `MemoryLedger`. */
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
