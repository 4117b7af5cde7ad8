import { readFileSync } from 'node:fs'
import { Redis } from 'ioredis'
import { afterAll, describe, expect, inject, it, onTestFinished } from 'vitest'
import { chargeSetOf } from '../../../src/ledger/ledger.ts'
import { type LimitSpec, limitOf } from '../../../src/ledger/limit.ts'
import { FormatLease } from '../../../src/ledger/redis/format-lease.ts'
import { RedisScript } from '../../../src/ledger/redis/script.ts'
import { systemClock } from '../../../src/time/clock.ts'
import { SimulatedClock } from '../../support/simulated-clock.ts'
import { newPrefix, steppedLedger } from '../../support/stepped-ledger.ts'

const redis = new Redis(inject('redisUrl'))
afterAll(() => redis.quit())

describe('what a release with the format before this one has charged', () => {
  /** Written by the ledger of format 2: 37 reads, 3.7 s to 0 s before `at`, and 4 writes; at most 1,000 reads a day. */
  interface Recorded {
    readonly at: number
    readonly keys: Record<string, { readonly string?: string; readonly hash?: Record<string, string> }>
  }
  const recorded = JSON.parse(
    readFileSync(new URL('../../data/ledger-format-2.json', import.meta.url), 'utf8'),
  ) as Recorded

  async function setUp() {
    const prefix = newPrefix()
    for (const [key, { string, hash }] of Object.entries(recorded.keys)) {
      const name = key.replace(/^sluice:/, `${prefix}:`)
      if (string !== undefined) await redis.set(name, Buffer.from(string, 'base64'))
      else await redis.hset(name, hash!)
    }
    const clock = new SimulatedClock(recorded.at / 1_000)
    const gateway = (name: string) => steppedLedger(redis, { clock, gateway: name, prefix })
    const spec = { class: 'any', windowMs: 60_000 }
    const limits = (...specs: (Partial<LimitSpec> & { id: string; requests: number })[]) =>
      chargeSetOf(
        'harness acme',
        specs.map((one) => ({ limit: limitOf({ ...spec, ...one }) })),
      )
    const day = { id: 'read.86400000.calendar', windowMs: 86_400_000, kind: 'calendar' as const }
    const reads = limits({ id: 'read.60000', requests: 100 }, { ...day, requests: 1_000 })
    const writes = limits({ id: 'write.60000', requests: 10 })
    return { clock, gateway, reads, writes }
  }

  it('is charged here too, limit by limit, once for all gateways, and leaves within a window', async () => {
    const { clock, gateway, reads, writes } = await setUp()
    const [one, other] = [gateway('one'), gateway('other')]
    expect((await one.charge(reads, 1_000)).granted).toBe(63)
    expect((await other.charge(reads, 1_000)).granted).toBe(0)
    const sent = await other.charge(writes, 1_000)
    expect(sent.granted).toBe(6)
    expect((await one.charge(writes, 1_000)).granted).toBe(0)
    const [, day] = await one.usage(reads)
    expect(day?.used).toBe(100)
    for (let i = 0; i < sent.granted; i++) other.commit(sent)
    await clock.advance(61_000)
    expect((await one.usage(writes)).map(({ used }) => used)).toEqual([0])
  })

  it('is not charged where its window is over', async () => {
    const { clock, gateway, writes } = await setUp()
    await clock.advance(61_000)
    expect((await gateway('one').charge(writes, 1_000)).granted).toBe(10)
  })
})

describe('the lease of a ledger format', () => {
  /** Longer than any process stands still on a busy machine. */
  const TERM_MS = 3_000

  function setUp() {
    const key = `${newPrefix()}:{register}:format`
    const script = new RedisScript(redis)
    const gatewayOf = async (format: number) => {
      const changes: (number | undefined)[] = []
      const lease = new FormatLease({
        clock: systemClock,
        format,
        claim: ([asked, , rememberedMs]) => script.claimFormat(key, [asked, TERM_MS, rememberedMs]),
        onChange: (other) => changes.push(other),
      })
      onTestFinished(() => lease.close())
      await lease.begin()
      return { lease, changes }
    }
    return { gatewayOf }
  }
  const minute = [limitOf({ id: 'read.60000', class: 'read', requests: 1, windowMs: 60_000 })]
  const short = [limitOf({ id: 'read.100', class: 'read', requests: 1, windowMs: 100, countingToleranceMs: 0 })]

  it('is had by all gateways of the format that was there first, and by no other as long as one of these is alive', async () => {
    const { gatewayOf } = setUp()
    const [one, other] = [await gatewayOf(3), await gatewayOf(3)]
    const newer = await gatewayOf(4)
    expect([one.lease.problem, other.lease.problem]).toEqual([undefined, undefined])
    expect(newer.lease.whyBlocked(minute)).toMatch(/ledger format 3 are running/)
    expect(newer.lease.isDenied).toBe(true)
    one.lease.close()
    other.lease.close()
    await expect.poll(() => newer.lease.isDenied).toBe(false)
    expect(newer.changes).toEqual([3, undefined])
    expect(newer.lease.whyBlocked(minute)).toBeUndefined()
    const older = await gatewayOf(3)
    expect(older.lease.isDenied).toBe(true)
  })

  it('lets a format that can not read what another one counted wait until that has left its windows', async () => {
    const { gatewayOf } = setUp()
    const newer = await gatewayOf(4)
    newer.lease.close()
    const older = await gatewayOf(3)
    await expect.poll(() => older.lease.isDenied).toBe(false)
    expect(older.lease.whyBlocked(minute)).toMatch(/ledger format 4/)
    expect((await gatewayOf(3)).lease.whyBlocked(minute)).toMatch(/ledger format 4/)
    await expect.poll(() => older.lease.whyBlocked(short)).toBeUndefined()
  })
})
