import { setTimeout as pause } from 'node:timers/promises'
import type { Redis } from 'ioredis'
import { pino } from 'pino'
import { expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../../../src/time/clock.ts'
import { type Ledger, chargeSetOf } from '../../../src/ledger/ledger.ts'
import { limitOf } from '../../../src/ledger/limit.ts'
import { openLedger } from '../../../src/process/open-ledger.ts'
import { storeOf } from '../../support/ledger-load.ts'
import { type Sandbox, startSandbox } from '../../../src/sandbox/sandbox.ts'
import { awakeMs } from '../../support/awake-clock.ts'
import { ACCOUNT, harnessConfig } from '../../support/gateway.ts'
import { type Answer, call } from '../../support/http.ts'
import { startProcess } from '../../support/process.ts'
import { describeTopology, type RedisServer, startStandalone, until } from '../../support/redis-topologies.ts'

const READ = '/harness/ng/api/projects'
/** Longer than by default, because on a busy machine Redis itself may be late. */
const COMMAND_TIMEOUT = '300ms'
/** An answer that takes longer, of the time that the test was awake, has waited for Redis in vain more than once. */
const HUNG_MS = 1_500
const AT_ONCE = { headers: { 'x-sluice-max-wait': '0' } }

type Gateway = Awaited<ReturnType<typeof startProcess>>

async function setUp(requests: number): Promise<{ redis: RedisServer; sandbox: Sandbox }> {
  const redis = await startStandalone()
  onTestFinished(() => redis.stop())
  const sandbox = await startSandbox({ limits: { read: { requests, windowMs: 60_000 } } })
  onTestFinished(() => sandbox.stop())
  return { redis, sandbox }
}

function startGatewayOn(redis: RedisServer, sandbox: Sandbox, requests: number, store: object = {}): Promise<Gateway> {
  return startProcess({
    ...harnessConfig(sandbox.url, { limits: { read: [{ requests, window: '60s' }] }, retry: { retries: 0 } }),
    store: { kind: 'redis', url: `redis://127.0.0.1:${redis.port}`, commandTimeout: COMMAND_TIMEOUT, ...store },
  })
}

/** One call after another, none of which may take long. */
async function callTimes(gateway: Gateway, times: number): Promise<Answer[]> {
  const answers: Answer[] = []
  let slowestMs = 0
  for (let i = 0; i < times; i++) {
    const before = awakeMs()
    answers.push(await call(gateway.url, READ, AT_ONCE))
    slowestMs = Math.max(slowestMs, awakeMs() - before)
  }
  expect(slowestMs).toBeLessThan(HUNG_MS)
  return answers
}

function statusesOf(answers: readonly Answer[]): Set<number> {
  return new Set(answers.map(({ status }) => status))
}

async function ready({ adminUrl }: Gateway): Promise<{ status: number; body: Record<string, string> }> {
  const response = await fetch(`${adminUrl}/readyz`)
  return { status: response.status, body: (await response.json()) as Record<string, string> }
}

async function areBack(gateways: readonly Gateway[]): Promise<boolean> {
  const answers = await Promise.all(gateways.map(ready))
  return answers.every(({ status, body: { degraded } }) => status === 200 && degraded === undefined)
}

async function metric({ adminUrl }: Gateway, name: string): Promise<number> {
  const metrics = await (await fetch(`${adminUrl}/metrics`)).text()
  return Number(new RegExp(`^${name} (\\d+)`, 'm').exec(metrics)?.[1])
}

/** Waits for two ticks, by which leases are had; on a busy machine these may come late. */
async function haveLeases(gateways: readonly Gateway[]): Promise<void> {
  const answers = (): Promise<number[]> =>
    Promise.all(gateways.map((gateway) => metric(gateway, 'sluice_store_duration_seconds_count')))
  const before = await answers()
  await pause(600)
  await until(async () => (await answers()).every((count, i) => count >= before[i]! + 2))
}

function linesOf({ stdout }: Gateway, pattern: RegExp): string[] {
  return stdout.split('\n').filter((line) => pattern.test(line))
}

const OUTAGES = {
  'stands still': { begin: (redis: RedisServer) => redis.freeze(), end: (redis: RedisServer) => redis.thaw() },
  'dies and comes back empty': {
    begin: (redis: RedisServer) => redis.kill(),
    end: (redis: RedisServer) => redis.start(),
  },
}

describeTopology('while Redis is away', () => {
  it.each(Object.entries(OUTAGES))('because it %s, calls get what onOutage says, and at once', async (_, outage) => {
    const requests = 100
    const { redis, sandbox } = await setUp(1_000)
    const [lease, closed, open] = await Promise.all(
      ['lease', 'closed', 'open'].map((onOutage) =>
        startGatewayOn(redis, sandbox, requests, { onOutage, prefix: onOutage }),
      ),
    )
    const gateways = [lease!, closed!, open!]
    for (const gateway of gateways) {
      const [answer] = await callTimes(gateway, 1)
      expect(answer).toMatchObject({ status: 200 })
      expect(answer!.headers['x-sluice-store']).toBeUndefined()
      expect(await ready(gateway)).toEqual({ status: 200, body: { status: 'ready' } })
      expect(await metric(gateway, 'sluice_store_degraded')).toBe(0)
    }
    await haveLeases([lease!])
    await outage.begin(redis)

    const leased = await callTimes(lease!, 40)
    // A quarter of what is free to the only gateway; the rest others could have.
    const served = leased.filter(({ status }) => status === 200)
    expect(served.length).toBeGreaterThanOrEqual(20)
    expect(served.length).toBeLessThanOrEqual(25)
    expect(statusesOf(leased)).toEqual(new Set([200, 429]))
    expect(new Set(leased.map(({ headers }) => headers['x-sluice-store']))).toEqual(new Set(['degraded']))
    expect(leased.at(-1)!.headers).toMatchObject({ 'x-sluice-error': 'quota_exhausted', 'x-ratelimit-remaining': '0' })
    expect(await ready(lease!)).toEqual({
      status: 200,
      body: { status: 'ready', degraded: expect.stringContaining('kept by leases') as string },
    })

    const refused = await callTimes(closed!, 10)
    expect(statusesOf(refused)).toEqual(new Set([503]))
    expect(refused[0]!.headers).toMatchObject({ 'x-sluice-error': 'store_unavailable', 'retry-after': '1' })
    expect(refused[0]!.json()).toMatchObject({ code: 'QUOTA_STORE_UNAVAILABLE' })
    expect(await metric(closed!, 'sluice_store_errors_total')).toBe(10)
    expect(await ready(closed!)).toMatchObject({ status: 503, body: { status: 'not ready' } })

    const passed = await callTimes(open!, 2 * requests)
    expect(statusesOf(passed)).toEqual(new Set([200]))
    expect(passed.at(-1)!.headers['x-sluice-store']).toBe('degraded')
    expect(await ready(open!)).toMatchObject({
      status: 200,
      body: { degraded: expect.stringContaining('pass') as string },
    })

    for (const gateway of gateways) expect(await metric(gateway, 'sluice_store_degraded')).toBe(1)
    // Told once Redis has been late for half a second, which may be after the last call.
    await until(async () => gateways.every((gateway) => linesOf(gateway, /"msg":"Redis does not answer/).length > 0))
    const endedAt = performance.now()
    await outage.end(redis)
    await until(() => areBack(gateways))
    console.log(`quotas are shared again ${Math.round(performance.now() - endedAt)} ms after Redis is back`)
    for (const gateway of gateways) {
      expect(await metric(gateway, 'sluice_store_degraded')).toBe(0)
      expect(linesOf(gateway, /"msg":"Redis does not answer/)).toHaveLength(1)
      expect(linesOf(gateway, /"msg":"Redis answers again/)).toHaveLength(1)
      expect(linesOf(gateway, /"msg":"Redis can not be reached/).length).toBeLessThanOrEqual(1)
    }
    // What was spent on leases is known again; charges that Redis made without being able to answer are lost.
    const rest = await callTimes(lease!, requests)
    const left = rest.filter(({ status }) => status === 200).length
    expect(left).toBeLessThanOrEqual(requests - 1 - served.length)
    expect(left).toBeGreaterThanOrEqual(requests - 4 - served.length)
    expect(rest[0]!.headers['x-sluice-store']).toBeUndefined()
    expect(statusesOf(await callTimes(closed!, 5))).toEqual(new Set([200]))
    // What passed uncounted, too, so that the upstream is left alone for as long as it takes.
    expect(statusesOf(await callTimes(open!, 5))).toEqual(new Set([429]))
  })

  it('a Redis that comes back empty does not hand out a second quota to three gateways', async () => {
    const requests = 300
    const { redis, sandbox } = await setUp(requests)
    const gateways = await Promise.all(Array.from({ length: 3 }, () => startGatewayOn(redis, sandbox, requests)))
    const callAll = (times: number): Promise<Answer[][]> =>
      Promise.all(gateways.map((gateway) => callTimes(gateway, times)))
    await callAll(40)
    await haveLeases(gateways)
    await redis.kill()
    await callAll(20)
    // Ready, though nobody had asked before the outage.
    for (const gateway of gateways) expect((await ready(gateway)).status).toBe(200)
    await redis.start()
    await callAll(20)
    await until(() => areBack(gateways))
    await callAll(requests)
    const { worst, throttled } = sandbox.counts().accounts[ACCOUNT]!.read!
    expect(throttled).toBe(0)
    expect(worst).toBeLessThanOrEqual(requests)
    // And what it does hand out is the better part of the rest; calls that timed out may count twice for a window.
    console.log(`${worst} of ${requests} calls were let through before and after Redis came back empty`)
    expect(worst).toBeGreaterThan(0.8 * requests)
  })

  it('a gateway that starts right after Redis came back empty does not hand out a second quota', async () => {
    const redis = await startStandalone()
    onTestFinished(() => redis.stop())
    const open = () => openLedgerOf(redis)
    const limit = limitOf({ id: 'read.60000', class: 'read', requests: 100, windowMs: 60_000 })
    const reads = chargeSetOf('any/thing', [{ limit }])
    const ledgers = await Promise.all([open(), open()])
    let granted = 0
    for (const ledger of ledgers) granted += (await ledger.charge(reads, 60)).granted
    await redis.kill()
    await until(async () => ledgers.every(({ isDegraded }) => isDegraded))
    await redis.start()
    granted += (await (await open()).charge(reads, 60)).granted
    expect(granted).toBeLessThanOrEqual(100)
  })

  it.each([
    ['it is flushed', (client: Redis) => client.flushall()],
    [
      'it evicts the keys of an account',
      async (client: Redis) => client.del(await client.keys('sluice:3:{any/thing}:*')),
    ],
    ['its scripts are flushed', (client: Redis) => client.script('FLUSH')],
  ])('%s while connections stay, and a gateway that first asks then gets no second quota', async (_, lose) => {
    const redis = await startStandalone()
    onTestFinished(() => redis.stop())
    const open = () => openLedgerOf(redis)
    const limit = limitOf({ id: 'read.60000', class: 'read', requests: 200, windowMs: 60_000 })
    const reads = chargeSetOf('any/thing', [{ limit }])
    const [a, b, idle] = await Promise.all([open(), open(), open()])
    let granted = (await a.charge(reads, 100)).granted + (await b.charge(reads, 100)).granted
    expect(granted).toBeGreaterThan(150)
    await lose(redis.client)
    const until = performance.now() + 2_500
    const latest = open()
    for (let isFirst = true; performance.now() < until; isFirst = false) {
      granted += (await idle.charge(reads, 100)).granted
      if (!isFirst) await pause(20)
    }
    granted += (await (await latest).charge(reads, 100)).granted
    expect(granted).toBeLessThanOrEqual(200)
  })

  it('logs an outage once, not once an account', async () => {
    const { redis, sandbox } = await setUp(1_000)
    const accounts = Object.fromEntries(
      Array.from({ length: 20 }, (_, i) => [
        `a${i}`,
        { id: `acct${i}`, credential: { value: `pat.acct${i}.id.secret` } },
      ]),
    )
    const gateway = await startProcess({
      ...harnessConfig(sandbox.url, { accounts, retry: { retries: 0 } }),
      // So long that only the outage is one, and no slow answer of a busy machine.
      store: { kind: 'redis', url: `redis://127.0.0.1:${redis.port}`, commandTimeout: '5s' },
    })
    const callEach = (): Promise<Answer[]> =>
      Promise.all(
        Object.keys(accounts).map((account) => call(gateway.url, READ, { headers: { 'x-sluice-account': account } })),
      )
    expect(statusesOf(await callEach())).toEqual(new Set([200]))
    await redis.kill()
    await callEach()
    await redis.start()
    await until(() => areBack([gateway]))
    await until(async () => linesOf(gateway, /"msg":"Redis answers again/).length > 0)
    expect(linesOf(gateway, /"msg":"Redis does not answer/)).toHaveLength(1)
    const others = linesOf(gateway, /"level":(40|50|60)/).filter((line) => !line.includes('"msg":"call"'))
    expect(others.length).toBeLessThanOrEqual(3)
    expect(linesOf(gateway, /"msg":"Redis answers again/)[0]).toContain('"accounts":20')
  })

  it('a gateway that starts without Redis is not ready until it is there', async () => {
    const { redis, sandbox } = await setUp(100)
    await redis.kill()
    const gateway = await startGatewayOn(redis, sandbox, 100)
    expect(await ready(gateway)).toMatchObject({ status: 503, body: { status: 'not ready' } })
    expect(statusesOf(await callTimes(gateway, 3))).toEqual(new Set([503]))
    expect(await ready(gateway)).toMatchObject({
      body: { reason: expect.stringMatching(/does not answer \(.+ECONNREFUSED.+\); calls .+ are refused$/) as string },
    })
    // A line with the cause, and no untrue word.
    await until(
      async () => linesOf(gateway, /can not be reached: it does not answer \(connect ECONNREFUSED/).length === 1,
    )
    const warnings = linesOf(gateway, /"level":(40|50|60)/).filter((line) => !line.includes('"msg":"call"'))
    expect(warnings.filter((line) => /stack|leases/.test(line))).toEqual([])
    expect(warnings.length).toBeLessThanOrEqual(3)
    await redis.start()
    await until(async () => (await ready(gateway)).status === 200)
    await until(async () => (await call(gateway.url, READ)).status === 200)
  })

  it('answers the first calls of every process that has just started', async () => {
    const { redis, sandbox } = await setUp(1_000)
    for (let i = 0; i < 4; i++) {
      const gateway = await startGatewayOn(redis, sandbox, 1_000, { prefix: `started-${i}` })
      expect(await ready(gateway)).toEqual({ status: 200, body: { status: 'ready' } })
      const answers = await Promise.all(Array.from({ length: 5 }, () => call(gateway.url, READ, AT_ONCE)))
      expect(statusesOf(answers)).toEqual(new Set([200]))
      expect(linesOf(gateway, /"level":(40|50|60)/)).toEqual([])
      gateway.kill('SIGTERM')
    }
  })

  it.each([
    ['its idle clients', ['--timeout', '1'], () => pause(2_500)],
    [
      'every client just before they come',
      [],
      ({ client }: RedisServer) => client.call('CLIENT', 'KILL', 'SKIPME', 'yes'),
    ],
  ])('a Redis that disconnects %s refuses none of fifty first calls', async (_, args, disconnect) => {
    const redis = await startStandalone(args)
    onTestFinished(() => redis.stop())
    const sandbox = await startSandbox({ limits: { read: { requests: 1_000, windowMs: 60_000 } } })
    onTestFinished(() => sandbox.stop())
    const gateway = await startGatewayOn(redis, sandbox, 1_000, { commandTimeout: '2s' })
    await disconnect(redis)
    const answers = await Promise.all(Array.from({ length: 50 }, () => call(gateway.url, READ)))
    expect(statusesOf(answers)).toEqual(new Set([200]))
    expect((await ready(gateway)).status).toBe(200)
    expect(linesOf(gateway, /"msg":"Redis does not answer/)).toEqual([])
  })
})

/** A ledger of its own at that Redis, as another gateway would open it. */
async function openLedgerOf({ port }: { readonly port: number }): Promise<Ledger> {
  const store = storeOf({ url: `redis://127.0.0.1:${port}`, commandTimeout: COMMAND_TIMEOUT })
  const ledger = await openLedger(store, { clock: systemClock, logger: pino({ level: 'silent' }) })
  onTestFinished(() => ledger.close())
  return ledger
}
