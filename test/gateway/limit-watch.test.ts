import { describe, expect, it } from 'vitest'
import { LimitWatch, type QuotaNotice, sentenceOf } from '../../src/gateway/limit-watch.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import { limitOf } from '../../src/ledger/limit.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const limit = limitOf({ id: 'read', class: 'read', requests: 100, windowMs: 60_000, label: '1m' })

function setUp() {
  const clock = new SimulatedClock()
  const metrics = new Metrics()
  const notices: QuotaNotice[] = []
  const services = { clock, metrics, onQuotaNotice: (notice: QuotaNotice) => notices.push(notice) }
  const watch = new LimitWatch(limit, {
    upstream: 'it',
    account: 'main',
    services,
  })
  const note = async (used: number, effective?: number) => {
    watch.note({ limit, used, resetMs: 0, effective }, 'a call')
    await clock.advance(10_000)
  }
  const episodes = async () => /quota_low_total\{[^}]*\} (\d+)/.exec(await metrics.registry.metrics())?.[1]
  const look = (used: number) => watch.note({ limit, used, resetMs: 0 })
  return { notices, note, look, episodes }
}

describe('the watch over a limit', () => {
  it('tells once that less than a tenth is left, until a fifth was left for a while', async () => {
    const { notices, note, episodes } = setUp()
    for (const used of [50, 90]) await note(used)
    expect(notices).toEqual([])
    // In and out, as a saturated limit goes; at 85 not a fifth is left, at 70 not for long.
    for (const used of [91, 95, 85, 100, 70, 95, 81, 92]) await note(used)
    expect(notices).toMatchObject([
      { kind: 'low', upstream: 'it', account: 'main', class: 'read', window: '1m', used: 91 },
    ])
    for (let i = 0; i < 8; i++) await note(80)
    await note(91)
    expect(notices.map(({ kind }) => kind)).toEqual(['low', 'low'])
    expect(await episodes()).toBe('2')
  })

  it('tells nothing where a scrape sees what calls of other processes have used', async () => {
    const { notices, note, look, episodes } = setUp()
    await note(10)
    for (let i = 0; i < 3; i++) look(100)
    expect([notices, await episodes()]).toEqual([[], '0'])
    await note(100)
    look(100)
    expect([notices.map(({ kind }) => kind), await episodes()]).toEqual([['low'], '1'])
  })

  it('goes by what can be used now', async () => {
    const { notices, note } = setUp()
    await note(30, 50)
    await note(46, 50)
    expect(notices.map(({ kind }) => kind)).toEqual(['reduced', 'low'])
  })

  it('tells once that the upstream lets less through, and once that it lets all through again', async () => {
    const { notices, note } = setUp()
    for (const effective of [50, 47, undefined, 60, undefined]) await note(10, effective)
    expect(notices).toMatchObject([{ kind: 'reduced', effective: 50, limit: 100 }])
    for (let i = 0; i < 8; i++) await note(10)
    expect(notices.map(({ kind }) => kind)).toEqual(['reduced', 'restored'])
    expect(notices.map(sentenceOf)[0]).toContain('correct limits.read')
  })
})
