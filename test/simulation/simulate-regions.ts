/**
 * Splits limits over regions, with random demand, partitions, crashes and losses of home: `npm run simulate:regions`. `--cases 500
 * --seed 7` runs so many from that seed on. Prints what was granted too much, and how well a limit is used, beside its bar.
 */
import { parseArgs } from 'node:util'
import { Redis } from 'ioredis'
import { limitOf } from '../../src/ledger/limit.ts'
import { bar } from '../bench/bar.ts'
import { startRedisServer } from '../support/find-redis.ts'
import { randomRegionsCase, type RegionsCase, type RegionsOutcome, simulateRegions } from './regions.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    cases: { type: 'string', default: '250' },
    'until-broken': { type: 'boolean', default: false },
  },
})

const server = await startRedisServer()
const redis = new Redis(server.url)
try {
  await runRandom(Number(values.seed), Number(values.cases))
  if (!values['until-broken']) await runCalm()
} finally {
  redis.disconnect()
  await server.stop()
}

async function runRandom(first: number, cases: number): Promise<void> {
  let [sent, most, faults] = [0, 0, 0]
  for (let seed = first; seed < first + cases; seed++) {
    const of = randomRegionsCase(seed)
    const outcome = await simulateRegions(of, redis)
    sent += outcome.sent
    faults += of.faults.length
    for (const { limit, units, atMs } of outcome.worst) {
      const over = units - limit.requests
      most = Math.max(most, over)
      if (over <= 0) continue
      console.error(
        `BROKEN seed ${seed}: ${units} of ${limit.requests} of ${limit.kind} ${limit.id} at ${Math.round(atMs)} ms`,
      )
      if (!values['until-broken']) continue
      process.exitCode = 1
      return
    }
  }
  console.log(`${cases} cases, ${faults} faults, ${sent} calls`)
  bar('units granted too much in any window, over all regions', Math.max(0, most), { atMost: 0 }, '')
}

/** Nothing goes wrong: how much of a limit is used if all regions want it, or one; and how fast it follows the demand. */
async function runCalm(): Promise<void> {
  const [requests, windowMs, latencyMs, durationMs, reserve] = [300, 10_000, 50, 180_000, 0.3]
  const names = ['ap', 'eu', 'us']
  const base: RegionsCase = {
    seed: 1,
    limits: [limitOf({ id: 'first', class: 'first', requests, windowMs })],
    weights: { ap: 1, eu: 1, us: 1 },
    reserve,
    leaseMs: 10_000,
    gateways: 2,
    durationMs,
    latencyMs,
    phases: [],
    faults: [],
  }
  const everywhere = names.map((region) => ({ region, from: 0, until: durationMs, calls: requests }))
  const all = await simulateRegions({ ...base, phases: everywhere }, redis)
  const usedBy = (outcome: RegionsOutcome, from: number, until: number, region?: string): number => {
    const calls = outcome.counted.filter(
      (one) => one.atMs >= from && one.atMs < until && (region ?? one.region) === one.region,
    )
    return calls.length / ((requests * (until - from)) / windowMs)
  }
  bar('used where three regions want all', usedBy(all, 60_000, durationMs), { atLeast: 0.93 }, '')
  const parts = names.map((name) => usedBy(all, 60_000, durationMs, name))
  bar('least of three equal parts', Math.min(...parts) * 3, { atLeast: 0.85 }, '')

  const one = await simulateRegions({ ...base, phases: everywhere.slice(0, 1) }, redis)
  const reachable = 1 - (2 * reserve) / 3
  bar(
    'used where one region wants all, of what is not reserved for two others',
    usedBy(one, 60_000, durationMs) / reachable,
    { atLeast: 0.93 },
    '',
  )
  // The reserves of two idle regions are a fifth of it.
  bar('stranded where one region wants all, of the limit', 1 - usedBy(one, 60_000, durationMs), { atMost: 0.26 }, '')

  const switched = await simulateRegions(
    {
      ...base,
      phases: [
        { region: 'eu', from: 0, until: 90_000, calls: requests },
        { region: 'us', from: 90_000, until: durationMs, calls: requests },
      ],
    },
    redis,
  )
  let followed = Infinity
  for (let from = 90_000; from + windowMs <= durationMs; from += 500)
    if (usedBy(switched, from, from + windowMs, 'us') >= 0.9 * reachable) followed = Math.min(followed, from - 90_000)
  // A window in which the old region's calls count, a lease, the margin, and three questions.
  bar('seconds until a share has followed the demand to another region', followed / 1_000, { atMost: 25 }, 's')
}
