import { describe, expect, it } from 'vitest'
import { readWishes } from '../../src/gateway/wishes.ts'

describe('what a client wishes', () => {
  it.each([
    [{}, { maxWaitMs: 10_000, mayRepeat: true }],
    [{ 'x-sluice-max-wait': '5s' }, { maxWaitMs: 5_000, mayRepeat: true }],
    [{ 'x-sluice-max-wait': '0' }, { maxWaitMs: 0, mayRepeat: true }],
    [{ 'x-sluice-max-wait': '1h' }, { maxWaitMs: 10_000, mayRepeat: true }],
    [{ 'x-sluice-timeout': '5s' }, { maxWaitMs: 10_000, mayRepeat: true, timeoutMs: 5_000 }],
    [{ 'x-sluice-retry': 'off' }, { maxWaitMs: 10_000, mayRepeat: false }],
    [
      { 'x-sluice-retry': 'on', 'x-sluice-max-wait': '250ms' },
      { maxWaitMs: 250, mayRepeat: true },
    ],
  ])('%o', (headers, expected) => {
    expect(readWishes(headers, 10_000)).toEqual({ timeoutMs: Infinity, ...expected })
  })

  it.each([
    [{ 'x-sluice-max-wait': '5' }],
    [{ 'x-sluice-max-wait': '-1s' }],
    [{ 'x-sluice-max-wait': '5 s' }],
    [{ 'x-sluice-max-wait': 'soon' }],
    [{ 'x-sluice-retry': 'never' }],
    [{ 'x-sluice-retry': '' }],
  ])('is an error if it can not be read: %o', (headers) => {
    expect(readWishes(headers, 10_000)).toMatchObject({ kind: 'invalid_request' })
  })
})
