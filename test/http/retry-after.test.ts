import { describe, expect, it } from 'vitest'
import type { EpochMs } from '../../src/time/clock.ts'
import { retryAfterOf } from '../../src/http/retry-after.ts'

const NOW = Date.parse('Sat, 21 Nov 2026 10:00:00 GMT') as EpochMs

describe('Retry-After', () => {
  it.each<[string | string[], number | undefined]>([
    ['120', 120_000],
    // None at all says nothing of when.
    ['0', undefined],
    ['0.0', undefined],
    [' 5 ', 5_000],
    ['2.0', 2_000],
    ['2.5', 2_500],
    ['2.', 2_000],
    ['Sat, 21 Nov 2026 10:00:30 GMT', 30_000],
    ['Saturday, 21-Nov-26 10:00:30 GMT', 30_000],
    ['Sat Nov 21 10:00:30 2026', 30_000],
    ['Sat Nov 21 10:00:30 2026 GMT', 30_000],
    ['2026-11-21T10:00:30Z', 30_000],
    ['Sat, 21 Nov 2026 09:59:00 GMT', undefined],
    ['9'.repeat(400), 2 ** 31 * 1_000],
    ['Fri, 31 Dec 9999 23:59:59 GMT', 2 ** 31 * 1_000],
    // As seconds these would be decades: they are moments, in seconds or milliseconds since 1970.
    [String(NOW / 1_000 + 30), 30_000],
    [String(NOW + 30_000), 30_000],
    [String(NOW / 1_000 - 30), undefined],
    ['-5', undefined],
    ['+5', undefined],
    ['1e3', undefined],
    ['0x10', undefined],
    ['.5', undefined],
    ['soon', undefined],
    ['Sat, 41 Nov 2026 10:00:30 GMT', undefined],
    ['', undefined],
    [' ', undefined],
    // On two lines, or joined by a proxy: the latest of what can be read.
    [['30', '30'], 30_000],
    [['30', '60'], 60_000],
    [['60', 'soon'], 60_000],
    [['0', '60'], 60_000],
    ['30, 30', 30_000],
    [['Sat, 21 Nov 2026 10:00:30 GMT', 'Saturday, 21-Nov-26 10:00:40 GMT'], 40_000],
    ['Sat, 21 Nov 2026 10:00:30 GMT, 10', 30_000],
    [[], undefined],
  ])('%j is %s', (value, expected) => {
    expect(retryAfterOf({ 'retry-after': value }, NOW)).toBe(expected)
  })

  it.each([
    [{ 'retry-after-ms': '150', 'retry-after': '1' }, 150],
    [{ 'retry-after-ms': '1500.5' }, 1_500.5],
    [{ 'retry-after-ms': 'soon', 'retry-after': '1' }, 1_000],
    [{ 'retry-after-ms': '0', 'retry-after': '1' }, 1_000],
    [{ 'retry-after-ms': ['150', '200'], 'retry-after': '1' }, 1_000],
    [{ 'retry-after-ms': '9'.repeat(400) }, 2 ** 31 * 1_000],
  ])('is more exact in milliseconds: %j', (fields, expected) => {
    expect(retryAfterOf(fields, NOW)).toBe(expected)
  })

  it('is missing', () => {
    expect(retryAfterOf({}, NOW)).toBeUndefined()
  })

  it.each([
    ['Sat, 21 Nov 2026 09:50:00 GMT', 630_000 - 600_000],
    ['Sat, 21 Nov 2026 10:10:00 GMT', undefined],
    // A date that differs by no more than what it leaves out: our own clock is more exact.
    ['Sat, 21 Nov 2026 09:59:59 GMT', 30_000],
    ['not known', 30_000],
  ])('as a date is by the clock of whoever sent it, by which it is %s', (date, expected) => {
    const at = expected === 30_000 && date.includes('09:50') ? '09:50:30' : '10:00:30'
    const fields = { date: [date, date], 'retry-after': `Sat, 21 Nov 2026 ${at} GMT` }
    expect(retryAfterOf(fields, NOW)).toBe(expected)
  })
})
