import { Redis } from 'ioredis'
import { afterAll, expect, inject, it } from 'vitest'
import { chargeSetOf } from '../../../src/ledger/ledger.ts'
import { limitOf } from '../../../src/ledger/limit.ts'
import { AnsweredScript } from '../../support/answered-script.ts'
import { SimulatedClock } from '../../support/simulated-clock.ts'
import { newPrefix, steppedLedger } from '../../support/stepped-ledger.ts'

const redis = new Redis(inject('redisUrl'))
afterAll(() => redis.quit())

const HOUR_MS = 3_600_000

it('a gateway that starts waits no longer where the clock of Redis was set back', async () => {
  const clock = new SimulatedClock(10 * HOUR_MS)
  const options = { clock, prefix: newPrefix() }
  let behindMs = 0
  const time = (): number => clock.now() - behindMs
  const running = steppedLedger(redis.duplicate(), { ...options, time })
  const started = steppedLedger(redis.duplicate(), { ...options, time })
  let begun = 0
  const begin = (ledger: typeof running): void => void ledger.begin().then(() => begun++)
  const passes = async (): Promise<number> => {
    await clock.advance(1_000)
    return begun
  }
  begin(running)
  await expect.poll(passes).toBe(1)
  behindMs = HOUR_MS
  begin(started)
  await expect.poll(passes).toBe(2)
  expect(clock.now() - 10 * HOUR_MS).toBeLessThan(HOUR_MS / 4)
  await Promise.all([running.close(), started.close()])
})

it('a gateway that Redis did not tell in time whether another release runs grants nothing before it has', async () => {
  const clock = new SimulatedClock()
  const prefix = newPrefix()
  const [seconds] = await redis.time()
  await redis.hset(`${prefix}:{register}:format`, 'format', 9, 'renewed', Number(seconds) * 1_000 + 3_000)
  const runner = new (class extends AnsweredScript {
    isLate = true
    override claimFormat(...claim: Parameters<AnsweredScript['claimFormat']>) {
      return this.isLate ? new Promise<never>(() => undefined) : super.claimFormat(...claim)
    }
  })(redis.duplicate())
  const changes: (number | undefined)[] = []
  const options = { clock, prefix, runner, onOtherFormat: (format: number | undefined) => changes.push(format) }
  const ledger = steppedLedger(redis, { ...options, answerWithinMs: 50, time: null })
  let isBegun = false
  void ledger.begin().then(() => (isBegun = true))
  const begins = async (): Promise<boolean> => {
    await runner.pass(clock, 100)
    return isBegun
  }
  await expect.poll(begins).toBe(true)
  const limit = limitOf({ id: 'read', class: 'read', requests: 100, windowMs: 60_000 })
  const charge = async (): Promise<unknown> => {
    // A store that is known to be away makes it throw at once, and time has to pass all the same.
    const charged = (async () => ledger.charge(chargeSetOf('vendor/main', [{ limit }]), 1))()
    const granted = charged.then(
      (grant) => grant.granted,
      (error: unknown) => (error as Error).message,
    )
    await runner.pass(clock, 100)
    return granted
  }
  expect(await charge()).not.toBe(1)
  runner.isLate = false
  await expect.poll(charge).toContain('ledger format 9')
  expect(changes).toEqual([9])
  await ledger.close()
})
