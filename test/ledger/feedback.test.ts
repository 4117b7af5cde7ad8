import { describe, expect, it } from 'vitest'
import type { EpochMs } from '../../src/time/clock.ts'
import { reportedLimit, parseReset, readFeedback, type LimitReport } from '../../src/ledger/feedback.ts'
import { limitOf } from '../../src/ledger/limit.ts'
import { seededRandom } from '../support/seeded-random.ts'

const NOW = Date.parse('2026-11-21T10:00:00Z') as EpochMs
const SECONDS = NOW / 1_000

function word(remaining: number, limit?: number, resetMs?: number, windowMs?: number): LimitReport {
  return { remaining, limit, resetMs, windowMs }
}

describe('what an upstream says of its limits', () => {
  it.each([
    [
      'X-RateLimit with seconds since 1970',
      { 'x-ratelimit-limit': '5000', 'x-ratelimit-remaining': '4987', 'x-ratelimit-reset': String(SECONDS + 90) },
      [word(4987, 5000, 90_000)],
    ],
    [
      'X-RateLimit with milliseconds since 1970',
      { 'x-ratelimit-limit': '10', 'x-ratelimit-remaining': '3', 'x-ratelimit-reset': String(NOW + 1_500) },
      [word(3, 10, 1_500)],
    ],
    [
      'X-RateLimit with an ISO 8601 date',
      { 'x-ratelimit-limit': '10', 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': '2026-11-21T10:00:20Z' },
      [word(0, 10, 20_000)],
    ],
    [
      'X-RateLimit of requests, beside tokens, with a duration',
      {
        'x-ratelimit-limit-requests': '60',
        'x-ratelimit-remaining-requests': '59',
        'x-ratelimit-reset-requests': '1m30s',
        'x-ratelimit-remaining-tokens': '149984',
      },
      [word(59, 60, 90_000), { unit: 'tokens', ...word(149_984) }],
    ],
    [
      'X-RateLimit of requests and tokens, as OpenAI has it',
      {
        'x-ratelimit-limit-requests': '60',
        'x-ratelimit-remaining-requests': '59',
        'x-ratelimit-reset-requests': '1s',
        'x-ratelimit-limit-tokens': '150000',
        'x-ratelimit-remaining-tokens': '149984',
        'x-ratelimit-reset-tokens': '6m0s',
      },
      [word(59, 60, 1_000), { unit: 'tokens', ...word(149_984, 150_000, 360_000) }],
    ],
    [
      'X-RateLimit of tokens alone',
      { 'x-ratelimit-remaining-tokens': '7', 'x-ratelimit-reset-tokens': '55' },
      [{ unit: 'tokens', ...word(7, undefined, 55_000) }],
    ],
    [
      'X-RateLimit of Azure, which says -1 where it does not know',
      { 'x-ratelimit-limit-tokens': '-1', 'x-ratelimit-remaining-tokens': '-1', 'x-ratelimit-reset-tokens': '0' },
      [],
    ],
    [
      'those of Anthropic, of which tokens are rounded to thousands',
      {
        'anthropic-ratelimit-requests-limit': '1000',
        'anthropic-ratelimit-requests-remaining': '999',
        'anthropic-ratelimit-requests-reset': '2026-11-21T10:00:01Z',
        'anthropic-ratelimit-input-tokens-limit': '450000',
        'anthropic-ratelimit-input-tokens-remaining': '449000',
        'anthropic-ratelimit-input-tokens-reset': '2026-11-21T10:00:02Z',
        'anthropic-ratelimit-output-tokens-limit': '90000',
        'anthropic-ratelimit-output-tokens-remaining': '0',
        'anthropic-ratelimit-output-tokens-reset': '2026-11-21T10:00:30.5Z',
      },
      [
        word(999, 1_000, 1_000),
        { unit: 'input-tokens', ...word(449_500, 450_000, 2_000) },
        { unit: 'output-tokens', ...word(0, 90_000, 30_500) },
      ],
    ],
    [
      'X-RateLimit with a comma between the thousands of its limit',
      { 'x-ratelimit-limit': '1,000', 'x-ratelimit-remaining': '999', 'x-ratelimit-reset': '30' },
      [word(999, 1_000, 30_000)],
    ],
    [
      'X-RateLimit with commas between all thousands, and no reset',
      { 'x-ratelimit-limit': '1,250,000', 'x-ratelimit-remaining': '1,000' },
      [word(1_000, 1_250_000)],
    ],
    [
      'X-RateLimit of one limit on two lines, with commas between the thousands',
      { 'x-ratelimit-limit': ['1,000', '1,000'], 'x-ratelimit-remaining': ['999', '1,000'] },
      [word(999, 1_000)],
    ],
    [
      'X-RateLimit without a reset that is decades ahead',
      { 'x-ratelimit-limit': '10', 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': '999999999' },
      [word(0, 10)],
    ],
    [
      'RateLimit without a reset that is decades ahead',
      { ratelimit: '"day";r=0;t=999999999', 'ratelimit-policy': '"day";q=10;w=86400' },
      [word(0, 10, undefined, 86_400_000)],
    ],
    [
      'RateLimit as one list of numbers, without a reset that is decades ahead',
      { ratelimit: 'limit=10, remaining=0, reset=999999999' },
      [word(0, 10)],
    ],
    [
      'X-Rate-Limit with seconds to wait',
      { 'x-rate-limit-limit': '100', 'x-rate-limit-remaining': '7', 'x-rate-limit-reset': '13' },
      [word(7, 100, 13_000)],
    ],
    [
      'RateLimit-* of the older drafts',
      { 'ratelimit-limit': '960', 'ratelimit-remaining': '959', 'ratelimit-reset': '41' },
      [word(959, 960, 41_000)],
    ],
    [
      'RateLimit-Limit with policies behind it',
      { 'ratelimit-limit': '10, 10;w=1, 1000;w=3600', 'ratelimit-remaining': '9', 'ratelimit-reset': '1' },
      [word(9, 10, 1_000, 1_000)],
    ],
    [
      'RateLimit as one list of numbers',
      { ratelimit: 'limit=100, remaining=50, reset=5', 'ratelimit-policy': '100;w=60' },
      [word(50, 100, 5_000)],
    ],
    [
      'X-RateLimit with Datadog’s period',
      { 'x-ratelimit-limit': '60', 'x-ratelimit-period': '60', 'x-ratelimit-remaining': '3', 'x-ratelimit-reset': '9' },
      [word(3, 60, 9_000, 60_000)],
    ],
    ['how full Shopify’s bucket is', { 'x-shopify-shop-api-call-limit': '32/40' }, [word(8, 40)]],
    ['no bucket', { 'x-shopify-shop-api-call-limit': 'full' }, []],
    [
      'HubSpot’s ten seconds, and its day',
      {
        'x-hubspot-ratelimit-max': '100',
        'x-hubspot-ratelimit-remaining': '7',
        'x-hubspot-ratelimit-interval-milliseconds': '10000',
        'x-hubspot-ratelimit-daily': '250000',
        'x-hubspot-ratelimit-daily-remaining': '9',
        // deprecated
        'x-hubspot-ratelimit-secondly-remaining': '0',
      },
      [word(7, 100, undefined, 10_000), word(9, 250_000, undefined, 86_400_000)],
    ],
    [
      'HubSpot’s ten seconds alone, as for public apps',
      { 'x-hubspot-ratelimit-max': '110', 'x-hubspot-ratelimit-remaining': '7' },
      [word(7, 110)],
    ],
    [
      'RateLimit with its policy',
      { ratelimit: '"default";r=50;t=30', 'ratelimit-policy': '"default";q=100;w=60' },
      [word(50, 100, 30_000, 60_000)],
    ],
    [
      'RateLimit with several policies, one of them unknown',
      {
        ratelimit: '"burst";r=3, "daily, of all";r=900;t=86000;pk=:cHJv:, unheard;r=1',
        'ratelimit-policy': '"daily, of all";q=1000;w=86400,"burst";q=20;qu="requests";w=1',
      },
      [word(3, 20, undefined, 1_000), word(900, 1000, 86_000_000, 86_400_000), word(1)],
    ],
    [
      'RateLimit with the names that are proposed for its parameters',
      {
        ratelimit: '"default";a=50;w=30;c=2',
        'ratelimit-policy': '"default";q=100;w=60',
        'ratelimit-partition': 'abc',
      },
      [word(50, 100, 30_000, 60_000)],
    ],
    [
      'RateLimit of bytes and of calls at once, beside requests',
      {
        ratelimit: '"bytes";r=3;t=1, "calls";r=7;t=30, "open";r=0',
        'ratelimit-policy':
          '"bytes";q=65535;qu="content-bytes";w=10,"calls";q=20;w=60,"open";q=4;qu="concurrent-requests"',
      },
      [word(7, 20, 30_000, 60_000)],
    ],
    ['the remaining ones alone', { 'x-ratelimit-remaining': ' 4 ' }, [word(4)]],
    ['the least of several', { 'x-ratelimit-remaining': ['9', '4'] }, [word(4)]],
    ['one number twice', { 'x-ratelimit-remaining': '5, 5', 'x-ratelimit-limit': '100, 100' }, [word(5, 100)]],
    [
      'all numbers on two lines',
      {
        'x-ratelimit-remaining': ['5', '5'],
        'x-ratelimit-limit': ['100', '100'],
        'x-ratelimit-reset': ['30', '60'],
      },
      [word(5, 100, 60_000)],
    ],
    [
      'a number with several resets, of which the last is meant',
      { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': ['30', '60', 'soon'] },
      [word(0, undefined, 60_000)],
    ],
    [
      'a reset that is a date, on two lines',
      {
        'x-ratelimit-remaining': '5',
        'x-ratelimit-reset': ['Sat, 21 Nov 2026 10:00:30 GMT', 'Sat Nov 21 10:00:30 2026'],
      },
      [word(5, undefined, 30_000)],
    ],
    [
      'X-RateLimit of several windows, as lists',
      {
        'x-ratelimit-limit': '1, 15000',
        'x-ratelimit-policy': '1;w=1, 15000;w=2592000',
        'x-ratelimit-remaining': '1, 1000',
        'x-ratelimit-reset': '1, 1419704',
      },
      [word(1, 1, 1_000, 1_000), word(1000, 15_000, 1_419_704_000, 2_592_000_000)],
    ],
    [
      'numbers with their windows',
      { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '76;w=21600' },
      [word(76, 100, undefined, 21_600_000)],
    ],
    [
      'RateLimit and its policies on a line each',
      {
        ratelimit: ['"burst";r=3;t=1', '"daily";r=900;t=86000'],
        'ratelimit-policy': ['"burst";q=20;w=1', '"daily";q=1000;w=86400'],
      },
      [word(3, 20, 1_000, 1_000), word(900, 1000, 86_000_000, 86_400_000)],
    ],
    [
      'RateLimit twice',
      { ratelimit: ['"default";r=50;t=30', '"default";r=49;t=30'], 'ratelimit-policy': '"default";q=100;w=60' },
      [word(49, 100, 30_000, 60_000)],
    ],
    [
      'RateLimit as a list of numbers on a line for each limit',
      { ratelimit: ['limit=10, remaining=1, reset=5', 'limit=100, remaining=50, reset=60'] },
      [word(1, 10, 5_000), word(50, 100, 60_000)],
    ],
    ['nothing at all', { 'content-type': 'text/plain', 'retry-after': '3' }, []],
    ['a limit without what remains of it', { 'x-ratelimit-limit': '5000', 'x-ratelimit-reset': '5' }, []],
    ['no numbers', { 'x-ratelimit-remaining': 'many', 'x-ratelimit-limit': '∞' }, []],
    ['a negative number', { 'x-ratelimit-remaining': '-1' }, []],
    ['a reset that is none', { 'x-ratelimit-remaining': '1', 'x-ratelimit-reset': 'soon' }, [word(1)]],
    ['a structured field that is none', { ratelimit: '";;==,,"', 'x-ratelimit-remaining': '2' }, [word(2)]],
  ])('is read from %s', (_, fields, words) => {
    expect(readFeedback(fields, NOW)).toEqual(words)
  })

  it('is taken by the clock of an upstream whose clock is another', () => {
    const fields = { 'x-ratelimit-remaining': '1', date: new Date(NOW - 600_000).toUTCString() }
    const reset = String(SECONDS - 600 + 30)
    expect(readFeedback({ ...fields, 'x-ratelimit-reset': reset }, NOW)).toEqual([word(1, undefined, 30_000)])
  })

  it('never throws, and is never anything but counts, whatever comes', () => {
    const random = seededRandom(7)
    const alphabet = '0123456789;=,"\\.:-+eEwqrt smhd\u0000é{}'
    const text = () =>
      Array.from(
        { length: Math.floor(random() ** 2 * 60) },
        () => alphabet[Math.floor(random() * alphabet.length)],
      ).join('')
    for (let n = 0; n < 20_000; n++) {
      const names = [
        'ratelimit',
        'ratelimit-policy',
        'ratelimit-remaining',
        'x-ratelimit-limit',
        'x-ratelimit-reset',
        'date',
      ]
      const field = () => (random() < 0.2 ? [text(), text()] : text())
      const fields = Object.fromEntries(names.filter(() => random() < 0.6).map((name) => [name, field()]))
      for (const { remaining, limit = 0, resetMs = 0, windowMs = 0 } of readFeedback(fields, NOW)) {
        for (const number of [remaining, limit, resetMs, windowMs]) {
          expect(number >= 0 && number < Infinity, JSON.stringify(fields)).toBe(true)
        }
      }
    }
  })
})

describe('a reset', () => {
  it.each([
    ['0', 0],
    ['1.5', 1_500],
    ['3600', 3_600_000],
    [String(SECONDS + 1), 1_000],
    [String(SECONDS - 1), 0],
    [String(NOW + 1), 1],
    ['6ms', 6],
    ['1h2m3.5s', 3_723_500],
    ['1d', 86_400_000],
    ['2026-11-21T11:00:00+01:00', 0],
    ['2026-11-21T10:00:01.250Z', 1_250],
    ['Sat, 21 Nov 2026 10:00:30 GMT', 30_000],
    ['Sat Nov 21 10:00:30 2026', 30_000],
    ['2026-11-21T10:00:30', 30_000],
    ['31536000', 31_536_000_000],
    // Later than any window ends.
    ['999999999', undefined],
    ['99999d', undefined],
    [String(Date.parse('2100-01-01T00:00:00Z') / 1_000), undefined],
    ['2100-01-01T00:00:00Z', undefined],
    ['', undefined],
    ['-5', undefined],
    ['1e3', undefined],
    ['5 apples', undefined],
    ['1x', undefined],
  ])('of "%s" is in %s ms', (text, ms) => {
    expect(parseReset(text, NOW)).toBe(ms)
  })
})

describe('the limit that is spoken of', () => {
  const minute = limitOf({ id: 'm', class: 'read', requests: 900, published: 1000, windowMs: 60_000 })
  const second = limitOf({ id: 's', class: 'read', requests: 20, windowMs: 1_000 })
  const hour = limitOf({ id: 'h', class: 'read', requests: 5000, windowMs: 3_600_000 })
  const tokens = limitOf({ id: 't', class: 'read', requests: 30_000, windowMs: 60_000, name: 'tokens' })
  const atOnce = limitOf({ id: 'c', class: 'read', requests: 10, kind: 'concurrent' })
  const shadow = limitOf({ id: 'x', class: 'read', requests: 7, windowMs: 60_000, isEnforced: false })
  it.each([
    ['has the same number, of which headroom may be left', word(5, 1000), [second, minute, hour], true, 1],
    ['has the same number and window', word(5, 20, undefined, 1_000), [minute, second], false, 1],
    ['is the only one with a window', word(5, 333), [atOnce, shadow, minute], true, 2],
    ['is the shortest in which the reset can lie', word(5, undefined, 30_000), [hour, second, minute], true, 2],
    ['is none where several could be', word(5), [second, minute], true, -1],
    ['is none where the reset is later than all of them', word(5, undefined, 5_000_000), [second, minute], true, -1],
    ['is none for one of several words that no limit fits', word(5, 333), [minute], false, -1],
    ['is none with the same number of another window', word(5, 20, undefined, 60_000), [second, hour], true, -1],
    ['is none where there is none', word(5), [atOnce], true, -1],
    ['is the one of its unit, whatever its number', { unit: 'tokens', ...word(5, 1000) }, [minute, tokens], false, 1],
    ['is none where none is of its unit', { unit: 'output-tokens', ...word(5, 1000) }, [minute, tokens], true, -1],
    ['is not one of another unit', word(5, 333), [tokens, second], true, 1],
  ])('%s', (_, said, limits, isOnlyReport, index) => {
    expect(reportedLimit(said, limits, isOnlyReport)).toBe(index)
  })
})
