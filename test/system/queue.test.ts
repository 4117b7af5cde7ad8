import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import type { QueueRow } from '../../src/server/admin/status.ts'
import { harnessConfig, startGateway, startUpstream, stores } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { SimulatedClock, stepUntilDone } from '../support/simulated-clock.ts'

const PATH = '/harness/ng/api/projects'
const CLIENTS = Object.fromEntries(['a', 'b', 'slow'].map((name) => [name, { keys: [hashKey(name)] }]))

/** So long that all who are to wait have come before the first turn, on a busy machine too. */
const WINDOW_MS = 10_000

describe.each(Object.entries(stores))('calls that wait, with the store %s', (name, store) => {
  async function start(upstreamConfig: object = {}, rest: object = {}) {
    // Redis counts by its own clock, which can not be stepped.
    const clock = name === 'Redis' ? undefined : new SimulatedClock()
    const upstream = await startUpstream()
    const limits = { read: [{ requests: 2, window: `${WINDOW_MS}ms` }] }
    const config = harnessConfig(
      upstream.url,
      { limits, queue: { maxWait: '60s' }, ...upstreamConfig },
      { clients: { ...CLIENTS, late: { keys: [hashKey('late')], priority: 'batch' } }, store: store(), ...rest },
    )
    const gateway = await startGateway(config, clock && { clock })
    const get = (key: string, headers: Record<string, string> = {}) =>
      call(gateway.url, PATH, { headers: { 'x-sluice-key': key, ...headers } })
    const queue = async (): Promise<QueueRow[]> => {
      const answer = await fetch(`${gateway.adminUrl}/v1/queue`)
      return ((await answer.json()) as { data: QueueRow[] }).data
    }
    const countWaiting = async () => (await queue()).reduce((sum, row) => sum + row.waiting, 0)
    const inTime = <T>(what: Promise<T>) => (clock === undefined ? what : stepUntilDone(clock, what, 50))
    return { upstream, gateway, clock, get, queue, countWaiting, inTime }
  }

  it('are listed by client, with the time of their turn, which is kept and logged', async () => {
    const { gateway, get, queue, countWaiting, inTime } = await start()
    await Promise.all([get('a'), get('a')])
    const waiting = [get('a'), get('a'), get('b')]
    await expect.poll(countWaiting).toBe(3)
    const rows = await queue()
    expect(rows).toMatchObject([
      { upstream: 'harness', account: 'prod', class: 'read', client: 'a', waiting: 2 },
      { upstream: 'harness', account: 'prod', class: 'read', client: 'b', waiting: 1 },
    ])
    for (const { nextInMs, lastInMs } of rows) {
      expect(nextInMs).toBeLessThan(1.5 * WINDOW_MS)
      expect(lastInMs).toBeLessThan(3 * WINDOW_MS)
      expect(lastInMs).toBeGreaterThanOrEqual(nextInMs)
    }
    for (const { status } of await inTime(Promise.all(waiting))) expect(status).toBe(200)
    expect(await queue()).toEqual([])
    // The first two may have waited, too: for a store that answers late on a busy machine.
    const waited = gateway.lines.filter(({ waitMs }) => waitMs !== undefined).slice(2)
    expect(waited).toHaveLength(3)
    for (const { waitMs, expectedMs } of waited) expect(Math.min(waitMs, expectedMs!)).toBeGreaterThan(300)
  })

  it('do not take the turn of one that was refused, and told when to come back', async () => {
    const { gateway, clock, get, queue, countWaiting } = await start(
      { limits: { read: [{ requests: 20, window: '10s' }] } },
      { server: { port: 0, drain: '0s' } },
    )
    let isOver = false
    const waiters = Array.from({ length: 24 }, async (_, i) => {
      while (!isOver) await get(i % 2 === 0 ? 'a' : 'b').catch(() => 'broken off')
    })
    await expect.poll(countWaiting).toBeGreaterThan(3)
    const tellMs = async (): Promise<number> => {
      const refused = await get('slow', { 'x-sluice-max-wait': '0' })
      expect(refused.status).toBe(429)
      // What is kept for it does not count as waiting.
      expect((await queue()).map(({ client }) => client)).not.toContain('slow')
      return Number(refused.headers['retry-after']) * 1_000
    }
    const comeBack = async () => (await get('slow', { 'x-sluice-max-wait': '0' })).status
    const statuses: number[] = []
    if (clock === undefined) {
      const after = async (toldMs: number) => void statuses.push(await pause(toldMs).then(comeBack))
      await Promise.all(Array.from({ length: 3 }, () => tellMs().then(after)))
      // Late by more than a second on a busy machine, one may miss its turn; without turns that are kept, all do.
      expect(statuses.filter((status) => status === 200).length).toBeGreaterThan(0)
    } else {
      const toldMs = await Promise.all(Array.from({ length: 3 }, tellMs))
      for (let passedMs = 0; statuses.length < toldMs.length; passedMs += 250) {
        for (const told of toldMs) if (told === passedMs) statuses.push(await comeBack())
        await clock.advance(250)
        // Whoever had a turn asks again, and waits again, before the next one.
        await expect.poll(countWaiting).toBe(waiters.length)
      }
      expect(statuses).toEqual([200, 200, 200])
    }
    isOver = true
    await gateway.stop()
    await Promise.all(waiters)
  })

  it('go in turn by client, however many of one came first', async () => {
    // The noisy ones need not wait to the end.
    const { get, upstream, queue, gateway, inTime } = await start({}, { server: { port: 0, drain: '0s' } })
    await Promise.all([get('a'), get('a')])
    const noisy = Array.from({ length: 6 }, () => get('a', { 'x-correlation-id': 'noisy' }).catch(() => 'broken off'))
    await expect.poll(async () => (await queue())[0]?.waiting).toBe(6)
    const quiet = get('b', { 'x-correlation-id': 'quiet' })
    expect((await inTime(quiet)).status).toBe(200)
    const before = upstream.seen.filter(({ headers }) => headers['x-correlation-id'] === 'noisy').length
    expect(before).toBeLessThanOrEqual(2)
    await gateway.stop()
    await Promise.all(noisy)
  })

  it('are refused at once where only the calls of others make them late', async () => {
    const { get, queue, inTime } = await start()
    await Promise.all([get('a'), get('a')])
    const waiting = ['a', 'b', 'slow'].map((key) => get(key))
    await expect.poll(async () => (await queue()).length).toBe(3)
    const refused = await get('late', { 'x-sluice-max-wait': `${1.5 * WINDOW_MS}ms` })
    expect(refused.status).toBe(429)
    expect(refused.headers['x-sluice-error']).toBe('share_exceeded')
    expect(Number(refused.headers['retry-after'])).toBeGreaterThanOrEqual((1.5 * WINDOW_MS) / 1_000)
    await inTime(Promise.all(waiting))
  })

  it('are refused where they wish for a priority that there is not', async () => {
    const { get } = await start()
    const refused = await get('a', { 'x-sluice-priority': 'urgent' })
    expect(refused.status).toBe(400)
    expect(refused.body).toContain('X-Sluice-Priority must be one of interactive, normal, batch')
  })

  it.each([
    [{ maxWaitingPerAccount: 1 }, {}, 'calls of harness/prod'],
    [{ maxWaitingPerClient: 1 }, {}, 'calls of a'],
    [{}, { maxWaiting: 1 }, 'calls of this process'],
  ])('are bounded by %j of the queue and %j of the server', async (bounds, server, of) => {
    const { get, queue, inTime } = await start(
      { queue: { maxWait: '60s', ...bounds } },
      { server: { port: 0, ...server } },
    )
    await Promise.all([get('a'), get('a')])
    const waiting = get('a')
    await expect.poll(async () => (await queue()).length).toBe(1)
    const refused = await get('a')
    expect(refused.headers['x-sluice-error']).toBe('queue_full')
    expect(refused.body).toContain(`1 ${of} are waiting already`)
    expect((await inTime(waiting)).status).toBe(200)
  })
})
