import { describe, expect, it } from 'vitest'
import { clockOf, systemClock } from '../../src/time/clock.ts'

/** A machine whose clocks are moved by hand. */
function machineAt(uptimeMs: number, suspendedMs = 0) {
  const at = { awakeMs: 20, wallMs: Date.UTC(2026, 10, 21), uptimeMs, suspendedMs }
  const machine = {
    awakeMs: () => at.awakeMs,
    wallMs: () => at.wallMs,
    uptimeMs: () => at.uptimeMs,
    uptimeAwakeMs: () => at.uptimeMs - at.suspendedMs,
    boot: 'this',
  }
  return {
    machine,
    pass(ms: number): void {
      at.awakeMs += ms
      at.wallMs += ms
      at.uptimeMs += ms
    },
    suspend(ms: number): void {
      at.suspendedMs += ms
      at.wallMs += ms
      at.uptimeMs += ms
    },
    setWall(byMs: number): void {
      at.wallMs += byMs
    },
  }
}

describe('the clock of a machine', () => {
  it.each([600_000, -600_000])(
    'counts durations on when the wall clock is set by %i ms, and tells moments by it',
    (step) => {
      const { machine, pass, setWall } = machineAt(60_000)
      const clock = clockOf(machine)
      const [now, wall] = [clock.now(), clock.wall()]
      pass(1_000)
      setWall(step)
      expect(clock.now() - now).toBe(1_000)
      expect(clock.wall() - wall).toBe(1_000 + step)
      pass(1_000)
      expect(clock.now() - now).toBe(2_000)
    },
  )

  it('counts the time of a suspend, from the first call after it on', () => {
    const { machine, pass, suspend } = machineAt(60_000)
    const clock = clockOf(machine)
    const now = clock.now()
    pass(1_000)
    suspend(600_000)
    expect(clock.now() - now).toBe(601_000)
    pass(1_000)
    expect(clock.now() - now).toBe(602_000)
  })

  it('tells a suspend during which the wall clock was set from one during which it was not', () => {
    const { machine, suspend, setWall } = machineAt(60_000)
    const clock = clockOf(machine)
    const now = clock.now()
    suspend(600_000)
    setWall(-30_000)
    expect(clock.now() - now).toBe(600_000)
  })

  it('is the same for two processes of one start of the machine', () => {
    const { machine, pass, setWall } = machineAt(60_000)
    const first = clockOf(machine)
    pass(5_000)
    setWall(30_000)
    const second = clockOf({ ...machine, awakeMs: () => machine.awakeMs() - 5_000 })
    expect(second.now()).toBe(first.now())
    expect([first.boot, second.boot]).toEqual(['this', 'this'])
  })

  it('does not claim to be the same where the machine was suspended, which is known to a hundredth of a second only', () => {
    expect(clockOf(machineAt(60_000, 10_000).machine).boot).toBeUndefined()
  })

  it('is no time of day, so that whoever takes it for one sees that at once', () => {
    expect(new Date(systemClock.now()).getUTCFullYear()).toBeLessThan(2000)
    expect(Math.abs(systemClock.wall() - Date.now())).toBeLessThan(60_000)
  })
})
