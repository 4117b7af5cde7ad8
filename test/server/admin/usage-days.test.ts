import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { harnessConfig, newFolder, startGateway } from '../../support/gateway.ts'
import { call } from '../../support/http.ts'
import { SimulatedClock } from '../../support/simulated-clock.ts'

const AFTERNOON = Date.parse('2026-11-28T15:00Z')

/** A gateway that has kept a row of each of these days. */
async function startKeeping(days: readonly string[]) {
  const dir = newFolder()
  mkdirSync(join(dir, 'usage'), { recursive: true })
  for (const day of days) {
    const rows = [
      [
        ['a', 'api', 'main', 'read'],
        [1, 1, 0, 0, 0, 0, 0],
      ],
    ]
    writeFileSync(join(dir, 'usage', `${day}.json`), JSON.stringify({ version: 1, rows }))
  }
  const config = { ...harnessConfig('http://127.0.0.1:1'), store: { dir } }
  return startGateway(config, { clock: new SimulatedClock(AFTERNOON) })
}

describe('the days of an export', () => {
  const DAYS = ['2026-08-30', '2026-11-26', '2026-11-27', '2026-11-28']

  it.each([
    ['', ['2026-11-28']],
    ['?until=2026-11-28', ['2026-11-28']],
    ['?until=2026-11-27', ['2026-11-27']],
    ['?until=2026-12-31', []],
    ['?since=1d&until=2026-11-27', ['2026-11-27']],
    ['?since=2026-11-28T23:00Z&until=2026-11-28', ['2026-11-28']],
    ['?since=2026-11-26&until=2026-11-27T00:00Z', ['2026-11-26', '2026-11-27']],
    ['?since=2026-01-01&until=2026-08-30', ['2026-08-30']],
    ['?since=90d', DAYS],
  ])('%s are those from the day of since to that of until, both with all their hours', async (query, expected) => {
    const gateway = await startKeeping(DAYS)
    const answer = await call(gateway.adminUrl, `/v1/usage/days${query}`)
    expect(answer.status, answer.body).toBe(200)
    expect(answer.json().data.map(({ day }: { day: string }) => day)).toEqual(expected)
  })

  it.each([
    ['?since=2026-01-01&until=2026-08-29', 'usage is kept for 90 days'],
    ['?since=2026-11-28&until=2026-11-27', 'the day of until must not be before the day of since'],
    ['?since=2026-12-31&until=2026-11-28', 'the day of until must not be before the day of since'],
  ])('are refused with %s', async (query, word) => {
    const gateway = await startKeeping(DAYS)
    const answer = await call(gateway.adminUrl, `/v1/usage/days${query}`)
    expect([answer.status, answer.json().detail]).toEqual([400, expect.stringContaining(word)])
  })
})
