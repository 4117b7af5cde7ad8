import { expect, it, onTestFinished } from 'vitest'
import { timeOf } from '../../../src/server/admin/list.ts'

it.each([
  ['2027-01-31', '2027-01-31T00:00:00.000Z'],
  ['2027-01-31T18:00', '2027-01-31T18:00:00.000Z'],
  ['2027-01-31 18:00:30.5', '2027-01-31T18:00:30.500Z'],
  ['2027-01-31T18:00Z', '2027-01-31T18:00:00.000Z'],
  ['2027-01-31T18:00+02:00', '2027-01-31T16:00:00.000Z'],
  ['2027-01-31T18:00:00+0200', '2027-01-31T16:00:00.000Z'],
])('reads %s in UTC, whatever the time zone of the machine', (text, time) => {
  const { TZ } = process.env
  onTestFinished(() => {
    if (TZ === undefined) delete process.env['TZ']
    else process.env['TZ'] = TZ
  })
  process.env['TZ'] = 'America/New_York'
  expect(new Date(2027, 0, 31).getTimezoneOffset()).toBe(300)
  expect(timeOf('since', text)).toBe(time)
})
