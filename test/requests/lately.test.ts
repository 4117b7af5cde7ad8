import { describe, expect, it } from 'vitest'
import { Lately } from '../../src/requests/lately.ts'
import type { EpochMs } from '../../src/time/clock.ts'

const MINUTE_MS = 60_000
const START = 1_800_000_000_000
const at = (ms: number): EpochMs => (START + ms) as EpochMs
const ended = (more: object) => ({
  upstream: 'harness',
  account: 'prod',
  client: 'bot',
  outcome: 'delivered',
  status: '200',
  durationMs: 20,
  waitMs: 0,
  correlationId: 'a',
  ...more,
})

describe('how calls ended lately', () => {
  it('is counted for five minutes, however many others follow', () => {
    const lately = new Lately()
    for (let i = 0; i < 30; i++)
      lately.count(ended({ outcome: 'queue_full', status: '429', correlationId: `full-${i}` }), at(i))
    for (let i = 0; i < 50_000; i++) lately.count(ended({ correlationId: `well-${i}` }), at(1_000 + i))
    const of = { upstream: 'harness', account: 'prod', slow: 0 }
    const refused = { ...of, client: 'bot', outcome: 'queue_full', status: '429' }
    expect(lately.rows(at(5 * MINUTE_MS - 1))).toEqual([
      { ...refused, calls: 30, correlationId: 'full-29', at: at(29) },
      {
        ...of,
        client: null,
        outcome: 'delivered',
        status: null,
        calls: 50_000,
        correlationId: 'well-49999',
        at: at(50_999),
      },
    ])
    // The first ten seconds are forgotten at once.
    expect(lately.rows(at(5 * MINUTE_MS + 10_000)).map(({ outcome }) => outcome)).toEqual(['delivered'])
    expect(lately.rows(at(60 * MINUTE_MS))).toEqual([])
  })

  it('is counted account by account, and by upstream where there are too many accounts', () => {
    const lately = new Lately()
    for (let i = 0; i < 3_000; i++) for (const ms of [0, 1]) lately.count(ended({ account: `account ${i}` }), at(ms))
    lately.count(ended({ account: 'account 7' }), at(2))
    const rows = lately.rows(at(2))
    const callsOf = (account: string | null) => rows.find((row) => row.account === account)?.calls
    expect([rows.length, callsOf('account 7'), callsOf(null)]).toEqual([1_001, 3, 4_000])
  })

  it('is counted for an account as a whole or not at all, in all of the time', () => {
    const lately = new Lately()
    const fail = (account: string, ms: number) => lately.count(ended({ account, status: '500' }), at(ms))
    const others = (ms: number) => {
      for (let i = 0; i < 3_000; i++) lately.count(ended({ account: `account ${i}` }), at(ms))
    }
    fail('early', 0)
    others(1)
    fail('late', 2)
    others(20_000)
    for (const account of ['early', 'late']) lately.count(ended({ account }), at(20_000))
    const rows = lately.rows(at(20_000))
    const statusesOf = (account: string) => rows.filter((row) => row.account === account).map(({ status }) => status)
    expect([statusesOf('early'), statusesOf('late')]).toEqual([['500', null], []])
  })

  it('names the client of a call that failed, however many accounts have calls', () => {
    const lately = new Lately()
    for (let i = 0; i < 3_000; i++) lately.count(ended({ account: `account ${i}` }), at(0))
    lately.count(ended({ account: 'account 1', outcome: 'quota_exhausted', status: '429' }), at(0))
    expect(lately.rows(at(0)).find(({ outcome }) => outcome === 'quota_exhausted')?.client).toBe('bot')
  })

  it('says how many were slow, without the wait for their turn, and without WebSockets', () => {
    const lately = new Lately()
    for (const call of [
      { durationMs: 6_000 },
      { durationMs: 60_000, waitMs: 59_000 },
      { durationMs: 60_000, status: '101' },
      { durationMs: 60_000, status: '500' },
    ])
      lately.count(ended(call), at(0))
    expect(lately.rows(at(0)).map(({ status, calls, slow }) => [status, calls, slow])).toEqual([
      [null, 3, 1],
      ['500', 1, 1],
    ])
  })

  it('goes on for a client that has a row, when there are too many others', () => {
    const lately = new Lately()
    const fail = (client: string) => lately.count(ended({ client, outcome: 'queue_full', status: '429' }), at(0))
    fail('busy')
    for (let i = 0; i < 2_000; i++) fail(`client ${i}`)
    for (let i = 0; i < 5_000; i++) fail('busy')
    const rows = lately.rows(at(0))
    const callsOf = (client: string | null) => rows.find((row) => row.client === client)?.calls
    expect([callsOf('busy'), callsOf(null)]).toEqual([5_001, 1])
  })

  it('names so many clients only', () => {
    const lately = new Lately()
    for (let i = 0; i < 5_000; i++)
      lately.count(ended({ client: `client ${i}`, outcome: 'queue_full', status: '429' }), at(0))
    const rows = lately.rows(at(0))
    expect(rows).toHaveLength(2_001)
    expect(rows.at(-1)).toMatchObject({ client: null, calls: 3_000 })
  })
})
