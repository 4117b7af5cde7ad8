import { once } from 'node:events'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { runCommand } from '../support/command-line.ts'
import { freePort } from '../support/find-redis.ts'
import { startGateway, startUpstream, stores, type Seen, type TestGateway } from '../support/gateway.ts'
import { call, type CallOptions } from '../support/http.ts'
import { oneDay } from '../support/one-day.ts'
import { parseMetrics, valuesOf } from '../support/openmetrics.ts'
import { startProcess } from '../support/process.ts'

const HOUR = '1h'
const usd = (amount: number, rest: object = {}) => ({ amount, unit: 'usd', window: HOUR, ...rest })

/** Prices of a million tokens, as vendors publish them. The reservation is what the request allows at most. */
const PRICE = {
  unit: 'usd',
  per: 1_000_000,
  response: {
    values: {
      input: { body: '/usage/input' },
      cached: { body: '/usage/cached', default: 0 },
      output: { body: '/usage/output' },
    },
    formula: 'callPrice + (input - cached) * inputPrice + cached * cachedPrice + output * outputPrice',
  },
  reserve: { values: { most: { body: '/max_tokens' } }, formula: 'bytes * inputPrice + most * outputPrice', most: 5 },
  list: {
    mini: { input: 0.15, cached: 0.075, output: 0.6 },
    'large*': { input: 2.5, cached: 1.25, output: 10 },
    search: { call: 0.005 },
  },
}

const HIERARCHY = {
  organisations: { acme: { budget: [usd(50)] } },
  teams: {
    search: { organisation: 'acme', budget: [usd(20), { requests: 1_000, window: HOUR }] },
    ads: { organisation: 'acme', budget: [usd(40)] },
  },
}

function config(url: string, store: object, rest: object = {}) {
  const client = (name: string, scope: object) => ({ [name]: { keys: [hashKey(name)], ...scope } })
  const limits = { chat: [usd(1_000)] }
  const routes = [
    { path: '/search', class: 'chat', price: 'search' },
    { path: '/*', class: 'chat' },
  ]
  return {
    server: { port: 0 },
    admin: { port: 0 },
    store,
    upstreams: {
      llm: { url, accounts: { main: {} }, limits, routes, price: PRICE, retry: { retries: 0 } },
      free: { url, accounts: { main: {} }, limits: { chat: [] }, routes: [{ path: '/*', class: 'chat' }] },
    },
    clients: {
      ...client('bot', { team: 'search', budget: [usd(10), { requests: 50, window: HOUR }] }),
      ...client('crawler', { team: 'search' }),
      ...client('banner', { team: 'ads' }),
      ...client('single', { budget: [usd(6)] }),
      ...client('other', {}),
    },
    ...HIERARCHY,
    ...rest,
  }
}

const JSON_TYPE = { 'content-type': 'application/json' }

/** Answers with the usage that the request asks for. */
async function answer({ body }: Seen, response: ServerResponse): Promise<void> {
  const {
    usage,
    status = 200,
    ...how
  } = JSON.parse(body || '{}') as {
    usage?: object
    status?: number
    breaks?: true
    hangs?: true
  }
  if (how.hangs === true) return
  if (how.breaks === undefined) return void response.writeHead(status, JSON_TYPE).end(JSON.stringify({ usage }))
  response.writeHead(status, { ...JSON_TYPE, 'content-length': 500 }).write(JSON.stringify({ usage }))
  await sleep(20)
  response.destroy()
}

async function start(store: object, rest: object = {}) {
  const upstream = await startUpstream(answer)
  const settings = config(upstream.url, store, rest)
  const gateway = await startGateway(settings)
  return { upstream, gateway, settings }
}

type Asked = Pick<TestGateway, 'url' | 'adminUrl'>

function ask(gateway: Asked, client: string, body: object | undefined, path = '/llm/chat', options: CallOptions = {}) {
  const headers = { 'x-sluice-key': client, 'x-sluice-max-wait': '0', ...options.headers }
  return call(gateway.url, path, {
    ...options,
    method: 'POST',
    headers,
    body: body && JSON.stringify(body),
  } as CallOptions)
}

interface Row {
  readonly level: string
  readonly name: string
  readonly unit?: string
  readonly limit: number
  readonly used: number
  readonly remaining: number
}

/** What is used, by level and name, as `GET /v1/usage` says. */
async function spent(gateway: Asked, unit: 'usd' | 'calls' = 'usd'): Promise<Record<string, number>> {
  const { budgets } = (await (await fetch(`${gateway.adminUrl}/v1/usage`)).json()) as { budgets: Row[] }
  return Object.fromEntries(budgets.filter((row) => (row.unit ?? 'calls') === unit).map((row) => [row.name, row.used]))
}

const large = (input: number, output: number, most: number, rest: object = {}) => ({
  model: 'large-2026',
  max_tokens: most,
  usage: { input, output },
  ...rest,
})

describe('a limit in money', () => {
  const price = { unit: 'usd', list: { dear: { call: 100 }, cheap: { call: 0.001 }, default: { call: 0.001 } } }
  const pool = ['a', 'b'].map((name) => ({ name, type: 'bearer', value: `token-${name}` }))

  it.each([
    ['one credential', {}],
    ['a pool of credentials', { credentials: pool }],
  ])('refuses a call that costs more than it ever allows, and charges nothing: %s', async (_, main) => {
    const upstream = await startUpstream()
    const limits = { chat: [usd(1)] }
    const routes = [{ path: '/*', class: 'chat' }]
    const api = { url: upstream.url, accounts: { main }, limits, routes, price }
    const gateway = await startGateway({ server: { port: 0 }, admin: { port: 0 }, upstreams: { api } })
    const ask = (model: string) => call(gateway.url, '/api/x', { method: 'POST', body: JSON.stringify({ model }) })
    expect((await ask('cheap')).status).toBe(200)
    const refused = await ask('dear')
    expect(refused).toMatchObject({ status: 400, headers: { 'x-sluice-error': 'invalid_request' } })
    expect(refused.json().message).toBe(
      'the call costs 100 usd, and the chat limit (1h usd) never allows more than 1 usd',
    )
    expect((await ask('cheap')).status).toBe(200)
    expect(upstream.seen).toHaveLength(2)
  })
})

describe.each(Object.entries(stores))('budgets in money, with %s', (_, store) => {
  it('charge a call exactly, by its model and route, to its client, its team and its organisation', async () => {
    const { gateway } = await start(store())
    const ofMini = { model: 'mini', max_tokens: 100, usage: { input: 7, cached: 3, output: 11 } }
    expect((await ask(gateway, 'bot', ofMini)).status).toBe(200)
    const first = (4 * 150 + 3 * 75 + 11 * 600) / 1e9
    await expect.poll(() => spent(gateway)).toEqual({ acme: first, search: first, bot: first, ads: 0, single: 0 })
    expect((await ask(gateway, 'crawler', large(1_000, 100, 200))).status).toBe(200)
    await expect.poll(() => spent(gateway)).toMatchObject({ acme: 0.003507425, search: 0.003507425, bot: first })
    expect((await ask(gateway, 'banner', {}, '/llm/search')).status).toBe(200)
    await expect.poll(() => spent(gateway)).toMatchObject({ acme: 0.008507425, ads: 0.005, search: 0.003507425 })
    // What costs nothing is charged to no amount of money, but is a call.
    expect((await ask(gateway, 'bot', { usage: {} }, '/free/chat')).status).toBe(200)
    await expect.poll(() => spent(gateway)).toMatchObject({ bot: first })
    expect(await spent(gateway, 'calls')).toEqual({ search: 3, bot: 2 })
    const quota = (await (await fetch(`${gateway.adminUrl}/v1/quota`)).json()) as { data: object[] }
    expect(quota.data).toContainEqual(
      expect.objectContaining({ window: '1h usd', unit: 'usd', limit: 1_000, used: 0.008507425 }),
    )
    const metrics = await gateway.metrics()
    expect(metrics).toMatch(/^sluice_team_budget_used\{team="search",window="1h usd"\} 0\.003507425$/m)
    expect(metrics).toMatch(/^sluice_organisation_budget_limit\{organisation="acme",window="1h usd"\} 50$/m)
  })

  it('refuse a call that any of the levels has no room for, charge it to none, and say which that is', async () => {
    const { gateway } = await start(store())
    // The client's own: 4 of 10 are spent, and 7 more would be too much.
    expect((await ask(gateway, 'bot', large(0, 400_000, 400_000))).status).toBe(200)
    await expect.poll(() => spent(gateway)).toMatchObject({ acme: 4, search: 4, bot: 4 })
    const asks = { 'x-sluice-key': 'bot', accept: 'application/problem+json' }
    const own = await ask(gateway, 'bot', large(0, 1, 650_000), undefined, { headers: asks })
    expect(own.status).toBe(200) // it reserves no more than 5
    await expect.poll(() => spent(gateway)).toMatchObject({ bot: 4.00001 })
    expect((await ask(gateway, 'bot', large(0, 400_000, 400_000))).status).toBe(200)
    await expect.poll(() => spent(gateway)).toMatchObject({ acme: 8.00001, search: 8.00001, bot: 8.00001 })
    const refused = await ask(gateway, 'bot', large(0, 1, 400_000), undefined, { headers: asks })
    expect(refused.status).toBe(429)
    expect(refused.headers).toMatchObject({
      'x-sluice-error': 'share_exceeded',
      'x-ratelimit-limit': '10000000',
      'x-ratelimit-remaining': '1999990',
      'ratelimit-policy': '"budget 1h usd";q=10000000;qu="micro-usd";w=3600',
    })
    expect(refused.json()).toMatchObject({ 'violated-policies': ['budget 1h usd'] })
    expect(refused.json().detail).toMatch(
      /^the client bot has used 8\.00001 usd of its budget of 10 usd in 1h; this call may cost 4\.\d* usd; more comes back in 6\d min/,
    )
    // The team's.
    expect((await ask(gateway, 'crawler', large(0, 450_000, 450_000))).status).toBe(200)
    expect((await ask(gateway, 'crawler', large(0, 450_000, 450_000))).status).toBe(200)
    const ofTeam = await ask(gateway, 'bot', large(0, 1, 100_000)).then(() =>
      ask(gateway, 'crawler', large(0, 1, 450_000)),
    )
    expect(ofTeam.json().message).toMatch(
      /^the team search has used 1\d\.\d+ usd of its budget of 20 usd in 1h; this call may cost 4\./,
    )
    // The organisation's: its other team has 40 of its own, but not all of them are left.
    for (let i = 0; i < 6; i++) expect((await ask(gateway, 'banner', large(0, 500_000, 500_000))).status).toBe(200)
    const ofAll = await ask(gateway, 'banner', large(0, 500_000, 500_000))
    expect(ofAll.json().message).toMatch(
      /^the organisation acme has used 4\d\.\d+ usd of its budget of 50 usd in 1h; this/,
    )
    const total = 8.00001 + 9 + 0.00001
    await expect
      .poll(() => spent(gateway))
      .toEqual({ acme: Number((total + 30).toFixed(9)), search: total, bot: 8.00002, ads: 30, single: 0 })
    // A smaller call fits, as each level keeps what the refused ones did not take.
    expect((await ask(gateway, 'banner', large(0, 100, 100))).status).toBe(200)
  })

  it('give back at once what a call did not cost, charge what it cost more, and keep what nobody knows', async () => {
    const { gateway } = await start(store())
    const single = (body: object, options?: CallOptions) => ask(gateway, 'single', body, undefined, options)
    // 5.0 are reserved, and 1 is left meanwhile.
    expect((await single(large(0, 100, 500_000))).status).toBe(200)
    await expect.poll(() => spent(gateway)).toMatchObject({ single: 0.001 })
    expect((await single(large(0, 100, 500_000))).status).toBe(200)
    await expect.poll(() => spent(gateway)).toMatchObject({ single: 0.002 })
    // Answers that are free.
    for (const status of [400, 404, 503]) expect((await single(large(0, 0, 400_000, { status }))).status).toBe(status)
    await expect.poll(() => spent(gateway)).toMatchObject({ single: 0.002 })
    // More than was reserved.
    expect((await single(large(0, 200_000, 1))).status).toBe(200)
    await expect.poll(() => spent(gateway)).toMatchObject({ single: 2.002 })
    // An answer that does not tell, and one that breaks off.
    await single({ model: 'large-2026', max_tokens: 50_000 })
    await expect.poll(() => spent(gateway).then(({ single }) => single)).toBeCloseTo(2.5, 1)
    await single(large(0, 1, 50_000, { breaks: true })).catch(() => undefined)
    await expect.poll(() => spent(gateway).then(({ single }) => single)).toBeCloseTo(3, 1)
    // A model that is not known costs what is reserved at most.
    const unknown = await single({ model: 'huge' })
    expect(unknown.headers['x-sluice-error']).toBe('share_exceeded')
  })

  it('charge neither money nor a call where nothing was sent, and once where it was sent at last', async () => {
    const port = await freePort()
    const settings = config(`http://127.0.0.1:${port}`, store())
    const often = { retries: 20, baseDelay: '200ms', maxDelay: '200ms', jitter: 'equal', budget: '100%' }
    const llm = { ...settings.upstreams.llm, breaker: { failures: 1_000 } }
    const patient = { ...llm, retry: often }
    const gateway = await startGateway({ ...settings, upstreams: { ...settings.upstreams, llm, patient } })
    for (let i = 0; i < 3; i++) {
      const unsent = await ask(gateway, 'bot', large(0, 100, 400_000))
      expect(unsent.headers['x-sluice-error']).toBe('unreachable')
    }
    // Nor a WebSocket.
    const headers = {
      'x-sluice-key': 'bot',
      upgrade: 'websocket',
      connection: 'upgrade',
      'sec-websocket-version': '13',
    }
    const handshake = request(`${gateway.url}/llm/chat`, {
      headers: { ...headers, 'sec-websocket-key': 'a'.repeat(24) },
    })
    const [refused] = (await once(handshake.end(), 'response')) as [IncomingMessage]
    expect(refused.resume().headers['x-sluice-error']).toBe('unreachable')
    await expect.poll(() => spent(gateway)).toMatchObject({ acme: 0, search: 0, bot: 0 })
    await expect.poll(() => spent(gateway, 'calls')).toEqual({ search: 0, bot: 0 })
    const money = async () => valuesOf(parseMetrics(await gateway.metrics()), 'sluice_money_spent_total', 'client')
    expect((await money())['bot'] ?? 0).toBe(0)
    const calling = ask(gateway, 'bot', large(0, 100, 400_000), '/patient/chat')
    await expect.poll(() => gateway.metrics()).toMatch(/^sluice_attempts_total{.*reason="unreachable"} /m)
    const upstream = createServer((request, response) => {
      request.resume().on('end', () => response.end(JSON.stringify({ usage: { input: 0, output: 100 } })))
    })
    await once(upstream.listen(port, '127.0.0.1'), 'listening')
    onTestFinished(() => void upstream.close())
    const sent = await calling
    expect(sent.status).toBe(200)
    expect(Number(sent.headers['x-sluice-attempts'])).toBeGreaterThan(1)
    await expect.poll(() => spent(gateway)).toMatchObject({ acme: 0.001, search: 0.001, bot: 0.001 })
    expect(await spent(gateway, 'calls')).toEqual({ search: 1, bot: 1 })
    expect((await money())['bot']).toBe(0.001)
  })

  it('charge nothing but the call where a free answer is followed by an attempt that is not sent', async () => {
    const failing = createServer((request, response) => {
      // Whoever tries again finds nobody.
      failing.close()
      request.resume().on('end', () => response.writeHead(503, { connection: 'close' }).end())
    })
    await once(failing.listen(0, '127.0.0.1'), 'listening')
    const settings = config(`http://127.0.0.1:${(failing.address() as AddressInfo).port}`, store())
    const llm = { ...settings.upstreams.llm, retry: { retries: 1, baseDelay: '1ms', idempotencyKey: 'honoured' } }
    const gateway = await startGateway({ ...settings, upstreams: { ...settings.upstreams, llm } })
    const unsent = await ask(gateway, 'bot', large(0, 100, 400_000), undefined, { headers: { 'idempotency-key': 'a' } })
    expect(unsent.headers['x-sluice-error']).toBe('unreachable')
    await expect.poll(() => spent(gateway, 'calls')).toEqual({ search: 1, bot: 1 })
    await expect.poll(() => spent(gateway)).toMatchObject({ acme: 0, search: 0, bot: 0 })
  })
})

describe.each(Object.entries(stores))('the export of money by the day, with %s', (_, store) => {
  it('sums to what the budgets of clients, teams and organisations were charged', async () => {
    await oneDay()
    const { gateway } = await start(store())
    const ofMini = { model: 'mini', max_tokens: 100, usage: { input: 7, cached: 3, output: 11 } }
    await ask(gateway, 'bot', ofMini)
    await ask(gateway, 'bot', {}, '/llm/search')
    await ask(gateway, 'bot', { usage: {} }, '/free/chat')
    await ask(gateway, 'crawler', large(1_000, 100, 200))
    await ask(gateway, 'banner', large(0, 10, 20, { status: 503 }))
    // Nobody knows what these cost, so the reservations stand.
    await ask(gateway, 'banner', { model: 'mini', max_tokens: 50 })
    await ask(gateway, 'banner', large(0, 1, 500, { breaks: true })).catch(() => undefined)
    // More than was reserved, and a call that a budget refuses.
    await ask(gateway, 'single', large(0, 200_000, 1))
    expect((await ask(gateway, 'single', large(0, 1, 499_999))).status).toBe(429)
    // This client has no budget.
    await ask(gateway, 'other', { model: 'mini', max_tokens: 5, usage: { input: 1, cached: 0, output: 0 } })
    type Day = Readonly<Record<'client' | 'upstream' | 'class' | 'unit' | 'team' | 'organisation', string | null>> & {
      spent: number
    }
    const days = async (query = ''): Promise<Day[]> =>
      ((await call(gateway.adminUrl, `/v1/usage/days?since=1d${query}`)).json() as { data: Day[] }).data
    const sumsBy = (rows: readonly Day[], ...names: ('client' | 'team' | 'organisation')[]) => {
      const sums: Record<string, number> = {}
      for (const row of rows)
        for (const name of names)
          if (row[name] !== null) sums[row[name]] = Number(((sums[row[name]] ?? 0) + row.spent).toFixed(9))
      return sums
    }
    await expect.poll(async () => sumsBy(await days(), 'client')).toMatchObject({ single: 2, other: 0.00000015 })
    const rows = await days()
    const charged = await spent(gateway)
    expect(charged['ads']).toBeGreaterThan(0.005)
    expect(sumsBy(rows, 'client', 'team', 'organisation')).toMatchObject(charged)
    expect(rows.find(({ client, upstream }) => client === 'bot' && upstream === 'llm')).toMatchObject({
      class: 'chat',
      spent: Number((0.005 + (4 * 150 + 3 * 75 + 11 * 600) / 1e9).toFixed(9)),
      unit: 'usd',
      team: 'search',
      organisation: 'acme',
    })
    expect(rows.find(({ upstream }) => upstream === 'free')).toMatchObject({ spent: 0, unit: null })
    expect(sumsBy(await days('&team=search'), 'client')).toEqual(
      sumsBy(
        rows.filter(({ team }) => team === 'search'),
        'client',
      ),
    )
    expect(new Set((await days('&organisation=acme')).map(({ client }) => client))).toEqual(
      new Set(['bot', 'crawler', 'banner']),
    )
    const metrics = valuesOf(parseMetrics(await gateway.metrics()), 'sluice_money_spent_total', 'client')
    for (const [client, sum] of Object.entries(sumsBy(rows, 'client')))
      expect(metrics[client] ?? 0, client).toBeCloseTo(sum, 9)
    const { stdout } = await runCommand(['usage', '--url', gateway.adminUrl, '--client', 'other', '--format', 'csv'])
    expect(stdout).toMatch(/^[^,]+,other,llm,main,chat,[^\n]*,0\.000000150,usd,,$/m)
    // Who asks for a client's use sees all the budgets that it is charged to.
    const { budgets } = (await call(gateway.adminUrl, '/v1/usage?client=bot')).json() as { budgets: Row[] }
    expect(new Set(budgets.map(({ level, name }) => `${level} ${name}`))).toEqual(
      new Set(['client bot', 'team search', 'organisation acme']),
    )
  })
})

describe('a call that costs money and whose client leaves', () => {
  /** Leaves a call after its head; returns the upstream's side of it. */
  const leave = async (path: string, price: object) => {
    const seen = Promise.withResolvers<ServerResponse>()
    const upstream = await startUpstream((_, response) => {
      response.writeHead(200, JSON_TYPE).write('{"text":')
      seen.resolve(response)
    })
    const settings = config(upstream.url, stores['the embedded store']())
    settings.upstreams.llm.price = { ...PRICE, ...price }
    const gateway = await startGateway(settings)
    const init = { method: 'POST', headers: { 'x-sluice-key': 'single' }, agent: false } as const
    const leaving = request(`${gateway.url}${path}`, init).on('error', () => undefined)
    const headed = once(leaving, 'response')
    leaving.end(JSON.stringify({ model: 'large-2026', max_tokens: 100_000 }))
    await headed
    leaving.destroy()
    await expect.poll(() => gateway.metrics()).toMatch(/^sluice_client_connections 0$/m)
    return { gateway, response: await seen.promise }
  }

  it('is read on, so that it costs what it did cost and not what was reserved', async () => {
    const { gateway, response } = await leave('/llm/chat', { finish: '1h' })
    expect((await spent(gateway))['single']).toBeGreaterThan(1)
    response.end('"", "usage": { "input": 1000, "output": 100 } }')
    await expect.poll(() => spent(gateway)).toMatchObject({ single: 0.0035 })
  })

  it.each([
    ['where `finish` says so', '/llm/chat', { finish: '0s' }, 1],
    ['where the answer does not tell the price', '/llm/search', {}, 0.005],
  ])('is broken off at once %s', async (_, path, price, least) => {
    const { gateway, response } = await leave(path, price)
    if (!response.destroyed) await once(response, 'close')
    expect((await spent(gateway))['single']).toBeGreaterThanOrEqual(least)
  })
})

describe('two gateways that share a Redis', () => {
  it('keep the budgets of all levels when one is killed: what its calls cost at most counts on, for a month', async () => {
    const upstream = await startUpstream(answer)
    const monthly = { amount: 12, unit: 'usd', window: 'month', timezone: 'Asia/Tokyo', anchor: 31 }
    const store = stores.Redis()
    const settings = config(upstream.url, store, { organisations: { acme: { budget: [monthly] } } })
    const [a, b] = await Promise.all([startProcess(settings), startProcess(settings)])
    expect((await ask(a, 'bot', large(0, 400_000, 400_000))).status).toBe(200)
    await expect.poll(() => spent(b)).toMatchObject({ acme: 4, search: 4, bot: 4 })
    const broken = ask(a, 'crawler', large(0, 0, 450_000, { hangs: true })).catch(() => 'broken')
    await expect.poll(() => spent(b).then(({ acme = 0 }) => acme)).toBeGreaterThan(8.5)
    const reserved = await spent(b)
    expect(reserved).toMatchObject({ bot: 4, search: reserved['acme'] })
    a.kill('SIGKILL')
    expect(await broken).toBe('broken')
    // The organisation has less than 3.5 left, whichever of its teams wants them.
    const refused = await ask(b, 'banner', large(0, 1, 400_000))
    expect(refused.status).toBe(429)
    expect(refused.json().message).toMatch(
      /^the organisation acme has used 8\.\d+ usd of its budget of 12 usd in this month; /,
    )
    // A part of what is left is leased to the gateway that is gone.
    expect((await ask(b, 'banner', large(0, 100_000, 100_000))).status).toBe(200)
    await expect.poll(() => spent(b)).toEqual({ ...reserved, acme: Number((reserved['acme']! + 1).toFixed(9)), ads: 1 })
    // That part is free once the lease has ended. Then nearly all that is left can be reserved.
    await expect.poll(() => ask(b, 'banner', large(0, 1, 220_000)).then(({ status }) => status)).toBe(200)
    await expect.poll(() => spent(b)).toMatchObject({ bot: 4, search: reserved['acme'], ads: 1.00001 })
  })
})

describe('a client of the admin API', () => {
  it('can be of a team that is there, and is refused once that is there no more', async () => {
    const { gateway, settings } = await start(stores['the embedded store']())
    const create = (scope: object) =>
      call(gateway.adminUrl, '/v1/clients', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(scope),
      })
    const wrong = await create({ name: 'new', team: 'serch' })
    expect(wrong.status).toBe(400)
    expect(wrong.body).toContain('there is no such team; did you mean \\"search\\"?')
    const { id } = (await create({ name: 'new', team: 'search' })).json() as { id: string }
    const made = await call(gateway.adminUrl, `/v1/clients/${id}/keys`, { method: 'POST' })
    const { key } = made.json() as { key: string }
    expect((await ask(gateway, key, large(0, 100, 100))).status).toBe(200)
    await expect.poll(() => spent(gateway)).toMatchObject({ acme: 0.001, search: 0.001 })
    const { search: _, ...teams } = HIERARCHY.teams
    const clients = Object.fromEntries(Object.entries(settings.clients).filter(([, scope]) => !('team' in scope)))
    await gateway.reloadWith({ ...settings, teams, clients })
    const refused = await ask(gateway, key, large(0, 100, 100))
    expect(refused.headers['x-sluice-error']).toBe('forbidden')
    expect(refused.json().message).toContain('the team of the client is in the configuration no more')
  })
})
