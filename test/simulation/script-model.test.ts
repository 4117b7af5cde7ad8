import { isDeepStrictEqual } from 'node:util'
import { Redis } from 'ioredis'
import { afterAll, expect, inject, it } from 'vitest'
import type { Random } from '../../src/time/clock.ts'
import { BUCKETS, type Limit, limitOf } from '../../src/ledger/limit.ts'
import { ANY, type Argument, type Reply } from '../../src/ledger/redis/protocol.ts'
import { chargeScript, RedisScript } from '../../src/ledger/redis/script.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { DATED, DATED_KIND, ScriptModel } from './script-model.ts'

const redis = new Redis(inject('redisUrl'))
afterAll(() => redis.quit())

const KINDS = ['rolling', 'calendar', 'concurrent', 'smoothing'] as const
let made = 0
/** Half a day before the zone of `DATED` changes its clock by half an hour. */
const START = Date.parse('2026-10-03T03:30Z') * 1_000

it('the model of the script gives the same replies as the script in Redis, whatever it is asked', async () => {
  expect(await firstDifference(new RedisScript(redis), 80)).toBeUndefined()
})

it.each([
  ['there is no new stamp when the response headers arrive', 'if to > 0 then', 'if to < 0 then'],
  ['no bucket more is kept than the window has', "['0'] = 100", "['0'] = 99"],
  ['only the first limit is checked', 'if c.units > 0 and c.allowed < 4503599627370496 then', 'if i == 1 then'],
  ['leases of others are not minded', 'c.others = max(0, c.reserved - c.lease)', 'c.others = 0'],
  ['all that have waited are served, whoever was granted', 'if unserved == 0 then break end', ''],
  [
    'calls find out all at once what a limit has grown by',
    'if sure >= units or now < l.lookAt then',
    'if sure >= units then',
  ],
  ['a refusal of what should have got through counts like any other', 'used <= sureOf(c, l) and', 'false and'],
  [
    'calls in flight are not charged ahead',
    'charge(c, now, now + c.inFlightLease, units)',
    'charge(c, now, now, units)',
  ],
])('the replies differ if in the script %s', async (_, from, to) => {
  const lua = chargeScript()
  expect(lua).toContain(from)
  const mutated = redis.duplicate()
  const script = new RedisScript(mutated)
  mutated.defineCommand('sluiceCharge', { lua: lua.replace(from, to) })
  expect(await firstDifference(script, 20)).toBeDefined()
  script.close()
})

/** Where replies of the script and of its model differ first, in so many random sequences of calls. */
async function firstDifference(script: RedisScript, seeds: number): Promise<unknown> {
  for (let seed = 1; seed <= seeds; seed++) {
    const prefix = `model-${process.pid}-${made++}`
    const { calls, replies, served: modelServed } = modelled(seed, prefix)
    const real: Reply[] = []
    for (let i = 0; i < calls.length;) {
      const { lost } = calls[i]!
      if (lost.length > 0) await redis.del([...lost])
      const next = calls.findIndex((call, at) => at > i && call.lost.length > 0)
      const end = next === -1 ? calls.length : next
      real.push(...(await Promise.all(calls.slice(i, end).map(({ keys, args }) => script.run(keys, args)))))
      i = end
    }
    const served = await redis.hgetall(calls[0]!.keys[2]!)
    for (const [client, sum] of Object.entries(modelServed)) {
      if (Number(served[client] ?? 0) !== sum) return { seed, client, served, modelServed }
    }
    await redis.del([...new Set(calls.flatMap(({ keys }) => keys))])
    for (const [i, reply] of real.entries()) {
      if (!isDeepStrictEqual(reply, replies[i])) return { seed, i, args: calls[i]!.args, reply, modelled: replies[i] }
    }
  }
  return undefined
}

interface Call {
  readonly keys: readonly string[]
  readonly args: readonly Argument[]
  /** Keys that are lost before it. */
  readonly lost: readonly string[]
}

/** A random sequence of calls by several gateways, and what the model replies. */
function modelled(seed: number, prefix: string): { calls: Call[]; replies: Reply[]; served: Record<string, number> } {
  const random = seededRandom(seed)
  const model = new ScriptModel(false)
  const limits = Array.from({ length: 1 + pick(random, 3) }, (_, i) => randomLimit(random, i))
  const gateways = ['a', 'b', 'c']
    .slice(0, 1 + pick(random, 3))
    .map((name) => ({ name, sent: 0, isRefused: false, charged: [START] }))
  const calls: Call[] = []
  const replies: Reply[] = []
  const stepMs = Math.min(...limits.map(({ bucketMs }) => bucketMs)) * [0.1, 1, 8][pick(random, 3)]!
  let now = START + Math.floor(random() * 1e9)
  for (let n = 0; n < 250; n++) {
    now += Math.floor(random() ** 3 * stepMs * 3_000)
    if (random() < 0.02) now += Math.floor(random() * 40_000_000)
    if (random() < 0.03) now -= Math.floor(random() ** 2 * 2_000_000)
    if (seed % 10 === 0 && random() < 0.03) now -= Math.floor(random() * 90_000_000)
    const gateway = gateways[pick(random, gateways.length)]!
    const args = randomCall(random, limits, gateway, now)
    const keys = ['limits', 'leases', 'served'].map((name) => `${prefix}:${name}`)
    const lost = random() < 0.02 ? keys.slice(0, 2).filter(() => random() < 0.6) : []
    model.lose((key) => lost.includes(key))
    const call = { keys, args, lost }
    const reply = model.run(call.keys, call.args)
    gateway.sent = reply[1]!
    gateway.isRefused = reply[2] === -1
    if (reply[2]! > 0) gateway.charged.push(now)
    calls.push(call)
    replies.push(reply)
  }
  const { virtualService: served } = JSON.parse(
    model.runExchange([`${prefix}:waiting`, `${prefix}:served`], ['a', now, 1, '[]']),
  ) as {
    virtualService: Record<string, number>
  }
  return { calls, replies, served }
}

interface Gateway {
  readonly name: string
  readonly sent: number
  readonly isRefused: boolean
  readonly charged: number[]
}

function randomCall(random: Random, limits: readonly Limit[], gateway: Gateway, now: number): Argument[] {
  const used = limits.map((_, i) => i).filter(() => random() < 0.7)
  if (used.length === 0) used.push(0)
  const next = gateway.sent === 0 && random() < 0.5 ? 0 : gateway.sent + 1
  const expected = random() < (gateway.isRefused ? 0.5 : 0.05) ? -1 : random() < 0.03 ? next + 1 : next
  const adaptive = used.map((i) => limits[i]!).filter(isAdaptive)
  const kinds = Array.from({ length: random() < 0.3 ? 2 : 1 }, (): Argument[] => {
    const changes = Array.from({ length: pick(random, 4) }, () => {
      return random() < 0.9 ? randomChange(random, gateway, now) : randomFeedback(random, gateway, adaptive)
    })
    const units = used.map(() => (random() < 0.1 ? 0 : 1 + pick(random, 2)))
    return [...units, changes.length, ...changes.flat()]
  })
  const additions = Array.from({ length: random() < 0.1 ? 1 + pick(random, 5) : 0 }, () => {
    const number = pick(random, used.length)
    const { bucketMs, kept, calendar } = limits[used[number]!]!
    const current = calendar?.indexOf(now / 1_000) ?? Math.floor(now / (bucketMs * 1_000))
    return [number + 1, current - kept - 2 + pick(random, kept + 160), 1 + pick(random, 4)]
  })
  const isClaim = random() < 0.05
  const isRenewal = isClaim || random() < 0.2
  const hasWaited = !isRenewal && random() < 0.3
  const args: Argument[] = [
    expected,
    now,
    random() < 0.3 ? 0 : 1 + pick(random, 5),
    kinds.length,
    additions.length,
    isRenewal ? 3_000 : 0,
    hasWaited ? 2 : Number(isClaim),
    used.length,
    '=pause',
    gateway.name,
    ...used.map((i) => limits[i]!.id),
  ]
  for (const i of used) {
    const { kind, requests, bucketMs, inFlightLeaseMs, countingToleranceMs, isEnforced, calendar } = limits[i]!
    const allowed = isEnforced ? requests : ANY
    const [code, length] = calendar === undefined ? [KINDS.indexOf(kind), bucketMs * 1_000] : [DATED_KIND, dates(now)]
    args.push(code, allowed, length, inFlightLeaseMs * 1_000, countingToleranceMs * 1_000)
  }
  args.push(...kinds.flat(), ...additions.flat())
  if (isRenewal) args.push(...used.map(() => pick(random, 4)))
  if (hasWaited) args.push(random() < 0.5 ? '1 2 1 1 3 ' : '3 1 2 2 1 ', 'a', 1, 'b', 0.5, 'c', 0.25)
  return args
}

function randomChange(random: Random, { charged }: Gateway, now: number): Argument[] {
  const what = ['commit', 'commit', 'abandon', 'refund', 'leave', 'renew'][pick(random, 6)]!
  const at = charged[Math.max(0, charged.length - 1 - pick(random, 6))]!
  const change: Argument[] = [what, at, 1 + pick(random, 3)]
  if (what === 'refund' || what === 'leave') return [...change, 0]
  const to = now - Math.floor(random() ** 4 * 2_000_000) + (random() < 0.5 ? 1_000 : 0)
  if (what !== 'renew') return [...change, to]
  charged.push(to)
  return [...change, to, pick(random, 4)]
}

function isAdaptive({ kind, isEnforced }: Limit): boolean {
  return isEnforced && (kind === 'rolling' || kind === 'calendar')
}

function randomFeedback(random: Random, { charged }: Gateway, limits: readonly Limit[]): Argument[] {
  const at = charged[Math.max(0, charged.length - 1 - pick(random, 6))]!
  const limit = limits[pick(random, limits.length)]
  if (limit === undefined || random() < 0.2) {
    return ['pause', random() < 0.8 ? '=pause' : '=pause other', pick(random, 300)]
  }
  if (random() < 0.4) return ['refused', limit.id, at]
  const [counted, tolerance, isRefused] = [pick(random, 30), pick(random, 5), pick(random, 2)]
  return ['counted', limit.id, at, counted, tolerance, pick(random, 3) * 400_000, isRefused]
}

/** The window before the current one, when it begins, and when the next four begin. */
function dates(now: number): string {
  const first = DATED.indexOf(now / 1_000) - 1
  return [first, ...[0, 1, 2, 3, 4].map((n) => DATED.startOf(first + n) * 1_000)].join(' ')
}

function randomLimit(random: Random, i: number): Limit {
  const kind = KINDS[pick(random, 4)]!
  const windowMs = kind === 'concurrent' ? 0 : [100, 1_000, 7_777, 60_000][pick(random, 4)]!
  return limitOf({
    id: `${i}`,
    class: 'any',
    requests: [1, 4, 20, BUCKETS][pick(random, 4)]!,
    windowMs,
    kind,
    ...(kind === 'calendar' && random() < 0.5 ? { windowMs: DATED.windowMs, calendar: DATED } : {}),
    countingToleranceMs: [1, 333, 1_000][pick(random, 3)]!,
    isEnforced: random() < 0.9,
  })
}

function pick(random: Random, below: number): number {
  return Math.floor(random() * below)
}
