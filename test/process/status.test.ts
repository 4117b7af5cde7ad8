import pino from 'pino'
import { Readable } from 'node:stream'
import { text as textOf } from 'node:stream/consumers'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { checkConfig } from '../../src/config/load.ts'
import { buildSnapshot, closeSnapshot } from '../../src/gateway/snapshot.ts'
import type { QuotaNotice } from '../../src/gateway/limit-watch.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import { type ChargeSet, chargeSetOf, type LimitUsage } from '../../src/ledger/ledger.ts'
import type { QuotaRow } from '../../src/server/admin/status.ts'
import { Usage } from '../../src/usage/usage.ts'
import { Losses } from '../../src/records/losses.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { mergeQuotas } from '../../src/process/merge-rows.ts'
import { gatewayStatus } from '../../src/process/status.ts'
import { harnessConfig } from '../support/gateway.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

/** A ledger that answers nobody before it was asked about three accounts, and counts who asks. */
class SlowLedger extends MemoryLedger {
  asked = 0
  readonly #allAsked = Promise.withResolvers<void>()

  override async usage(chargeSet: ChargeSet): Promise<readonly LimitUsage[]> {
    if (++this.asked === 3) this.#allAsked.resolve()
    await this.#allAsked.promise
    return super.usage(chargeSet)
  }
}

/**
 * A ledger that has lost Redis for what is counted for the account a or client a, and answers for b only once Redis is there again
 * for all.
 */
class ReturningLedger extends MemoryLedger {
  #isDegraded = true

  override get isDegraded(): boolean {
    return this.#isDegraded
  }

  override async usage(chargeSet: ChargeSet): Promise<readonly LimitUsage[]> {
    const usages = await super.usage(chargeSet)
    if (chargeSet.partition.endsWith('a')) {
      return usages.map((usage) => ({ ...usage, used: usage.limit.requests, isLocal: true }))
    }
    await nextTurn()
    this.#isDegraded = false
    return usages
  }
}

function statusOf(
  config: object,
  ledger: MemoryLedger,
  clock: SimulatedClock,
  onQuotaNotice: (notice: QuotaNotice) => void = () => undefined,
) {
  const metrics = new Metrics()
  const usage = new Usage({ metrics, clock })
  const services = { clock, random: () => 0.5, ledger, metrics, usage, onBreakerChange: () => undefined, onQuotaNotice }
  const snapshot = buildSnapshot(checkConfig(config, 'test'), services)
  onTestFinished(() => closeSnapshot(snapshot))
  const status = gatewayStatus({
    clock,
    metrics,
    ledger,
    usage,
    live: { current: snapshot },
    losses: new Losses(clock, pino({ level: 'silent' })),
    isStopping: () => false,
    clientConnections: () => Promise.resolve(0),
    requests: () => [],
  })
  return { snapshot, status }
}

describe('the quotas', () => {
  it('are shown with when they end and how fast they are spent, but for calls in flight', async () => {
    const clock = new SimulatedClock()
    const ledger = new MemoryLedger(clock)
    const limits = {
      read: [{ requests: 100, window: '1h' }, { concurrent: 5 }],
      write: [{ requests: 10, window: '1h' }],
    }
    const config = { url: 'http://x', accounts: { a: {} }, limits }
    const { snapshot, status } = statusOf({ upstreams: { u: config } }, ledger, clock)
    await status.quota()
    const { chargeSet } = snapshot.upstreams.get('u')!.accounts.get('a')!.admissionPolicies
    const read = chargeSetOf(chargeSet.partition, [{ limit: chargeSet.limits[0]! }])
    for (let i = 0; i < 50; i++) {
      ledger.commit(ledger.charge(read, 1))
      await clock.advance(6_000)
    }
    // 50 in five minutes are ten times as many as may be: the other half is gone in five minutes, too.
    const of = (rows: readonly QuotaRow[] | undefined) =>
      rows?.map(({ class: name, window, exhaustionInMs, burnRatio }) => [name, window, exhaustionInMs, burnRatio])
    expect(of(await status.quota())).toEqual([
      ['read', '1h', 294_000, 6],
      ['read', 'at once', null, null],
      ['write', '1h', null, 0],
    ])
    const shown = await textOf(Readable.from(status.metrics()))
    const gauges = [...shown.matchAll(/^sluice_quota_(exhaustion|burn)\w+\{.*class="(\w+)",window="(.+)"\} (\S+)$/gm)]
    expect(gauges.map(([, ...words]) => words.join(' '))).toEqual([
      'exhaustion read 1h 294',
      'burn read 1h 6',
      'burn write 1h 0',
    ])
  })
})

describe('what Redis could not be asked', () => {
  it('is local, whatever Redis answers of the rest, and when', async () => {
    const clock = new SimulatedClock()
    const ledger = new ReturningLedger(clock)
    const limits = { read: [{ requests: 100, window: '1h' }] }
    const notices: string[] = []
    const { status } = statusOf(
      {
        store: { kind: 'redis', url: 'redis://127.0.0.1:1' },
        clients: Object.fromEntries(
          ['a', 'b'].map((name) => [name, { keys: [hashKey(name)], budget: [{ requests: 10, window: '1h' }] }]),
        ),
        upstreams: { u: { url: 'http://x', accounts: { b: { id: 'b' }, a: { id: 'a' } }, limits } },
      },
      ledger,
      clock,
      ({ account, kind }) => void notices.push(`${account} ${kind}`),
    )
    const quota = await status.quota()
    expect(quota?.map(({ account, isLocal, burnRatio }) => [account, isLocal, burnRatio])).toEqual([
      ['b', undefined, 0],
      ['a', true, null],
    ])
    expect(notices).toEqual([])
    const budgets = await status.budgets()
    expect(budgets?.map(({ name, isLocal }) => [name, isLocal])).toEqual([
      ['a', true],
      ['b', undefined],
    ])
  })
})

describe('the quotas of several workers', () => {
  it('are what one of them knows, before what another can not ask', () => {
    const labels = { upstream: 'u', account: 'a', class: 'read', window: '1h' }
    const counts = {
      limit: 10,
      effective: 10,
      remaining: 9,
      resetMs: 1,
      exhaustionInMs: null,
      burnRatio: 0,
      waiting: 2,
    }
    const known: QuotaRow = { ...labels, ...counts, used: 1 }
    const local: QuotaRow = { ...labels, ...counts, used: 10, burnRatio: null, isLocal: true }
    for (const rows of [
      [known, local],
      [local, known],
    ])
      expect(mergeQuotas(rows)).toEqual([{ ...known, waiting: 4 }])
  })
})

describe('a scrape', () => {
  it('asks the store about every account once, and about all of them together', async () => {
    const clock = new SimulatedClock()
    const ledger = new SlowLedger(clock)
    const accounts = Object.fromEntries(['a', 'b', 'c'].map((id) => [id, { id }]))
    const { status } = statusOf(harnessConfig('http://x', { accounts }), ledger, clock)
    const shown = await textOf(Readable.from(status.metrics()))
    expect(ledger.asked).toBe(3)
    for (const gauge of ['quota_limit', 'quota_used']) {
      expect(shown.match(new RegExp(`^sluice_${gauge}\\{.*class="(read|write|template|webhook)"`, 'gm'))).toHaveLength(
        12,
      )
    }
    await textOf(Readable.from(status.metrics()))
    expect(ledger.asked).toBe(6)
    const rows = await status.quota()
    expect(rows?.map((row) => row.account + row.class).slice(0, 5)).toEqual([
      'aread',
      'awrite',
      'atemplate',
      'awebhook',
      'bread',
    ])
  })
})
