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
/** A used partition is noted every 10 s. A note lasts 30 s. */
const NOTED_MS = 45_000
/** Later than the next tick of the partition. */
const LATE_MS = 300

class LateScript extends AnsweredScript {
  #pause: (() => Promise<void>) | undefined

  /** From now on each answer comes when `pause` has resolved. */
  delay(pause: (() => Promise<void>) | undefined): void {
    this.#pause = pause
  }

  override async run(...call: Parameters<AnsweredScript['run']>): ReturnType<AnsweredScript['run']> {
    const reply = await super.run(...call)
    await this.#pause?.()
    return reply
  }
}

it.each([false, true])(
  'forgets an idle partition, and does not take its expired keys for lost; late answers: %s',
  async (isLate) => {
    const clock = new SimulatedClock()
    const prefix = newPrefix()
    const connection = new LateScript(redis.duplicate())
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
      expect(register).toBeDefined()
      return (await redis.zscore(register!, `+${PARTITION}`)) !== null
    }

    await send()
    await connection.pass(clock, 300)
    expect(await noted()).toBe(true)

    if (isLate) connection.delay(() => new Promise((resolve) => void clock.schedule(LATE_MS, resolve)))
    await connection.pass(clock, IDLE_MS, 50)
    connection.delay(undefined)
    await connection.pass(clock, NOTED_MS, 50)
    expect(await noted()).toBe(false)
    // Redis ends the keys of the partition by its own time, which does not pass here.
    await redis.del(await redis.keys(`${prefix}:*{${PARTITION}}*`))
    await send()
    await connection.pass(clock, 300)
    expect(changes).toEqual([])
    await ledger.close()
  },
)
