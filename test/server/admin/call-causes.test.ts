import { describe, expect, it } from 'vitest'
import type { LatelyRow } from '../../../src/requests/lately.ts'
import { refusalCauses, upstreamCauses } from '../../../src/server/admin/call-causes.ts'
import type { BreakerRow } from '../../../src/server/admin/status.ts'
import type { EpochMs } from '../../../src/time/clock.ts'

function ended(upstream: string, client: string | null, calls: number, more: Partial<LatelyRow> = {}): LatelyRow {
  const of = { outcome: 'queue_full', status: '429', slow: 0, correlationId: `to-${upstream}`, at: 1 as EpochMs }
  return { upstream, client, calls, ...of, ...more }
}

describe('calls that were refused', () => {
  const told = (rows: readonly LatelyRow[], breakers: readonly BreakerRow[] = []) =>
    [...refusalCauses(rows, breakers)].map(({ about, what }) => [about, what])

  it('are told upstream by upstream, each with its own number and its own client', () => {
    const rows = [
      ended('harness', 'a', 2),
      ended('github', 'b', 1),
      ended('slack', 'b', 1),
      ended('github', 'a', 1),
      ended('github', 'c', 1),
    ]
    expect(told(rows)).toEqual([
      ['queue_full harness', '2 calls to harness ended as queue_full, most of the client a.'],
      ['queue_full github', '3 calls to github ended as queue_full, 1 of the client b.'],
      ['queue_full slack', '1 call to slack ended as queue_full, most of the client b.'],
    ])
  })

  it('are told by the same words while one upstream gets more of them than the other', () => {
    const abouts = (harness: number, github: number) =>
      told([ended('harness', 'a', harness), ended('github', 'a', github)]).map(([about]) => about)
    expect(abouts(1, 9)).toEqual(abouts(9, 1))
  })

  it('are told once where what failed is the gateway’s own', () => {
    const outcome = 'store_unavailable'
    expect(told([ended('harness', 'a', 2, { outcome }), ended('github', 'b', 3, { outcome })])).toEqual([
      ['store_unavailable ', '5 calls ended as store_unavailable, most of the client b.'],
    ])
  })

  it('names no client where nobody knows whose most of them are', () => {
    expect(told([ended('harness', null, 5), ended('harness', 'a', 1), ended('slack', 'unknown', 2)])).toEqual([
      ['queue_full harness', '6 calls to harness ended as queue_full, 1 of the client a.'],
      ['queue_full slack', '2 calls to slack ended as queue_full.'],
    ])
  })

  it('are told of an upstream whose breaker is closed again, though another one is open', () => {
    const open = { upstream: 'github', state: 'open' } as BreakerRow
    const outcome = 'breaker_open'
    expect(told([ended('harness', 'a', 1, { outcome }), ended('github', 'a', 1, { outcome })], [open])).toEqual([
      ['breaker_open harness', '1 call to harness ended as breaker_open, most of the client a.'],
    ])
  })
})

describe('answers of an upstream', () => {
  /** What is told where so many of the calls are answered with the status, and all others well. */
  const causesOf = (status: string, count: number, calls: number) => [
    ...upstreamCauses([
      ended('harness', 'a', count, { outcome: 'delivered', status }),
      ended('harness', null, calls - count, { outcome: 'delivered', status: null }),
    ]),
  ]

  it.each(['401', '403', '429', '500'])('with %s to a small account are told beside a big account', (status) => {
    const answered = { outcome: 'delivered', status: null }
    const causes = upstreamCauses([
      ended('harness', 'a', 21, { ...answered, account: 'small', status }),
      ended('harness', null, 100_000, { ...answered, account: 'big' }),
      ended('harness', null, 1, { ...answered, account: 'small' }),
    ])
    const told = status === '500' ? '5xx' : status
    expect([...causes].map(({ severity, about, what }) => [severity, about, what])).toEqual([
      ['failing', `harness ${told}`, `harness/small answered 21 of 22 calls with ${told}.`],
    ])
  })

  it('are told once for an upstream, however many accounts get them', () => {
    const answered = (account: string, count: number) =>
      ended('harness', 'a', count, { outcome: 'delivered', status: '401', account, correlationId: `to-${account}` })
    const causes = [...upstreamCauses([answered('a', 3), answered('b', 9), answered('c', 2), answered('d', 4)])]
    expect(causes.map(({ about, what, correlationId }) => [about, what, correlationId])).toEqual([
      ['harness 401', 'harness/b answered 9 of 9 calls with 401, and 2 other accounts got too many, too.', 'to-b'],
    ])
  })

  it.each([
    ['500', 6, 59, true],
    ['503', 6, 60, false],
    ['500', 5, 5, false],
    ['500', 5, 1_000_005, false],
    ['401', 3, 5, true],
    ['401', 2, 2, false],
    ['401', 50, 100, false],
    ['403', 21, 22, true],
    ['403', 20, 20, false],
    ['403', 95, 100, false],
    ['429', 3, 7, true],
    ['429', 2, 2, false],
    ['429', 40, 100, false],
  ])('with %s, %i of %i, are told: %j, as the alert has it', (status, count, calls, isTold) => {
    expect(causesOf(status, count, calls).map(({ what }) => what)).toEqual(
      isTold ? [`harness answered ${count} of ${calls} calls with ${status[0] === '5' ? '5xx' : status}.`] : [],
    )
  })
})
