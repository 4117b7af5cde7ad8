import { describe, expect, it } from 'vitest'
import type { EpochMs } from '../../src/time/clock.ts'
import { ageOf, parseDirectives, secondsOf } from '../../src/cache/fields.ts'
import { toFields } from '../../src/cache/entry.ts'
import { freshnessOf } from '../../src/cache/freshness.ts'
import { cachePolicy } from '../../src/schema/cache-policy.ts'

const NOW = Date.UTC(2026, 10, 21, 9) as EpochMs
const SECOND = 1_000

describe('Cache-Control', () => {
  it.each<[string | string[] | undefined, Record<string, string | true>]>([
    [undefined, {}],
    ['', {}],
    ['MaX-AgE=1, NO-STORE', { 'max-age': '1', 'no-store': true }],
    [['max-age=1', 'max-age=2'], { 'max-age': '1' }],
    ['private="set-cookie, x", max-age="5"', { private: 'set-cookie, x', 'max-age': '5' }],
    ['ext="max-age=9, no-store", max-age=1', { ext: 'max-age=9, no-store', 'max-age': '1' }],
    ['ext="a\\"b", max-age=1', { ext: 'a"b', 'max-age': '1' }],
    [' , ,max-age=1 ,, ', { 'max-age': '1' }],
    ['max-age =1', {}],
    ['max-age= 1', {}],
    ['"no-store", max-age=1', { 'max-age': '1' }],
    ['ext="open, max-age=1', { 'max-age': '1' }],
  ])('%j is %j', (field, expected) => {
    expect(Object.fromEntries(parseDirectives(field))).toEqual(expected)
  })

  it('is read in a time that does not explode', () => {
    const field = `${'a='.repeat(4_000)}${'"'.repeat(4_000)}${', '.repeat(4_000)}`
    const before = process.cpuUsage().user
    parseDirectives(field)
    expect(process.cpuUsage(undefined).user - before).toBeLessThan(1_000_000)
  })

  it.each<[string, number | undefined]>([
    ['max-age=003600', 3_600],
    ['max-age=99999999999', 2 ** 31],
    ['max-age=-1', 0],
    ['max-age=1.5', 0],
    ["max-age='1'", 0],
    ['max-age', 0],
    ['no-cache', undefined],
  ])('%s is %s seconds', (field, expected) => {
    expect(secondsOf(parseDirectives(field), 'max-age')).toBe(expected)
  })
})

it('fields that are kept are read by their names, whatever those mean in JavaScript', () => {
  const fields = Object.entries(toFields(['constructor', 'a', 'etag', '"b"', '__proto__', 'c', 'constructor', 'd']))
  expect(fields).toEqual([
    ['constructor', ['a', 'd']],
    ['etag', '"b"'],
    ['__proto__', 'c'],
  ])
})

describe('Age', () => {
  it.each([
    [undefined, 0],
    ['5', 5],
    ['7200, 0', 7_200],
    ['0, 7200', 0],
    ['-1', 0],
    ['1.5', 0],
    ['abc', 0],
    ['2147483649', 2 ** 31],
  ])('%s is %i seconds', (age, expected) => {
    expect(ageOf(age === undefined ? {} : { age })).toBe(expected)
  })
})

describe('an answer', () => {
  const judge = (
    fields: Record<string, string | string[]>,
    { status = 200, rule = {}, wanted = '', isAuthorized = false } = {},
  ) =>
    freshnessOf(
      {
        wanted: parseDirectives(wanted),
        isAuthorized,
        status,
        fields,
        sentAt: NOW - SECOND,
        now: NOW,
        wall: NOW,
      },
      cachePolicy(rule),
    )
  const lifetimeOf = (...args: Parameters<typeof judge>): number | string => {
    const freshness = judge(...args)
    return typeof freshness === 'string' ? freshness : freshness.lifetimeMs
  }
  const http = (ms: number): string => new Date(ms).toUTCString()

  it.each<[Record<string, string | string[]>, number, number]>([
    // Fields, seconds of life, seconds of age (a second passed since the request was sent).
    [{}, 0, 1],
    [{ 'cache-control': 'max-age=60' }, 60, 1],
    [{ 'cache-control': 'max-age=60, s-maxage=10' }, 10, 1],
    [{ 'cache-control': 'max-age=60', age: '30' }, 60, 31],
    [{ 'cache-control': 'max-age=60', date: http(NOW - 20 * SECOND) }, 60, 20],
    [{ 'cache-control': 'max-age=60, no-cache' }, 0, 1],
    [{ 'cache-control': 'max-age=60, must-revalidate' }, 60, 1],
    [{ 'cache-control': 'max-age=60, proxy-revalidate' }, 60, 1],
    [{ expires: http(NOW + 60 * SECOND), date: http(NOW) }, 60, 1],
    [{ expires: http(NOW + 60 * SECOND) }, 60, 1],
    [{ expires: http(NOW + 60 * SECOND), date: 'x' }, 60, 1],
    [{ 'cache-control': ['max-age=60', 'max-age=60'], date: [http(NOW - 20 * SECOND), 'x'] }, 60, 20],
    [{ 'cache-control': 'max-age=60', age: ['30', '30'] }, 60, 31],
    [{ expires: '0' }, 0, 1],
    [{ expires: [http(NOW + 60 * SECOND), http(NOW + 60 * SECOND)] }, 0, 1],
    [{ 'cache-control': 'max-age=0', expires: http(NOW + 60 * SECOND) }, 0, 1],
    [{ 'cache-control': 'no-store, must-understand, max-age=60' }, 60, 1],
    // Not by the time of its last change, which may be years ago (RFC 9111 §4.2.2 allows it).
    [{ 'last-modified': http(NOW - 1e9) }, 0, 1],
  ])('with %j lives for %i s, of which %i are gone', (fields, lifetime, age) => {
    const freshness = judge(fields)
    if (typeof freshness === 'string') throw new Error(`not kept: ${freshness}`)
    expect(freshness.lifetimeMs / SECOND).toBe(lifetime)
    expect((NOW - freshness.bornAt) / SECOND).toBe(age)
  })

  it.each<
    [
      Record<string, string | string[]>,
      { status?: number; wanted?: string; isAuthorized?: boolean; rule?: object },
      string,
    ]
  >([
    [{ 'cache-control': 'no-store, max-age=60' }, {}, 'no-store'],
    [{ 'cache-control': 'nO-sToRe' }, {}, 'no-store'],
    [{ 'cache-control': 'private, max-age=60' }, {}, 'private'],
    [{ 'cache-control': 'private="x", max-age=60' }, {}, 'private'],
    [{ 'cache-control': 'max-age=60', vary: '*' }, {}, 'vary'],
    [{ 'cache-control': 'max-age=60', vary: 'accept, *' }, {}, 'vary'],
    [{ 'cache-control': 'max-age=60', vary: ['accept', '*'] }, {}, 'vary'],
    [{ 'cache-control': ['max-age=60', 'no-store'] }, {}, 'no-store'],
    [{ 'cache-control': 'max-age=60' }, { wanted: 'no-store' }, 'no-store'],
    [{ 'cache-control': 'max-age=60' }, { isAuthorized: true }, 'authorization'],
    [{ 'cache-control': 'max-age=60' }, { status: 206 }, 'status'],
    [{ 'cache-control': 'max-age=60' }, { status: 304 }, 'status'],
    [{ 'cache-control': 'max-age=60' }, { status: 401 }, 'status'],
    [{ 'cache-control': 'max-age=60' }, { status: 429 }, 'status'],
    [{ 'cache-control': 'no-store, must-understand, max-age=60' }, { status: 599 }, 'no-store'],
    [{ 'last-modified': http(0) }, { status: 500 }, 'status'],
    [{ 'last-modified': http(0) }, { status: 201 }, 'status'],
    [{ 'cache-control': 'max-age=60', 'set-cookie': 'a=b' }, { rule: { scope: 'account' } }, 'set-cookie'],
    [{ 'cache-control': 'private, max-age=60' }, { isAuthorized: true }, 'private'],
  ])('with %j is not kept where %j: %s', (fields, options, reason) => {
    expect(judge(fields, options)).toBe(reason)
  })

  it('is fresh for as long as is configured only where it says nothing itself, and is no error', () => {
    const rule = { freshFor: 500 }
    expect(lifetimeOf({}, { rule })).toBe(500)
    expect(lifetimeOf({ 'cache-control': 'max-age=60' }, { rule })).toBe(60 * SECOND)
    expect(lifetimeOf({ expires: '0' }, { rule })).toBe(0)
    expect(lifetimeOf({ 'cache-control': 'no-cache' }, { rule })).toBe(0)
    expect(judge({ 'cache-control': 'no-store' }, { rule })).toBe('no-store')
    expect(lifetimeOf({}, { rule, status: 404 })).toBe(0)
  })
})
