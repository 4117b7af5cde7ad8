import { expect, it, onTestFinished } from 'vitest'
import { spread, unevenness } from '../../bench/cluster.ts'
import { describeTopology, startCluster } from '../../support/redis-topologies.ts'

describeTopology('a Redis Cluster', () => {
  it('has the accounts spread evenly over its masters, each with all that belongs to it in one slot', async () => {
    const cluster = await startCluster(0)
    onTestFinished(() => cluster.stop())
    const { granted, acrossSlots, shares, register } = await spread(cluster, 2_000)
    expect(granted).toBe(2_000)
    expect(acrossSlots).toBe(0)
    expect(unevenness(shares.map(({ keys }) => keys))).toBeLessThan(0.05)
    expect(register.bytes / 2_000).toBeLessThan(200)
  })
})
