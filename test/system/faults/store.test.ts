import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { checkConfig } from '../../../src/config/load.ts'
import { createLog } from '../../../src/observe/log.ts'
import { runGateway } from '../../../src/run.ts'
import { FaultProxy } from '../../support/fault-proxy.ts'
import { readmeTable } from '../../support/readme.ts'
import { makeCall, type Seen, startFaultUpstream } from './calls.ts'
import { type Kind, KINDS, STORE_FAULTS, type StoreRow } from './table.ts'

const MODES = ['lease', 'closed'] as const
type Mode = (typeof MODES)[number]

interface Result {
  readonly seen: Seen
  readonly arrivals: number
  readonly afterwards: Seen
}

const results = new Map<string, Promise<Result>>()
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
    it.each(KINDS)('a %s ends as the table says, and as always once the line is well again', async (kind) => {
      const fate = row.fates[mode]
      expect(await results.get(pathOf(row, mode, kind))).toEqual({
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
      // With the pauses below shorter than a lease lasts, and longer than a busy Redis takes.
      commandTimeout: '1s',
      prefix: `faults-${process.pid}-${STORE_FAULTS.indexOf(row)}-${mode}`,
    },
    upstreams: { x: { url: upstream.url, accounts: { main: {} }, limits: { read: limit, write: limit } } },
  }
  const gateway = await runGateway(checkConfig(config, 'test'), { log: createLog({ level: 'silent', format: 'json' }) })
  const ask = (path: string, kind: Kind): Promise<Seen> => makeCall(kind, `${gateway.url}/x${path}`)
  // Each quota is known, and a lease of it held, before anything goes wrong.
  for (const kind of ['GET', 'POST'] as const) await ask(`/before-${mode}`, kind)
  await pause(1_000)
  proxy.set(row.fault)
  // The first exchange after it may have been under way.
  await pause(300)
  const seen = KINDS.map((kind) => ask(pathOf(row, mode, kind), kind))
  await Promise.all(seen)
  proxy.set(undefined)
  proxy.cut()
  const isBack = async (): Promise<boolean> =>
    (await fetch(`${gateway.adminUrl}/readyz`)).ok &&
    !(await (await fetch(`${gateway.adminUrl}/readyz`)).text()).includes('degraded')
  for (let i = 0; i < 100 && !(await isBack()); i++) await pause(100)
  for (const [i, kind] of KINDS.entries()) {
    const path = pathOf(row, mode, kind)
    results.set(
      path,
      ask(`${path}/afterwards`, kind).then(async (afterwards) => {
        return { seen: (await seen[i])!, arrivals: upstream.arrivals.get(path) ?? 0, afterwards }
      }),
    )
  }
  return {
    async stop() {
      await gateway.stop()
      await proxy.stop()
    },
  }
}
