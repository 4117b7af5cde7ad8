import { expect, inject, it, onTestFinished } from 'vitest'
import { describeSaturated, type Gateway, MAX_ANSWER_MS, type Saturated, saturate } from '../../support/saturation.ts'
import { describeTopology, startSentinelRedis, until } from '../../support/redis-topologies.ts'
import { setTimeout as pause } from 'node:timers/promises'

/** `npm run bench:ledger -- --processes` runs them in full; the suite, those with something that goes wrong, shorter. */
const isInFull = process.env['SLUICE_PROOF'] === 'full'
const WINDOWS = isInFull ? 5 : 3
/** In the suite longer than by default, because on a busy machine Redis itself may be late. */
const STORE = isInFull ? {} : { commandTimeout: '2s' }

function expectKept({ worst, limit, throttled, statuses, slowestMs }: Saturated, allowed: readonly string[]): void {
  expect(throttled).toBe(0)
  expect(worst).toBeLessThanOrEqual(limit)
  expect(slowestMs).toBeLessThan(MAX_ANSWER_MS)
  // Those that still waited at the end broke with their gateway.
  for (const status of Object.keys(statuses)) expect(['200', 'broken', ...allowed]).toContain(status)
}

describeTopology('three saturated gateway processes', () => {
  it('never exceed the quota, and use what the guarantee leaves of it', async () => {
    const saturated = await saturate({ ...STORE, url: inject('redisUrl'), prefix: `saturated-${process.pid}` }, 5)
    console.log(describeSaturated('undisturbed', saturated))
    expectKept(saturated, [])
    // Against the latency that was measured, so that a busy machine, which makes calls slower, does not count.
    expect(saturated.utilisation).toBeGreaterThanOrEqual(0.97)
  })

  it('never exceed it when one is killed with calls in flight', async () => {
    const store = { ...STORE, url: inject('redisUrl'), prefix: `killed-${process.pid}` }
    const saturated = await saturate(store, WINDOWS, async ([, , last]) => {
      await pause(1.5 * 5_000)
      last!.kill('SIGKILL')
    })
    console.log(describeSaturated('one gateway killed', saturated))
    expectKept(saturated, [])
  })

  it('never exceed it when the master of Redis dies and a replica takes over', async () => {
    const redis = await startSentinelRedis()
    onTestFinished(() => redis.stop())
    const { sentinels, sentinelPassword } = redis
    let recoveredMs = 0
    const saturated = await saturate({ ...STORE, sentinels, sentinelPassword }, WINDOWS, async (gateways) => {
      await pause(1.2 * 5_000)
      await redis.doubtSoon()
      const old = await redis.master()
      const diedAt = performance.now()
      await old.kill()
      await until(async () => (await redis.master()) !== old)
      await until(async () => (await Promise.all(gateways.map(isDegraded))).every((is) => !is))
      recoveredMs = Math.round(performance.now() - diedAt)
    })
    console.log(describeSaturated('Sentinel fail-over', saturated), `quota shared again after ${recoveredMs} ms`)
    expectKept(saturated, ['503 store_unavailable', '429 quota_exhausted'])
    expect(recoveredMs).toBeGreaterThan(0)
  })
})

async function isDegraded({ adminUrl }: Gateway): Promise<boolean> {
  return 'degraded' in ((await (await fetch(`${adminUrl}/readyz`)).json()) as object)
}
