import { writeFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { expect, inject, it, onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { hashKey } from '../../src/clients/keys.ts'
import { ADMIN_TOKEN, ask } from '../support/admin.ts'
import { freePort } from '../support/find-redis.ts'
import { newFolder, type Seen, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { oneDay } from '../support/one-day.ts'
import { parseMetrics, valuesOf } from '../support/openmetrics.ts'
import { childrenOf, freeze, Program, startProcess } from '../support/process.ts'
import { worstCount } from '../support/worst-count.ts'

const WINDOW_MS = 1_000
const LIMIT = 40
const AT_ONCE = 3
const KEPT = 12
const GUESSES = 5

/** Answers after a moment, and knows of each path when calls came, and how many were there at once. */
async function countingUpstream() {
  const arrivals = new Map<string, number[]>()
  const open = new Map<string, number>()
  const most = new Map<string, number>()
  const answer = async ({ url }: Seen, response: ServerResponse): Promise<void> => {
    arrivals.getOrInsertComputed(url, () => []).push(performance.now())
    open.set(url, (open.get(url) ?? 0) + 1)
    most.set(url, Math.max(most.get(url) ?? 0, open.get(url)!))
    await pause(url === '/slow' ? 40 : 5)
    open.set(url, open.get(url)! - 1)
    response.end(JSON.stringify({ cost: 1 }))
  }
  const { url } = await startUpstream(answer)
  return { url, arrivals: (path: string) => arrivals.get(path) ?? [], most: (path: string) => most.get(path) ?? 0 }
}

function configOf(url: string, dir: string, requests = LIMIT): object {
  const keyed = (name: string, rest: object = {}) => ({ [name]: { keys: [hashKey(name)], ...rest } })
  const route = (name: string) => ({ path: `/${name}`, class: name })
  return {
    server: { port: 0, workers: 2, wrongKeys: { perAddress: GUESSES, window: '1h' } },
    admin: { port: 0, token: ADMIN_TOKEN },
    store: { dir },
    upstreams: {
      x: {
        url,
        accounts: { a: {} },
        routes: [route('fast'), route('slow'), route('kept'), route('money')],
        limits: {
          fast: [{ requests, window: `${WINDOW_MS}ms` }],
          slow: [{ concurrent: AT_ONCE }],
          kept: [{ requests: KEPT, window: 'day' }],
          money: [],
        },
        price: {
          unit: 'usd',
          response: { values: { cost: { body: '/cost' } }, formula: 'cost' },
          reserve: { formula: '1', most: 1 },
        },
        retry: { retries: 0 },
        queue: { maxWait: '60s' },
      },
    },
    clients: {
      ...keyed('one'),
      ...keyed('two'),
      ...keyed('spender', { budget: [{ amount: 7, unit: 'usd', window: '1h' }] }),
    },
  }
}

const as = (client: string, more: Record<string, string> = {}) => ({ headers: { 'x-sluice-key': client, ...more } })
const NOW = { 'x-sluice-max-wait': '0s' }

function statuses(answers: readonly { readonly status: number }[]): Record<number, number> {
  const counts: Record<number, number> = {}
  for (const { status } of answers) counts[status] = (counts[status] ?? 0) + 1
  return counts
}

type Gateway = Awaited<ReturnType<typeof startProcess>>

function workersOf({ stdout }: Gateway): number[] {
  return [...new Set([...stdout.matchAll(/"pid":(\d+),"msg":"call"/g)].map(([, pid]) => Number(pid)))]
}

async function start(dir = newFolder()) {
  await oneDay()
  const upstream = await countingUpstream()
  const gateway = await startProcess(configOf(upstream.url, dir))
  const many = (path: string, client: string, count: number, more = {}) =>
    Promise.all(Array.from({ length: count }, () => call(gateway.url, path, as(client, more))))
  return { upstream, gateway, many, dir }
}

it('counts every kind of quota once over all workers, with the store of the first process', async () => {
  const { upstream, gateway, many } = await start()
  // Bursts to a rolling window, calls in flight, a window of the calendar and a budget of money, all at once.
  const [fast, slow, kept, money] = await Promise.all([
    Promise.all([many('/x/fast', 'one', 60), many('/x/fast', 'two', 60)]),
    many('/x/slow', 'one', 30),
    many('/x/kept', 'one', 40, NOW),
    many('/x/money', 'spender', 30),
  ])
  expect(statuses(fast.flat())).toEqual({ 200: 120 })
  expect(worstCount(upstream.arrivals('/fast'), WINDOW_MS)).toBeLessThanOrEqual(LIMIT)
  expect(statuses(slow)).toEqual({ 200: 30 })
  expect(upstream.most('/slow')).toBe(AT_ONCE)
  expect(statuses(kept)).toEqual({ 200: KEPT, 429: 40 - KEPT })
  expect(statuses(money)).toEqual({ 200: 7, 429: 23 })
  // On a busy machine one of two may have had no turn so far.
  await expect
    .poll(async () => {
      if (workersOf(gateway).length < 2) await call(gateway.url, '/x/money', as('one'))
      return workersOf(gateway).length
    })
    .toBe(2)
  // One admin port answers for all.
  const admin = async (path: string) => (await ask(gateway, 'GET', path)).json()
  const { data: quota } = await admin('/quota')
  expect(quota).toContainEqual(expect.objectContaining({ class: 'kept', used: KEPT, limit: KEPT }))
  const calls = async () =>
    valuesOf(parseMetrics((await call(gateway.adminUrl, '/metrics')).body), 'sluice_requests_total', 'class')
  await expect.poll(calls).toMatchObject({ fast: 120, slow: 30, kept: 40 })
  // The rows of the day are written by the first process, every two seconds.
  const usage = async () => (await admin('/usage/days')).data
  const row = { client: 'one', account: 'a', class: 'kept', units: KEPT, calls: 40, refusals: 40 - KEPT }
  await expect.poll(usage).toContainEqual(expect.objectContaining(row))
  const { data: found } = await admin('/requests?client=spender')
  expect(found.length).toBeGreaterThan(0)
  // All of them take, and refuse, the key of a client that the admin API makes and archives.
  const made = (await ask(gateway, 'POST', '/clients', { name: 'made' })).json()
  const fourOf = async (key: string) => statuses(await many('/x/money', key, 4))
  await expect.poll(() => fourOf(made.key)).toEqual({ 200: 4 })
  await ask(gateway, 'POST', '/clients/made/archive')
  // Wrong keys are counted once over all workers. This one is one of them, however often it comes.
  await expect.poll(() => fourOf(made.key)).toEqual({ 401: 4 })
  const guesses = []
  for (let i = 0; i < 3 * GUESSES; i++) guesses.push(await call(gateway.url, '/x/money', as(`guess-${i}`)))
  expect(statuses(guesses)[401]).toBeLessThan(GUESSES)
})

it('loses nothing but its own calls with a worker that is killed, and grants none of its quota twice', async () => {
  const { upstream, gateway, many } = await start()
  await expect
    .poll(async () => {
      await many('/x/money', 'one', 4)
      return workersOf(gateway).length
    })
    .toBe(2)
  const [killed] = workersOf(gateway)
  const slow = Array.from({ length: 20 }, () => call(gateway.url, '/x/slow', as('one')).catch(() => undefined))
  const fast = Array.from({ length: 100 }, (_, i) =>
    call(gateway.url, '/x/fast', as(i % 2 === 0 ? 'one' : 'two')).catch(() => undefined),
  )
  await expect.poll(() => upstream.arrivals('/fast').length).toBeGreaterThan(LIMIT)
  process.kill(killed!, 'SIGKILL')
  await gateway.line(/will be replaced/)
  const ended = (await Promise.all([...fast, ...slow])).filter((answer) => answer !== undefined)
  // The other worker goes on with what waits there, and all of the quota is back within a window.
  expect(statuses(ended)).toEqual({ 200: ended.length })
  await expect.poll(async () => (await call(gateway.adminUrl, '/readyz')).json().degraded).toBeUndefined()
  expect(statuses(await many('/x/fast', 'one', LIMIT))).toEqual({ 200: LIMIT })
  expect(worstCount(upstream.arrivals('/fast'), WINDOW_MS)).toBeLessThanOrEqual(LIMIT)
  // Its slots for calls in flight are free again.
  expect(statuses(await many('/x/slow', 'one', AT_ONCE))).toEqual({ 200: AT_ONCE })
  expect(upstream.most('/slow')).toBeLessThanOrEqual(2 * AT_ONCE)
})

it('keeps what was charged when the first process is killed, and reloads and drains with all workers', async () => {
  const { upstream, gateway, many, dir } = await start()
  expect(statuses(await many('/x/kept', 'one', KEPT - 2, NOW))).toEqual({ 200: KEPT - 2 })
  const fast = Array.from({ length: 80 }, () => call(gateway.url, '/x/fast', as('one')).catch(() => undefined))
  await expect.poll(() => upstream.arrivals('/fast').length).toBeGreaterThanOrEqual(LIMIT)
  gateway.kill('SIGKILL')
  // Its output ends with its last worker: those end by themselves.
  await Promise.all([gateway.ended, ...fast])
  const again = await startProcess(configOf(upstream.url, dir))
  onTestFinished(() => again.kill('SIGKILL'))
  const more = (path: string, count: number, headers = {}) =>
    Promise.all(Array.from({ length: count }, () => call(again.url, path, as('two', headers))))
  const kept = statuses(await more('/x/kept', KEPT, NOW))
  expect(kept[200] ?? 0).toBeLessThanOrEqual(2)
  expect(statuses(await more('/x/fast', LIMIT))).toEqual({ 200: LIMIT })
  // A smaller limit holds at all workers as soon as the reload is done.
  again.configure(configOf(upstream.url, dir, LIMIT / 4))
  expect((await ask(again, 'POST', '/reload')).json()).toMatchObject({
    data: { result: 'applied' },
  })
  await pause(WINDOW_MS)
  const from = upstream.arrivals('/fast').length
  expect(statuses(await more('/x/fast', LIMIT / 2))).toEqual({ 200: LIMIT / 2 })
  expect(worstCount(upstream.arrivals('/fast').slice(from), WINDOW_MS)).toBeLessThanOrEqual(LIMIT / 4)
  expect(worstCount(upstream.arrivals('/fast'), WINDOW_MS)).toBeLessThanOrEqual(LIMIT)
  const running = more('/x/slow', AT_ONCE)
  await expect.poll(() => upstream.arrivals('/slow').length).toBe(AT_ONCE)
  again.kill('SIGTERM')
  expect(statuses(await running)).toEqual({ 200: AT_ONCE })
  expect(await again.ended).toEqual({ code: 0, signal: null })
})

it('goes on where a worker is killed that still waits to hear of a wrong key', async () => {
  const upstream = await countingUpstream()
  const config = configOf(upstream.url, newFolder())
  // While no worker lives, nobody listens: another port would be taken than before.
  const gateway = await startProcess({ ...config, server: { port: await freePort(), workers: 2 } })
  const pid = gateway.child.pid!
  const guess = (key: string) => call(gateway.url, '/x/money', as(key)).catch(() => undefined)
  const guesses = (of: string) => Promise.all([1, 2, 3, 4, 5, 6].map((i) => guess(of + i)))
  // Workers then have loaded what they need for more.
  await guesses('early')
  freeze(pid)
  const late = guesses('late')
  // The first process has not read what the workers ask it by then.
  await pause(300)
  for (const worker of childrenOf(pid)) process.kill(worker, 'SIGKILL')
  await late
  process.kill(pid, 'SIGCONT')
  await gateway.line(/will be replaced/)
  await expect.poll(async () => (await call(gateway.adminUrl, '/readyz')).json()).toEqual({ status: 'ready' })
  expect((await call(gateway.url, '/x/money', as('one'))).status).toBe(200)
})

it('goes on where the system can not start another worker, and starts one once it can', async () => {
  const upstream = await countingUpstream()
  const cwd = newFolder()
  writeFileSync(join(cwd, 'sluice.yaml'), stringify(configOf(upstream.url, cwd)))
  const command = ['sh', '-c', 'ulimit -n 64 && exec "$@"', 'sh', process.execPath, inject('program')]
  const gateway = new Program(['start'], { cwd, command })
  const { url, admin } = JSON.parse(await gateway.line(/"msg":"listening"/)) as { url: string; admin: string }
  const sockets = Array.from({ length: 64 }, () =>
    connect(Number(new URL(admin).port), '127.0.0.1').on('error', () => undefined),
  )
  await pause(300)
  process.kill(childrenOf(gateway.child.pid!)[0]!, 'SIGKILL')
  expect(await gateway.line(/"msg":"no new worker"/)).toContain('EMFILE')
  expect((await call(url, '/x/money', as('one'))).status).toBe(200)
  for (const socket of sockets) socket.destroy()
  await expect.poll(() => childrenOf(gateway.child.pid!).length).toBe(2)
  await expect.poll(async () => (await call(admin, '/readyz')).json()).toEqual({ status: 'ready' })
  gateway.kill('SIGTERM')
  expect(await gateway.ended).toEqual({ code: 0, signal: null })
})
