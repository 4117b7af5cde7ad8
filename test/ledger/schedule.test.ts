import { expect, it } from 'vitest'
import { limitOf } from '../../src/ledger/limit.ts'
import { Schedule } from '../../src/ledger/schedule.ts'

const window = limitOf({ id: 'window', class: 'any', requests: 5, windowMs: 1_000 })
const atOnce = limitOf({ id: 'at once', class: 'any', kind: 'concurrent', requests: 5 })

it('tells to ask again when the wait is over, where what is known to come back does not suffice', () => {
  const schedule = new Schedule(0, [{ limit: window, units: 2, free: -3, releases: [{ inMs: 10, units: 1 }] }])
  expect(schedule.waitMs(1, 0)).toBe(1_000)
  expect([schedule.freeAt(500), schedule.freeAt(999), schedule.freeAt(1_000)]).toEqual([-1, -1, 1])
})

it('does not tell to ask again and again at once, where no window says when', () => {
  const schedule = new Schedule(0, [{ limit: atOnce, units: 1, free: 0, releases: [] }])
  expect(schedule.waitMs(1, 0)).toBe(100)
  expect([schedule.freeAt(99), schedule.freeAt(100)]).toEqual([0, 1])
})

it('never tells to ask for what no limit ever lets pass', () => {
  const schedule = new Schedule(0, [{ limit: window, units: 6, free: 5, releases: [] }])
  expect(schedule.waitMs(1, 1e9)).toBe(Infinity)
  expect(schedule.freeAt(1e9)).toBe(0)
})

it('tells of less after others were granted some, until a window later', () => {
  const releases = [{ inMs: 100, units: 3 }]
  const schedule = new Schedule(0, [{ limit: window, units: 1, free: 2, releases }]).without(4, 50)
  expect([schedule.freeAt(50), schedule.freeAt(100)]).toEqual([-2, 1])
  expect([schedule.waitMs(1, 50), schedule.waitMs(2, 50, 30)]).toEqual([50, 1_000 + 10 + 30])
})

it('has what others were granted come back at the end of a window of the calendar', () => {
  const limit = limitOf({ id: 'hour', class: 'any', requests: 5, windowMs: 3_600_000, kind: 'calendar' })
  const releases = [{ inMs: 60_000, units: 3 }]
  const schedule = new Schedule(0, [{ limit, units: 1, free: 2, releases }])
  expect([1, 5].map((calls) => schedule.without(2, 50).waitMs(calls, 50))).toEqual([59_950, 59_950])
  // These were granted in the next window.
  expect([1, 3].map((calls) => schedule.without(3, 60_000).waitMs(calls, 60_000))).toEqual([0, 3_600_000])
})

it('takes others to have used a unit each, where calls cost different amounts', () => {
  const limit = limitOf({ id: 'varied', class: 'any', requests: 100, windowMs: 1_000, isVaried: true })
  const schedule = new Schedule(0, [{ limit, units: 40, free: 90, releases: [] }]).without(4, 50)
  expect([schedule.freeAt(50), schedule.waitMs(1, 50)]).toEqual([2, 0])
})

it('tells of nothing free before the upstream wants calls again', () => {
  const schedule = new Schedule(0, [{ limit: window, units: 1, free: 5, releases: [] }], 300)
  expect([schedule.freeAt(299), schedule.freeAt(300), schedule.waitMs(1, 100)]).toEqual([0, 5, 200])
})
