import { Redis } from 'ioredis'
import { afterAll, expect, inject, it } from 'vitest'
import { limitOf } from '../../src/ledger/limit.ts'
import { caseOf } from './case.ts'
import { range, runCases } from './cases.ts'
import { realHost } from './real-host.ts'
import { modelHost, type Outcome, simulate } from './simulation.ts'
import { percent, utilisation } from './verdict.ts'

const redis = new Redis(inject('redisUrl'))
afterAll(() => redis.quit())

it('no window has more than its limit in another thousand cases that keep the assumptions', async () => {
  const { broken, cases, worst } = await runCases('random', range(1_001, 1_000))
  expect(broken).toEqual([])
  expect(cases).toBe(1_000)
  expect(worst).toBe('100.00 %')
}, 600_000)

it.each([
  ['when a gateway begins just after a replica has taken over', 'newcomer', 200],
  ['when the clock of that replica is behind', 'set back', 60],
  ['when wall clocks are set, both ways, while gateways run and between two runs', 'clock set', 200],
  ['when there are so many partitions that leases are renewed more rarely', 'many partitions', 1],
  ['when keys are lost under connections that stay, and gateways ask that had not', 'keys lost', 100],
  ['with onOutage: closed, and nothing is sent without Redis', 'closed', 60],
  ['with onOutage: open, except for what is sent without Redis', 'open', 60],
  ['beside one that is not enforced, which holds nothing back', 'shadow', 20],
] as const)('no window has more than its limit %s', async (_, kind, cases) => {
  const { broken } = await runCases(kind, range(1, cases))
  expect(broken).toEqual([])
})

it('a saturated limit is used to at least 98 % of window / (window + mean latency)', async () => {
  const { broken } = await runCases('saturated', range(1, 40))
  expect(broken).toEqual([])
})

it('a limit of a minute with latencies of 300 ms is used to 97.5 %', async () => {
  const seed = 4
  const of = caseOf('saturated', seed)
  const minute = {
    ...of,
    limits: [limitOf({ id: 'only', class: 'any', requests: 100, windowMs: 60_000 })],
    load: { ...of.load, latency: { ...of.load.latency, meanMs: 300 } },
    durationMs: 600_000,
  }
  const outcome = await simulate(minute)
  const used = utilisation(minute, outcome) * (60_000 / (60_000 + outcome.meanLatencyMs))
  expect(used, percent(used)).toBeGreaterThan(0.975)
})

it.each(['cut off', 'late', 'standing still'] as const)(
  'a gateway that is %s for longer than assumed adds no more than what it had',
  async (kind) => {
    const { broken } = await runCases(kind, range(1, 60))
    expect(broken).toEqual([])
  },
)

it('a replica whose clock is ahead adds no more than what counted until all had found it', async () => {
  const { broken } = await runCases('set ahead', range(1, 60))
  expect(broken).toEqual([])
})

it('the same calls are sent at the same instants with a real Redis in place of the model', async () => {
  for (const seed of [1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15]) {
    const of = caseOf('random', seed)
    const modelled = await simulate(of, { host: modelHost(false) })
    if (modelled.sent > 1_000) continue
    const real = await simulate(of, { host: realHost(redis, `simulated-${process.pid}-${seed}`) })
    expect(seen(real), `seed ${seed}`).toEqual(seen(modelled))
  }
})

/** Without the limits, which each has made for itself. */
function seen({ limits, ...rest }: Outcome): unknown {
  return { ...rest, worst: limits.map(({ worst, atMs }) => ({ worst, atMs })) }
}
