import { describe, expect, it } from 'vitest'
import { readRequestOptions } from '../../src/gateway/request-options.ts'

describe('what a client options', () => {
  it.each([
    [{}, { maxWaitMs: 10_000, mayRetry: true }],
    [{ 'x-sluice-max-wait': '5s' }, { maxWaitMs: 5_000, mayRetry: true }],
    [{ 'x-sluice-max-wait': '0' }, { maxWaitMs: 0, mayRetry: true }],
    [{ 'x-sluice-max-wait': '1h' }, { maxWaitMs: 10_000, mayRetry: true }],
    [{ 'x-sluice-timeout': '5s' }, { maxWaitMs: 10_000, mayRetry: true, timeoutMs: 5_000 }],
    [{ 'x-sluice-retry': 'off' }, { maxWaitMs: 10_000, mayRetry: false }],
    [
      { 'x-sluice-retry': 'on', 'x-sluice-max-wait': '250ms' },
      { maxWaitMs: 250, mayRetry: true, priority: 'normal' },
    ],
  ])('%o', (headers, expected) => {
    const options = readRequestOptions(headers, { maxWaitMs: 10_000, priority: 'normal' })
    expect(options).toEqual({ timeoutMs: Infinity, priority: 'normal', ...expected })
  })

  it.each([
    [{ 'x-sluice-max-wait': '5' }],
    [{ 'x-sluice-max-wait': '-1s' }],
    [{ 'x-sluice-max-wait': '5 s' }],
    [{ 'x-sluice-max-wait': 'soon' }],
    [{ 'x-sluice-retry': 'never' }],
    [{ 'x-sluice-retry': '' }],
    [{ 'x-sluice-priority': 'urgent' }],
    [{ 'x-sluice-priority': '' }],
  ])('is an error if it can not be read: %o', (headers) => {
    expect(readRequestOptions(headers, { maxWaitMs: 10_000, priority: 'normal' })).toMatchObject({
      kind: 'invalid_request',
    })
  })

  it.each([
    ['interactive', 'interactive', 'interactive'],
    ['interactive', 'batch', 'batch'],
    ['normal', 'interactive', 'normal'],
    ['normal', 'normal', 'normal'],
    ['batch', 'interactive', 'batch'],
  ] as const)('lets a client of priority %s that asks for %s be %s', (own, asked, expected) => {
    const options = readRequestOptions({ 'x-sluice-priority': asked }, { maxWaitMs: 1_000, priority: own })
    expect(options).toMatchObject({ priority: expected })
  })
})
