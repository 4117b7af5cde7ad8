import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { checkConfig } from '../../../src/config/load.ts'
import { createLog } from '../../../src/observe/log.ts'
import { runGateway } from '../../../src/process/run.ts'
import { FaultProxy } from '../../support/fault-proxy.ts'
import { until } from '../../support/redis-topologies.ts'
import { readmeTable } from '../../support/readme.ts'
import { SimulatedClock, stepUntilDone } from '../../support/simulated-clock.ts'
import { makeCall, type Seen, startFaultUpstream } from './calls.ts'
import { type Kind, KINDS, STORE_FAULTS, type StoreRow } from './table.ts'

const MODES = ['lease', 'closed'] as const
type Mode = (typeof MODES)[number]

interface Result {
  readonly seen: Seen
  readonly arrivals: number
  readonly afterwards: Seen
}

const results = new Map<string, Result>()
let stop: () => Promise<unknown>

/** All rows at once, each by a gateway of its own for each mode. */
beforeAll(async () => {
  const upstream = await startFaultUpstream()
  const cells = STORE_FAULTS.flatMap((row) => MODES.map((mode) => startCell(row, mode, upstream)))
  stop = async () => {
    for (const cell of await Promise.all(cells)) await cell.stop()
    upstream.stop()
  }
  await Promise.all(cells)
})
afterAll(() => stop())

describe.each(STORE_FAULTS)('with $name between gateway and Redis', (row) => {
  describe.each(MODES)('and onOutage: %s', (mode) => {
    it.each(KINDS)('a %s ends as the table says, and as always once the line is well again', (kind) => {
      const fate = row.fates[mode]
      expect(results.get(pathOf(row, mode, kind))).toEqual({
        seen: fate === 'answered' ? { kind: 'answered' } : { kind: 'refused', error: fate },
        // Never twice, and never without a quota.
        arrivals: fate === 'answered' ? 1 : 0,
        afterwards: { kind: 'answered' },
      })
    })
  })
})

describe('the table of faults of the store', () => {
  it('is the README’s', () => {
    const documented = readmeTable('between gateway and Redis').map((cells) => Object.values(cells))
    expect(documented).toEqual(STORE_FAULTS.map(({ name, fates }) => [name, ...MODES.map((mode) => fates[mode])]))
  })
})

function pathOf({ name }: StoreRow, mode: Mode, kind: Kind): string {
  return `/${name}/${mode}/${kind}`.replaceAll(' ', '-')
}

async function startCell(row: StoreRow, mode: Mode, upstream: Awaited<ReturnType<typeof startFaultUpstream>>) {
  const proxy = await FaultProxy.start({ target: inject('redisUrl') })
  const limit = [{ requests: 1_000, window: '60s' }]
  const config = {
    server: { port: 0, drain: '0s' },
    admin: { port: 0 },
    store: {
      kind: 'redis',
      url: proxy.url,
      onOutage: mode,
      commandTimeout: '1s',
      prefix: `faults-${process.pid}-${STORE_FAULTS.indexOf(row)}-${mode}`,
    },
    upstreams: { x: { url: upstream.url, accounts: { main: {} }, limits: { read: limit, write: limit } } },
  }
  const clock = new SimulatedClock()
  const log = createLog({ level: 'silent', format: 'json' })
  const gateway = await stepUntilDone(clock, runGateway(checkConfig(config, 'test'), { log, clock }))
  const ask = (path: string, kind: Kind): Promise<Seen> => makeCall(kind, `${gateway.url}/x${path}`)
  const answers = async (): Promise<number> => {
    const metrics = await (await fetch(`${gateway.adminUrl}/metrics`)).text()
    return Number(/^sluice_store_duration_seconds_count (\d+)/m.exec(metrics)![1])
  }
  // Each quota is known, and a lease of it held, before anything goes wrong.
  for (const kind of ['GET', 'POST'] as const) await stepUntilDone(clock, ask(`/before-${mode}`, kind))
  const [before, since] = [await answers(), clock.now()]
  await stepUntilDone(
    clock,
    until(async () => (await answers()) >= before + 3 && clock.now() - since > 1_200),
  )
  // Late by the clock of the machine, so by more than any machine may be.
  const isTooLate = row.fault.kind === 'latency' && row.fates.closed !== 'answered'
  proxy.set(isTooLate ? { ...row.fault, ms: 600_000 } : row.fault)
  // A tick later: the exchange after it may have been under way, and where commands are not read any more the first still is.
  const faultyAt = clock.now()
  await stepUntilDone(
    clock,
    until(async () => clock.now() - faultyAt > 300),
  )
  const seen = KINDS.map((kind) => ask(pathOf(row, mode, kind), kind))
  // Where Redis is there, only late, nobody is to lose patience. A lease lasts for three timeouts.
  await stepUntilDone(clock, Promise.all(seen), row.fates.closed === 'answered' ? 1 : 5)
  proxy.set(undefined)
  proxy.cut()
  const isBack = async (): Promise<boolean> => {
    const response = await fetch(`${gateway.adminUrl}/readyz`)
    return !(await response.text()).includes('degraded') && response.ok
  }
  await stepUntilDone(clock, until(isBack))
  for (const [i, kind] of KINDS.entries()) {
    const path = pathOf(row, mode, kind)
    const afterwards = await stepUntilDone(clock, ask(`${path}/afterwards`, kind))
    results.set(path, { seen: (await seen[i])!, arrivals: upstream.arrivals.get(path) ?? 0, afterwards })
  }
  return {
    async stop() {
      await stepUntilDone(clock, gateway.stop())
      await proxy.stop()
    },
  }
}
