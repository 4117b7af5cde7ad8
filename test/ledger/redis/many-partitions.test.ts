import { Redis } from 'ioredis'
import { afterAll, expect, inject, it } from 'vitest'
import { type ChargeSet, chargeSetOf, type Grant } from '../../../src/ledger/ledger.ts'
import { limitOf } from '../../../src/ledger/limit.ts'
import { RedisScript } from '../../../src/ledger/redis/script.ts'
import { SimulatedClock } from '../../support/simulated-clock.ts'
import { newPrefix, steppedLedger } from '../../support/stepped-ledger.ts'

const redis = new Redis(inject('redisUrl'))
afterAll(() => redis.quit())

/** So many that each partition ticks every two seconds. */
const PARTITIONS = 1_000
const WINDOW_MS = 10_000
const REQUESTS = 100
const STEP_MS = 5

/** A Redis that stands still for all its connections. */
class Host {
  isStill = false
  open = 0
  waiting: (() => void)[] = []

  goOn(): void {
    this.isStill = false
    for (const go of this.waiting.splice(0)) go()
  }
}

class Connection extends RedisScript {
  isClosed = false
  readonly #host: Host
  #pending = new Set<(error: Error) => void>()
  #onLost: (isConcerned: (key: string) => boolean) => void = () => undefined
  #onFound: (isSame: boolean) => void = () => undefined

  constructor(host: Host) {
    super(redis.duplicate())
    this.#host = host
  }

  override get isConnected(): boolean {
    return !this.isClosed
  }

  override onLost(listener: (isConcerned: (key: string) => boolean) => void): void {
    this.#onLost = listener
  }

  override onFound(listener: (isSame: boolean) => void): void {
    this.#onFound = listener
  }

  override async run(...call: Parameters<RedisScript['run']>): ReturnType<RedisScript['run']> {
    return this.#answered(() => super.run(...call))
  }

  override async runRegister(...call: Parameters<RedisScript['runRegister']>): ReturnType<RedisScript['runRegister']> {
    return this.#answered(() => super.runRegister(...call))
  }

  override async claimFormat(...call: Parameters<RedisScript['claimFormat']>): ReturnType<RedisScript['claimFormat']> {
    return this.#answered(() => super.claimFormat(...call))
  }

  async #answered<T>(run: () => Promise<T>): Promise<T> {
    const host = this.#host
    if (this.isClosed) throw new Error('it is closed')
    if (host.isStill) {
      await new Promise<void>((resolve, reject) => {
        this.#pending.add(reject)
        host.waiting.push(resolve)
      })
    }
    host.open++
    return run().finally(() => host.open--)
  }

  drop(): void {
    this.isClosed = true
    for (const reject of this.#pending) reject(new Error('it is closed'))
    this.#pending.clear()
    this.#onLost(() => true)
  }

  /** It is made again, to the same Redis. */
  connect(): void {
    this.isClosed = false
    this.#onFound(true)
  }
}

it.each([true, false])(
  'grants nothing twice where Redis stands still, and idle partitions tick rarely; connections end: %s',
  async (isClosed) => {
    const clock = new SimulatedClock(1_700_000_000_000)
    const prefix = newPrefix()
    const host = new Host()
    const settled = async (): Promise<void> => {
      do await clock.advance(0)
      while (host.open > 0)
    }
    const pass = async (ms: number, each?: () => void): Promise<void> => {
      for (let passed = 0; passed < ms; passed += STEP_MS) {
        each?.()
        await settled()
        await clock.advance(STEP_MS)
        await settled()
      }
    }
    const opened = (gateway: string) => {
      const connection = new Connection(host)
      const ledger = steppedLedger(redis, { clock, prefix, gateway, runner: connection, answerWithinMs: 50 })
      return { connection, ledger }
    }
    const few = opened('few')
    const many = opened('many')
    const chargeSetIn = (partition: string): ChargeSet =>
      chargeSetOf(partition, [
        {
          limit: limitOf({
            id: 'read',
            class: 'read',
            requests: REQUESTS,
            windowMs: WINDOW_MS,
            countingToleranceMs: 100,
          }),
        },
      ])
    const common = chargeSetIn('vendor/common')
    const sentAt: number[] = []
    const send = ({ ledger }: typeof few, wanted: number, chargeSet = common): void => {
      const take = (grant: Grant): void => {
        for (let n = 0; n < grant.granted; n++) {
          if (chargeSet === common) sentAt.push(clock.now())
          ledger.commit(grant)
        }
      }
      void (async () => ledger.charge(chargeSet, wanted))().then(take, () => undefined)
    }
    const begun = Promise.all([few.ledger.begin(), many.ledger.begin()])
    await pass(1_200)
    await begun
    for (let n = 0; n < PARTITIONS; n++) {
      send(many, 1, chargeSetIn(`vendor/${n}`))
      if (n % 50 === 49) await settled()
    }
    send(many, 1)
    await pass(3_300)
    send(few, 75)
    await settled()
    await pass(WINDOW_MS - 1_000)
    host.isStill = true
    await pass(1_000, () => send(few, 10))
    if (isClosed) for (const { connection } of [few, many]) connection.drop()
    await pass(255, () => send(few, 10))
    host.goOn()
    if (isClosed) for (const { connection } of [few, many]) connection.connect()
    await pass(2_500, () => {
      send(many, 10)
      send(few, 2)
    })
    const most = Math.max(...sentAt.map((from) => sentAt.filter((at) => at >= from && at < from + WINDOW_MS).length))
    expect(most).toBeLessThanOrEqual(REQUESTS)
    expect(most).toBeGreaterThan(75)
    await Promise.all([few.ledger.close(), many.ledger.close()])
  },
  120_000,
)
