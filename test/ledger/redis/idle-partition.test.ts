import { Redis } from 'ioredis'
import { afterAll, expect, inject, it } from 'vitest'
import { chargeSetOf } from '../../../src/ledger/ledger.ts'
import { limitOf } from '../../../src/ledger/limit.ts'
import { AnsweredScript } from '../../support/answered-script.ts'
import { SimulatedClock } from '../../support/simulated-clock.ts'
import { newPrefix, steppedLedger } from '../../support/stepped-ledger.ts'

const redis = new Redis(inject('redisUrl'))
afterAll(() => redis.quit())

const PARTITION = 'vendor/idle'
/** Longer than a partition is kept that nobody uses. */
const IDLE_MS = 605_000
/** The register notes a partition that is used again after 10 s, for 30 s. */
const NOTED_MS = 45_000

it('does not go on to say that a partition is used which nobody uses any more, nor takes its ended keys for lost', async () => {
  const clock = new SimulatedClock()
  const prefix = newPrefix()
  const connection = new AnsweredScript(redis.duplicate())
  const changes: string[] = []
  const ledger = steppedLedger(redis, {
    clock,
    prefix,
    runner: connection,
    onChange: (_, mode) => void changes.push(mode),
  })
  const limit = limitOf({ id: 'read', class: 'read', requests: 100, windowMs: 1_000 })
  const chargeSet = chargeSetOf(PARTITION, [{ limit }])
  const send = async (): Promise<void> => ledger.commit(await ledger.charge(chargeSet, 1))
  const noted = async (): Promise<boolean> => {
    const [register] = await redis.keys(`${prefix}:*{register}:homes`)
    return (await redis.zscore(register!, `+${PARTITION}`)) !== null
  }

  await send()
  await connection.pass(clock, 300)
  expect(await noted()).toBe(true)

  await connection.pass(clock, IDLE_MS, 50)
  await connection.pass(clock, NOTED_MS, 50)
  expect(await noted()).toBe(false)
  // Redis ends the keys of the partition by its own time, which does not pass here.
  await redis.del(await redis.keys(`${prefix}:*{${PARTITION}}*`))
  await send()
  await connection.pass(clock, 300)
  expect(changes).toEqual([])
  await ledger.close()
})
