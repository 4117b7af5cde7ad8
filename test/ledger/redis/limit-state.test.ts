import { expect, it } from 'vitest'
import { Counter } from '../../../src/ledger/counter.ts'
import { chargeSetOf, Grant } from '../../../src/ledger/ledger.ts'
import { type Limit, limitOf } from '../../../src/ledger/limit.ts'
import { LimitState } from '../../../src/ledger/redis/limit-state.ts'
import type { Random } from '../../../src/time/clock.ts'
import { seededRandom } from '../../support/seeded-random.ts'

const KINDS = ['rolling', 'calendar', 'concurrent'] as const

it.each(KINDS)(
  'of a limit that is %s nothing of a gateway is missing in Redis after an outage, whatever became of its calls',
  (kind) => {
    for (let seed = 1; seed <= 150; seed++) {
      const random = seededRandom(seed)
      const windowMs = [1_000, 10_000, 60_000][pick(random, 3)]!
      const limit = limitOf({ id: 'x', class: 'x', requests: 1_000, kind, windowMs })
      for (const missing of missingAfter(random, limit)) expect(missing, `seed ${seed}`).toBeUndefined()
    }
  },
)

/** Calls are charged, renewed and end at random, while Redis is there and while it is away. Yields after each step what Redis would lack. */
function* missingAfter(random: Random, limit: Limit): Generator<string | undefined> {
  let isOffline = false
  const state = new LimitState(limit, () => isOffline)
  const redis = new Counter(limit)
  const chargeSet = chargeSetOf('any', [{ limit }])
  const grants: Grant[] = []
  let now = 1_700_000_000_000
  for (let n = 0; n < 200; n++) {
    now += Math.floor(random() ** 3 * limit.renewMs)
    if (n === 60) isOffline = true
    if (isOffline && random() < 0.05) tell()
    const grant = grants[pick(random, grants.length)]
    const what = random()
    if (grant === undefined || what < 0.3) charge()
    else if (what < 0.75) renew(grant)
    else end(grant)
    yield lackOf()
  }

  function charge(): void {
    const calls = 1 + pick(random, 3)
    state.charge(now, now, calls)
    if (isOffline) state.unreplicatedCounter().charge(now, now, calls)
    else redis.charge(now, now, calls)
    grants.push(new Grant(chargeSet, now, calls, [], { isLocal: isOffline }))
  }

  function renew(grant: Grant): void {
    state.renew(grant, grant.uncommitted, now, now)
    if (!isOffline) redis.renew(now, grant.at, now, grant.uncommitted)
    grant.at = now
  }

  function end(grant: Grant): void {
    const isRefund = limit.kind === 'concurrent' || random() < 0.3
    if (isRefund) state.refund(grant, 1, now)
    else state.commit(grant, 1, now, 0)
    if (!isOffline && isRefund) redis.refund(now, grant.at, 1)
    else if (!isOffline) redis.commit(now, grant.at, 1, 0)
    if (--grant.uncommitted === 0) grants.splice(grants.indexOf(grant), 1)
  }

  function tell(): void {
    for (const { bucket, units } of state.unreplicated?.charges(now) ?? []) redis.restore(now, bucket, units)
    state.unreplicated = undefined
  }

  function lackOf(): string | undefined {
    const told = new Map<number, number>()
    for (const counter of [redis, state.unreplicated])
      for (const { bucket, units } of counter?.charges(now) ?? []) told.set(bucket, (told.get(bucket) ?? 0) + units)
    const lacking = state.own.charges(now).find(({ bucket, units }) => units > (told.get(bucket) ?? 0))
    return lacking && `${lacking.units} units in a bucket, of which ${told.get(lacking.bucket) ?? 0} would be there`
  }
}

function pick(random: Random, below: number): number {
  return Math.floor(random() * below)
}
