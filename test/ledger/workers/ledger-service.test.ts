import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { LedgerFiles } from '../../../src/ledger/embedded/ledger-files.ts'
import { MemoryLedger } from '../../../src/ledger/embedded/memory-ledger.ts'
import {
  type ChargeSet,
  chargeSetOf,
  type Grant,
  type Ledger,
  StoreUnavailableError,
  type UpstreamFeedback,
} from '../../../src/ledger/ledger.ts'
import { limitOf, windowOf } from '../../../src/ledger/limit.ts'
import { WorkerLedger } from '../../../src/ledger/workers/worker-ledger.ts'
import { LedgerService } from '../../../src/ledger/workers/ledger-service.ts'
import { newFolder } from '../../support/gateway.ts'
import { seededRandom } from '../../support/seeded-random.ts'
import { SimulatedClock } from '../../support/simulated-clock.ts'
import { worstCount } from '../../support/worst-count.ts'

/** Whatever waits to be told is told within this. */
const TOLD_MS = 10

function setUp(files?: LedgerFiles) {
  const clock = new SimulatedClock(1_700_000_000_000)
  const embedded = new MemoryLedger(clock, files)
  const service = new LedgerService(embedded, clock)
  const connect = () => {
    // Whatever is carried is carried as text.
    const carry = <T>(what: T): T => JSON.parse(JSON.stringify(what)) as T
    let messages = 0
    /** What the first process does not take yet. */
    let held: (() => void)[] | undefined
    const connection = service.open((answers) => ledger.receive(carry(answers)))
    const ledger: WorkerLedger = new WorkerLedger(clock, (told, onSent) => {
      messages++
      const take = (): void => connection.receive(carry(told))
      if (held === undefined) take()
      else held.push(take)
      onSent?.()
    })
    const hang = (): (() => void) => {
      held = []
      return () => {
        for (const take of held!.splice(0)) take()
        held = undefined
      }
    }
    return { ledger, hang, die: () => connection.close(), messages: () => messages }
  }
  return { clock, embedded, connect }
}

const rolling = limitOf({ id: 'read.10000', class: 'read', requests: 20, windowMs: 10_000 })
const burst = limitOf({ id: 'read.500', class: 'read', requests: 5, windowMs: 500 })
const CHARGE_SETS: readonly ChargeSet[] = [
  chargeSetOf('x/a', [{ limit: rolling }, { limit: burst, units: 2 }], 'x/a'),
  chargeSetOf('x/a', [
    { limit: rolling, units: 3 },
    { limit: limitOf({ id: 'read.flight', class: 'read', requests: 4, kind: 'concurrent' }) },
    { limit: limitOf({ id: 'pace', class: 'read', requests: 3, windowMs: 900, kind: 'smoothing' }) },
  ]),
  chargeSetOf('x/b', [
    { limit: limitOf({ id: 'month', class: 'all', requests: 90, ...windowOf('hour', {}) }) },
    { limit: limitOf({ id: 'minute', class: 'all', requests: 30, windowMs: 60_000, kind: 'calendar' }), units: 2 },
    { limit: limitOf({ id: 'shadow', class: 'all', requests: 2, windowMs: 5_000, isEnforced: false }) },
  ]),
  chargeSetOf('x/b', [
    { limit: limitOf({ id: 'answers', class: 'ok', requests: 40, windowMs: 30_000, settles: 'at-head' }), units: 4 },
    {
      limit: limitOf({ id: 'money', class: 'usd', requests: 9e9, windowMs: 20_000, settles: 'at-end', unit: 'usd' }),
      units: 2e9,
    },
    { limit: limitOf({ id: 'flight', class: 'ok', requests: 3, kind: 'concurrent' }) },
  ]),
]

/** A call that both were granted, with what can still be told of it. */
interface Call {
  readonly worker: number
  readonly asked: Grant
  readonly direct: Grant
  isCharged: boolean
  isReserved: boolean
}

function seen({ granted, usage, schedule, at }: Grant, now: number): object {
  const numbers = usage.map(({ limit, used, resetMs, effective }) => [limit.id, used, resetMs, effective])
  const heldBy = schedule?.heldBy(3, now)
  return { granted, numbers, heldBy: typeof heldBy === 'object' ? heldBy.id : heldBy, at }
}

/** By how much one is longer than the other, for a few numbers of calls. */
function lateMs({ schedule: asked }: Grant, { schedule: direct }: Grant, now: number): number[] {
  return [1, 2, 7, 40].map((calls) => (asked?.waitMs(calls, now) ?? 0) - (direct?.waitMs(calls, now) ?? 0) || 0)
}

describe('the ledger of workers', () => {
  it.each([1, 2, 3, 4])(
    'answers as the embedded ledger would answer one process, whatever is told (seed %i)',
    async (seed) => {
      const { clock, connect } = setUp()
      const direct = new MemoryLedger(clock)
      const workers = [connect(), connect(), connect()]
      const random = seededRandom(seed)
      const pick = <T>(all: readonly T[]): T => all[Math.floor(random() * all.length)]!
      let calls: Call[] = []
      /** Both are told the same: one of them when the other is told, which is a moment later where nobody waits for it. */
      const both = async (act: (ledger: Ledger, of: 'asked' | 'direct') => void, worker: number): Promise<void> => {
        act(workers[worker]!.ledger, 'asked')
        await clock.advance(TOLD_MS)
        act(direct, 'direct')
      }
      const soon = async (act: (ledger: Ledger, of: 'asked' | 'direct') => void, worker: number): Promise<void> => {
        act(workers[worker]!.ledger, 'asked')
        act(direct, 'direct')
        await clock.advance(TOLD_MS)
      }
      const mayWait = ({ limits }: ChargeSet): boolean => limits.every(({ windowMs }) => windowMs >= 1_000)
      let granted = 0
      let refused = 0
      for (let step = 0; step < 1_500; step++) {
        const worker = Math.floor(random() * workers.length)
        const call = calls.length > 0 ? pick(calls) : undefined
        const dice = random()
        if (dice < 0.4 || call === undefined) {
          const chargeSet = pick(CHARGE_SETS)
          const wanted = Math.floor(random() * 4)
          const turn = random() < 0.3 ? { queue: 'q', costs: [['c', 1] as const] } : undefined
          const asked = workers[worker]!.ledger.charge(chargeSet, wanted, turn)
          const expected = direct.charge(chargeSet, wanted, turn)
          const now = clock.now()
          await clock.advance(0)
          const grant = await asked
          expect(seen(grant, now)).toEqual(seen(expected, now))
          // Told in microseconds, and never too soon.
          for (const late of lateMs(grant, expected, now)) {
            expect(late).toBeGreaterThanOrEqual(0)
            expect(late).toBeLessThan(0.01)
          }
          for (let i = 0; i < grant.granted; i++)
            calls.push({
              worker,
              asked: grant,
              direct: expected,
              isCharged: true,
              isReserved: grant.rest !== undefined,
            })
          granted += grant.granted
          if (grant.granted < wanted) refused++
        } else if (dice < 0.5) {
          const kinds: readonly UpstreamFeedback[] = [
            { kind: 'refused', limit: 0 },
            { kind: 'counted', limit: 0, units: 7, tolerance: 1, resetMs: 4_000, isRefused: random() < 0.3 },
            { kind: 'pause', ms: 300 },
          ]
          const feedback = pick(kinds)
          const act = feedback.kind === 'counted' && !feedback.isRefused ? both : soon
          await act((ledger, of) => ledger.applyFeedback(call[of], feedback), call.worker)
        } else if (dice < 0.52 && calls.length > 8) {
          // A worker dies, and another comes: the upstream may still count what was in flight.
          const dead = call.worker
          workers[dead]!.die()
          for (const { worker: of, direct: grant, isCharged, isReserved } of calls) {
            if (of !== dead) continue
            if (isCharged) direct.abandon(grant)
            else if (isReserved) direct.abandon(grant.rest!)
            direct.leave(grant)
          }
          calls = calls.filter(({ worker: of }) => of !== dead)
          workers[dead] = connect()
        } else {
          if (call.isCharged) {
            const kind = random()
            if (kind < 0.6) {
              const units = call.asked.part.isSettled && random() < 0.7 ? call.asked.part.units.map(() => 1) : undefined
              const act = units === undefined && mayWait(call.asked.chargeSet) ? both : soon
              await act((ledger, of) => ledger.commit(call[of], units), call.worker)
              if (call.isReserved) {
                const spent = [random() < 0.5 ? 5e8 : 3e9]
                await soon((ledger, of) => ledger.commit(call[of].rest!, spent), call.worker)
              }
            } else if (kind < 0.8) {
              const act = mayWait(call.asked.chargeSet) ? both : soon
              await act((ledger, of) => ledger.abandon(call[of]), call.worker)
            } else await soon((ledger, of) => ledger.refund(call[of]), call.worker)
          }
          await soon((ledger, of) => ledger.leave(call[of]), call.worker)
          calls = calls.filter((one) => one !== call)
        }
        if (random() < 0.2) await clock.advance(random() * 700)
      }
      expect(granted).toBeGreaterThan(50)
      expect(refused).toBeGreaterThan(50)
    },
  )

  it('has calls come without a message each while there is plenty, and never one over the limit', async () => {
    const { clock, connect } = setUp()
    const requests = 1_000
    const windowMs = 1_000
    const chargeSet = chargeSetOf('x/a', [{ limit: limitOf({ id: 'read', class: 'read', requests, windowMs }) }])
    const workers = [connect(), connect(), connect()]
    const random = seededRandom(7)
    const arrivals: number[] = []
    let flying: { worker: number; grant: Grant; until: number }[] = []
    /** Calls for so long, each of them granted or not at once. */
    const run = async (ms: number, callsPerMs: number): Promise<void> => {
      for (let passed = 0; passed < ms; passed++) {
        const asked: Promise<void>[] = []
        for (let n = random() * 2 * callsPerMs; n > 1 || random() < n; n--) {
          const worker = Math.floor(random() * workers.length)
          const charge = async (): Promise<void> => {
            const grant = await workers[worker]!.ledger.charge(chargeSet, 1)
            if (grant.granted === 0) return
            // An upstream may count a call at any instant until its headers are here.
            const until = clock.now() + random() * 30
            arrivals.push(random() < 0.5 ? clock.now() : until)
            flying.push({ worker, grant, until })
          }
          asked.push(charge())
        }
        await clock.advance(1)
        await Promise.all(asked)
        for (const { worker, grant, until } of flying) if (until <= clock.now()) workers[worker]!.ledger.commit(grant)
        flying = flying.filter(({ until }) => until > clock.now())
      }
    }
    const messages = (): number => workers.reduce((sum, worker) => sum + worker.messages(), 0)
    await run(400, 0.4)
    const calm = [arrivals.length, messages()] as const
    expect(calm[1] / calm[0]).toBeLessThan(1)
    await run(2_500, 4)
    workers[2]!.die()
    flying = flying.filter(({ worker }) => worker !== 2)
    workers[2] = connect()
    await run(2_500, 4)
    expect(
      worstCount(
        arrivals.toSorted((a, b) => a - b),
        windowMs,
      ),
    ).toBeLessThanOrEqual(requests)
    // What a dead worker had leased is back with the window, and what the others had not spent at once.
    await run(1_500, 0)
    const before = arrivals.length
    await run(300, 0.5)
    await run(50, 0)
    const [usage] = await Promise.all([workers[0]!.ledger.usage(chargeSet), clock.advance(0)])
    expect(usage[0]!.used).toBe(arrivals.length - before)
  })

  it('goes by a budget that was changed, whichever worker hears of it first', async () => {
    const { clock, connect } = setUp()
    const [one, other] = [connect(), connect()]
    /** Each worker counts the orders of its limits by itself. */
    const budgetOf = (requests: number, order: number): ChargeSet =>
      chargeSetOf('client:bot', [
        { limit: limitOf({ id: 'budget', class: 'budget', requests, windowMs: 60_000, order }) },
      ])
    const spend = async ({ ledger }: typeof one, budget: ChargeSet): Promise<number> => {
      const [grant] = await Promise.all([ledger.charge(budget, 100), clock.advance(TOLD_MS)])
      return grant.granted
    }
    const [first, next] = [1, 2].map((generation) => generation * 2 ** 32) as [number, number]
    expect(await spend(other, budgetOf(10, first + 900))).toBe(10)
    expect(await spend(one, budgetOf(15, first + 7))).toBe(5)
    expect(await spend(one, budgetOf(18, next + 1))).toBe(3)
    // This worker has not reloaded yet.
    expect(await spend(other, budgetOf(30, first + 901))).toBe(0)
  })

  it('refuses calls whose quota can not be written, and says so, as the embedded ledger does', async () => {
    const folder = join(newFolder(), 'store')
    const { clock, connect } = setUp(new LedgerFiles(folder))
    const { ledger } = connect()
    await clock.advance(0)
    await ledger.begun
    expect([ledger.isReady, ledger.problem]).toEqual([true, undefined])
    rmSync(folder, { recursive: true })
    const refused = ledger.charge(CHARGE_SETS[0]!, 1) as Promise<Grant>
    const told = expect(refused).rejects.toThrow(StoreUnavailableError)
    await clock.advance(0)
    await told
    expect([ledger.isReady, ledger.isDegraded]).toEqual([false, true])
    expect(ledger.problem).toMatch(/^the quota can not be written to disk \(ENOENT/)
  })

  it('waits five seconds for a first process that hangs, and gives back what is granted later', async () => {
    const { clock, embedded, connect } = setUp()
    const { ledger, hang } = connect()
    await clock.advance(0)
    const wakeUp = hang()
    const asked = ledger.charge(CHARGE_SETS[1]!, 1) as Promise<Grant>
    const told = expect(asked).rejects.toThrow(StoreUnavailableError)
    await clock.advance(5_000)
    await told
    wakeUp()
    await clock.advance(TOLD_MS)
    const used = (await embedded.usage(CHARGE_SETS[1]!)).map((usage) => usage.used)
    expect(used).toEqual([0, 0, 0])
    const again = ledger.charge(CHARGE_SETS[1]!, 1)
    await clock.advance(0)
    expect((await again).granted).toBe(1)
  })

  it('takes an answer that has arrived while this process stood still', async () => {
    const { clock, connect } = setUp()
    const { ledger, hang } = connect()
    await clock.advance(0)
    const wakeUp = hang()
    // It can be read once the timer that waited for it has gone off, too.
    clock.schedule(5_000, () => void setImmediate(() => void setImmediate(wakeUp)))
    const asked = ledger.charge(CHARGE_SETS[1]!, 1) as Promise<Grant>
    const told = expect(asked).resolves.toMatchObject({ granted: 1 })
    await clock.advance(5_000)
    await told
  })
})
