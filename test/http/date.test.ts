import { beforeEach, describe, expect, it, vi } from 'vitest'
import type { EpochMs } from '../../src/time/clock.ts'
import { dateOf, parseDate, parseHttpDate, senderNow } from '../../src/http/date.ts'

const NOW = Date.UTC(2026, 10, 21, 9) as EpochMs

// Wherever the gateway stands.
beforeEach(() => {
  vi.stubEnv('TZ', 'Asia/Tokyo')
  expect(new Date(0).getHours()).toBe(9)
})

describe('an HTTP date', () => {
  const AT = Date.UTC(1994, 10, 6, 8, 49, 37)
  it.each([
    ['Sun, 06 Nov 1994 08:49:37 GMT', AT],
    ['sun, 06 NOV 1994 08:49:37 gmt', AT],
    ['Sunday, 06-Nov-94 08:49:37 GMT', AT],
    ['Sun Nov  6 08:49:37 1994', AT],
    ['Sunday, 06-Nov-50 08:49:37 GMT', Date.UTC(2050, 10, 6, 8, 49, 37)],
  ])('%s', (text, expected) => {
    expect(parseHttpDate(text, NOW)).toBe(expected)
  })

  it.each([
    '0',
    '-1',
    'Sun, 06 Nov 1994 08:49:37 UTC',
    'Sun, 06 Nov 1994 08:49:37 +0000',
    'Sun, 06 Nov 94 08:49:37 GMT',
    'Sun 06 Nov 1994 08:49:37 GMT',
    'Sun, 06  Nov 1994 08:49:37 GMT',
    'Sun, 06-Nov-1994 08:49:37 GMT',
    'Sun, 06 Nov 1994 08.49.37 GMT',
    'Sun, 06 Nov 1994 8:49:37 GMT',
    'Sun, 06 Xyz 1994 08:49:37 GMT',
    'Sun, 31 Feb 1994 08:49:37 GMT',
    'Sun, 00 Nov 1994 08:49:37 GMT',
    'Sun, 06 Nov 1994 24:49:37 GMT',
  ])('is none: %s', (text) => {
    expect(parseHttpDate(text, NOW)).toBeUndefined()
  })
})

describe('a date as vendors write it', () => {
  const AT = Date.UTC(1994, 10, 6, 8, 49, 37)
  it.each([
    ['Sun, 06 Nov 1994 08:49:37 GMT', AT],
    ['Sun Nov  6 08:49:37 1994', AT],
    ['Sun Nov 6 08:49:37 1994 GMT', AT],
    ['Sun, 06 Nov 1994 09:49:37 +0100', AT],
    ['Sun, 06 Nov 1994 08:49:37 UTC', AT],
    ['1994-11-06T08:49:37Z', AT],
    ['1994-11-06T09:49:37.000+01:00', AT],
    ['1994-11-06T08:49:37', AT],
    ['1994-11-06 08:49:37', AT],
    ['1994-11-06', Date.UTC(1994, 10, 6)],
  ])('%s', (text, expected) => {
    expect(parseDate(text, NOW)).toBe(expected)
  })

  it.each(['Sun, 06 Nov 1994 08:49:37', 'Nov 6 1994', '6', 'soon', '', 'Sun', '1994-11-06T08:49:37 CET', '2026-99-99'])(
    'is none: %s',
    (text) => {
      expect(parseDate(text, NOW)).toBeUndefined()
    },
  )
})

describe('the Date of a response', () => {
  const [early, late] = [NOW - 600_000, NOW + 600_000].map((ms) => new Date(ms).toUTCString())
  it.each<[string | string[], number | undefined]>([
    [early!, NOW - 600_000],
    [[early!, early!], NOW - 600_000],
    [`${early}, ${late}`, NOW - 600_000],
    [['never', late!], NOW + 600_000],
    ['never', undefined],
  ])('%j is %s', (date, expected) => {
    expect(dateOf({ date }, NOW)).toBe(expected)
    expect(senderNow({ date }, NOW)).toBe(expected ?? NOW)
  })

  it('that is a second off says nothing of another clock', () => {
    expect(senderNow({ date: new Date(NOW - 1_000).toUTCString() }, NOW)).toBe(NOW)
  })
})
