import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, inject, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import type { DayRow } from '../../src/usage/day-row.ts'
import { usageNow } from '../../src/server/admin/usage-view.ts'
import { runCommand } from '../support/command-line.ts'
import { harnessConfig, newFolder, startGateway, startServer, startUpstream, stores } from '../support/gateway.ts'
import { call, open } from '../support/http.ts'
import { oneDay } from '../support/one-day.ts'
import { parseMetrics, valuesOf } from '../support/openmetrics.ts'
import { startProcess } from '../support/process.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { countTurns } from '../support/turns.ts'

type Row = Omit<DayRow, 'waitMs' | 'unit' | 'team' | 'organisation'> & { readonly waitSeconds: number }
type Admin = { readonly adminUrl: string }

const READ = '/harness/ng/api/projects'
const clients = { bot: { keys: [hashKey('slk_bot')], weight: 3 }, tool: { keys: [hashKey('slk_tool')] } }
const as = (client: string, more = {}) => ({ headers: { 'x-sluice-key': `slk_${client}`, ...more } })

async function daysOf({ adminUrl }: Admin, query = '?since=1d'): Promise<Row[]> {
  const answer = await call(adminUrl, `/v1/usage/days${query}`)
  expect(answer.status, answer.body).toBe(200)
  return (answer.json() as { data: Row[] }).data
}

const sumOf = (rows: readonly Row[], field: 'units' | 'calls' | 'refusals' | 'waits' | 'savedUnits'): number =>
  rows.reduce((sum, row) => sum + row[field], 0)

describe.each(Object.keys(stores) as (keyof typeof stores)[])('usage, with %s', (kind) => {
  it('that is exported after crashes is what the upstream counted, but for what was not written and what was in flight', async () => {
    const upstream = await startUpstream()
    const config = {
      ...harnessConfig(upstream.url, { limits: { read: [{ requests: 1e6, window: '1h' }] } }),
      store: stores[kind](),
    }
    const random = seededRandom(7)
    const senders = 4
    let rounds = 0
    /** What an export has shown is never lost. */
    let shown = 0
    for (; rounds < 2; rounds++) {
      const gateway = await startProcess(config)
      let isOver = false
      const until = upstream.seen.length + 50 + Math.floor(random() * 100)
      const sending = Array.from({ length: senders }, async () => {
        while (!isOver) {
          await call(gateway.url, READ).catch(() => undefined)
          // Once it has shown enough, too: a machine that is busy may export slowly.
          if (upstream.seen.length < until || shown <= 50) continue
          isOver = true
          gateway.kill('SIGKILL')
        }
      })
      // Each export writes what was counted before, so that the gateway is killed in the middle of a write, or near one.
      const asking = (async () => {
        while (!isOver) {
          const units = await daysOf(gateway).then(
            (rows) => sumOf(rows, 'units'),
            () => 0,
          )
          shown = Math.max(shown, units)
        }
      })()
      await Promise.all([...sending, asking, gateway.ended])
    }
    const gateway = await startGateway(config)
    const rows = await daysOf(gateway)
    const units = sumOf(rows, 'units')
    expect(shown).toBeGreaterThan(50)
    expect(units).toBeGreaterThanOrEqual(shown)
    // A call is counted when it is sent: those that were on their way when the gateway was killed may not have arrived.
    expect(units).toBeLessThanOrEqual(upstream.seen.length + rounds * senders)
    await call(gateway.url, READ)
    expect(sumOf(await daysOf(gateway), 'units')).toBe(units + 1)
  })

  it('sums to the metrics, by client, account, class and day', async () => {
    await oneDay()
    const upstream = await startUpstream((_, response) => response.setHeader('cache-control', 'max-age=60').end('x'))
    const routes = [
      { method: ['GET'], path: '/items*', class: 'read', cache: true },
      { path: '/*', class: 'write' },
    ]
    const limits = { read: [{ requests: 10, window: '1m' }], write: [{ requests: 1, window: '500ms' }] }
    const api = { url: upstream.url, accounts: { main: {} }, routes, limits }
    const gateway = await startGateway({
      ...harnessConfig(upstream.url),
      upstreams: { api },
      clients,
      store: stores[kind](),
    })
    for (const client of ['bot', 'bot', 'bot', 'tool']) await call(gateway.url, '/api/items', as(client))
    await Promise.all([1, 2].map(() => call(gateway.url, '/api/x', { ...as('tool'), method: 'POST' })))
    expect(
      (await call(gateway.url, '/api/x', { ...as('tool', { 'x-sluice-max-wait': '0' }), method: 'POST' })).status,
    ).toBe(429)
    expect((await call(gateway.url, '/api/items', as('nobody'))).status).toBe(401)
    const rows = await daysOf(gateway)
    const [day] = new Set(rows.map((row) => row.day))
    expect(day).toMatch(/^\d{4}-\d\d-\d\d$/)
    const of = (client: string, name: string) => rows.find((row) => row.client === client && row.class === name)
    const place = { upstream: 'api', account: 'main' }
    const none = { refusals: 0, waits: 0, waitSeconds: 0, savedUnits: 0 }
    const noMoney = { spent: 0, unit: null, team: null, organisation: null }
    expect(of('bot', 'read')).toEqual({
      day,
      client: 'bot',
      ...place,
      class: 'read',
      ...none,
      ...noMoney,
      units: 1,
      calls: 3,
      savedUnits: 2,
    })
    expect(of('tool', 'read')).toMatchObject({ ...none, units: 1, calls: 1 })
    expect(of('tool', 'write')).toMatchObject({ units: 2, calls: 3, refusals: 1, waits: 1 })
    expect(of('tool', 'write')!.waitSeconds).toBeGreaterThan(0.1)
    expect(rows.find(({ client }) => client === 'unknown')).toMatchObject({
      account: 'unknown',
      calls: 1,
      refusals: 1,
      units: 0,
    })
    const samples = parseMetrics(await gateway.metrics())
    const byClient = (name: string) => valuesOf(samples, name, 'client', 'account', 'class')
    for (const [field, metric] of [
      ['units', 'sluice_quota_charged_total'],
      ['calls', 'sluice_requests_total'],
      ['waits', 'sluice_client_waits_total'],
      ['savedUnits', 'sluice_quota_saved_total'],
    ] as const) {
      const used = rows.filter((row) => row[field] > 0)
      const sums = used.map((row) => [`${row.client} ${row.account} ${row.class}`, row[field]])
      expect(Object.fromEntries(sums), field).toEqual(byClient(metric))
    }
    expect(of('tool', 'write')!.waitSeconds).toBeCloseTo(
      byClient('sluice_client_wait_seconds_total')['tool main write']!,
      2,
    )
    for (const [query, most] of [
      ['?client=bot', 1],
      ['?account=api/main&class=write', 1],
      ['?upstream=other', 0],
    ] as const) {
      expect(await daysOf(gateway, query)).toHaveLength(most)
    }
  })
})

describe('who uses a limit', () => {
  it('is told of all instances together, with what each client is due and what is left of budgets', async () => {
    const upstream = await startUpstream()
    const store = stores.Redis()
    const limits = { read: [{ requests: 100, window: '1h' }] }
    const budget = [{ requests: 50, window: '1h' }]
    const config = {
      ...harnessConfig(upstream.url, { limits }, { clients: { ...clients, bot: { ...clients.bot, budget } } }),
      store,
    }
    const [one, two] = [
      await startGateway({ ...config, log: { instance: 'one' } }),
      await startGateway({ ...config, log: { instance: 'two' } }),
    ]
    for (const [gateway, client] of [
      [one, 'bot'],
      [two, 'bot'],
      [two, 'tool'],
    ] as const)
      expect((await call(gateway.url, READ, as(client))).status).toBe(200)
    const usage = async (query = '') => (await call(one.adminUrl, `/v1/usage${query}`)).json()
    const answer = await usage()
    expect(answer.away).toEqual([])
    expect(Date.parse(answer.since)).toBeLessThanOrEqual(Date.now())
    expect(answer.data[0]).toMatchObject({
      upstream: 'harness',
      account: 'prod',
      class: 'read',
      window: '1h',
      limit: 100,
      used: 3,
      clients: [
        { client: 'bot', used: 2, hour: 2, day: 2, due: 0.75, dueUnits: 75 },
        { client: 'tool', used: 1, hour: 1, day: 1, due: 0.25, dueUnits: 25 },
      ],
    })
    expect(answer.budgets).toEqual([
      {
        level: 'client',
        name: 'bot',
        client: 'bot',
        window: '1h',
        limit: 50,
        used: 2,
        remaining: 48,
        resetMs: expect.any(Number),
        exhaustionInMs: null,
        burnRatio: expect.any(Number),
      },
    ])
    expect((await usage('?client=tool')).data).toMatchObject([{ class: 'read', clients: [{ client: 'tool' }] }])
    expect((await usage('?search=BOT')).budgets).toHaveLength(1)
    expect((await usage('?search=nothing')).budgets).toEqual([])
    const metrics = await one.metrics()
    expect(metrics).toMatch(/sluice_client_budget_used\{client="bot",window="1h"\} 2\n/)
    expect(metrics).toMatch(
      /sluice_client_due_ratio\{upstream="harness",account="prod",class="read",client="bot"\} 1\n/,
    )

    const { stdout } = await runCommand(['quota', '--by', 'client', '--url', one.adminUrl])
    expect(stdout).toMatch(/^ACCOUNT +CLASS +WINDOW +CLIENT +USED +OF +DUE +HOUR +DAY$/m)
    expect(stdout).toMatch(/^harness\/prod +read +1h +bot +2 +100 +75 +2 +2$/m)
    expect(stdout).toMatch(/^bot +1h +50 +2 +48 /m)

    await two.stop()
    const after = await usage()
    expect(after.data[0].clients).toMatchObject([{ client: 'bot', used: 1 }])
    expect(after.away).toMatchObject([{ instance: 'two' }])
  })

  it('is told since all instances count, also since one started that nobody has called', async () => {
    const upstream = await startUpstream()
    const config = { ...harnessConfig(upstream.url, {}, { clients }), store: stores.Redis() }
    const gateway = await startGateway(config)
    await call(gateway.url, READ, as('bot'))
    const started = Date.now()
    await startGateway(config)
    const answer = async () => (await call(gateway.adminUrl, '/v1/usage')).json()
    // An instance is asked once it has said that it is there.
    await expect.poll(async () => Date.parse((await answer()).since)).toBeGreaterThanOrEqual(started)
    expect((await answer()).data[0].clients).toMatchObject([{ client: 'bot', used: 1 }])
  })

  it('is told since all count, where instances of an older release say it in their rows', async () => {
    const use = {
      upstream: 'api',
      account: 'main',
      class: 'read',
      window: '1h',
      client: 'bot',
      weight: 1,
      share: 0,
      used: 1,
      hour: 1,
      day: 1,
    }
    const parts = (found: readonly object[], since?: number) =>
      ({
        status: { quota: async () => [], budgets: async () => [] },
        requests: { ask: async () => ({ found, away: [], since }) },
      }) as unknown as Parameters<typeof usageNow>[0]
    const sinceOf = async (...asked: Parameters<typeof parts>) => (await usageNow(parts(...asked))).since
    expect(
      await sinceOf([
        { ...use, since: 5 },
        { ...use, client: 'tool', since: 7 },
      ]),
    ).toBe(7)
    expect(await sinceOf([{ ...use, since: 5 }], 9)).toBe(9)
    expect(await sinceOf([{ ...use, since: 11 }], 9)).toBe(11)
    expect(await sinceOf([])).toBeUndefined()
  })

  it('is shown on the page', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url, {}, { clients }))
    await call(gateway.url, READ, as('bot'))
    const { body } = await call(gateway.adminUrl, '/')
    const section = /<h2 id="spends">Who spends<\/h2>[^]*?<\/section>/.exec(body)?.[0] ?? ''
    expect(section.replaceAll(/<[^>]*>|\s+/g, ' ')).toMatch(/harness\/prod\s+read\s+1m\s+bot\s+1 of 1000/)
  })

  it('is due to each client among all, on the page and in metrics as in the API', async () => {
    const names = Array.from({ length: 250 }, (_, i) => `client-${i}`)
    const many = Object.fromEntries(names.map((name) => [name, { keys: [hashKey(`slk_${name}`)] }]))
    const limits = { read: [{ requests: 1_000, window: '1h' }] }
    const gateway = await startGateway(harnessConfig((await startUpstream()).url, { limits }, { clients: many }))
    for (const name of names) await call(gateway.url, READ, as(name))
    const { data } = (await call(gateway.adminUrl, '/v1/usage')).json()
    expect(data[0].clients[0]).toMatchObject({ due: 0.004, dueUnits: 4 })
    const { body } = await call(gateway.adminUrl, '/')
    expect(body.replaceAll(/<[^>]*>|\s+/g, ' ')).toMatch(/harness\/prod +read +1h +client-\d+ +1 of 1000 +4 +1 +1 /)
    expect(await gateway.metrics()).toMatch(/^sluice_client_due_ratio\{[^}]*client="client-1"\} 0\.004/m)
  })

  it.each([
    ['/usage?user=a', 'unknown query parameter "user"'],
    ['/usage?client=', 'client must not be empty'],
    ['/usage/days?since=yesterday', 'since must be a time'],
    ['/usage/days?limit=3', 'unknown query parameter "limit"'],
    ['/usage/days?since=1d&until=2d', 'the day of until must not be before the day of since'],
    ['/usage/days?since=100d&until=99d', 'usage is kept for 90 days'],
  ])('refuses %s with a clear word', async (path, word) => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1'))
    const answer = await call(gateway.adminUrl, `/v1${path}`)
    expect(answer.status).toBe(400)
    expect((answer.json() as { detail: string }).detail).toContain(word)
  })
})

describe('the export', () => {
  it('has no cell that a spreadsheet would compute, and leaves numbers alone', async () => {
    const row = { day: '=1+1', client: '+1', upstream: '-1', account: '@a', class: '\t=1', unit: "'a", team: '1,"2"' }
    const data = [{ ...row, units: -1, spent: 1e-7 }]
    const url = await startServer((_, response) => response.end(JSON.stringify({ data })))
    const { stdout } = await runCommand(['usage', '--url', url, '--format', 'csv'])
    expect(stdout.split('\n')[1]).toBe(`'=1+1,'+1,'-1,'@a,'\uFFFD=1,-1,,,,,,0.000000100,'a,"1,""2""",`)
  })

  it('is a table, CSV or JSON', async () => {
    await oneDay()
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url, {}, { clients }))
    await call(gateway.url, READ, as('bot'))
    await call(gateway.url, READ, { ...as('tool'), method: 'POST' })
    const usage = async (...args: string[]) => {
      const { code, stdout, stderr } = await runCommand(['usage', '--url', gateway.adminUrl, ...args])
      expect([code, stderr]).toEqual([0, ''])
      return stdout
    }
    const [{ day } = { day: '' }] = await daysOf(gateway)
    expect(await usage('--since', '1d', '--format', 'csv')).toBe(
      'day,client,upstream,account,class,units,calls,refusals,waits,wait_seconds,saved_units,spent,unit,team,organisation\n' +
        `${day},bot,harness,prod,read,1,1,0,0,0,0,0,,,\n` +
        `${day},tool,harness,prod,write,1,1,0,0,0,0,0,,,\n`,
    )
    expect(await usage()).toMatch(/^DAY +CLIENT +UPSTREAM +ACCOUNT +CLASS +UNITS .*\n\S+ +bot +harness +prod +read +1 /)
    expect(JSON.parse(await usage('--client', 'tool', '--format', 'json'))).toMatchObject([
      { client: 'tool', units: 1 },
    ])
    const wrong = await runCommand(['usage', '--url', gateway.adminUrl, '--format', 'xml'])
    expect([wrong.code, wrong.stderr]).toEqual([1, expect.stringContaining('Allowed choices are table, csv, json')])
  })
})

describe('an export of many days', () => {
  const dayAgo = (days: number): string => new Date(Date.now() - days * 86_400_000).toISOString().slice(0, 10)
  const rowsText = (most: number): string => {
    const rows = Array.from({ length: most }, (_, i) => [
      [`client ${i}`, 'api', 'main', 'read'],
      [i, 1, 0, 0, 0, 0, 0],
    ])
    return JSON.stringify({ version: 1, rows })
  }
  /** A store with a file for some days; null stands for one that can't be read. */
  const storeOf = (files: Readonly<Record<string, string | null>>): { dir: string } => {
    const dir = newFolder()
    for (const [day, text] of Object.entries(files)) {
      const path = join(dir, 'usage', `${day}.json`)
      mkdirSync(text === null ? path : dirname(path), { recursive: true })
      if (text !== null) writeFileSync(path, text)
    }
    return { dir }
  }

  it('comes in pieces of many rows, and lets calls go on between them', async () => {
    const store = storeOf({ [dayAgo(2)]: rowsText(3_000), [dayAgo(1)]: rowsText(3_000) })
    const gateway = await startGateway({ ...harnessConfig('http://127.0.0.1:1'), store })
    let pieces = 0
    using turns = countTurns()
    const response = await open(gateway.adminUrl, '/v1/usage/days?since=2d')
    let text = ''
    for await (const piece of response.setEncoding('utf8')) {
      text += piece as string
      pieces++
    }
    expect(turns.count).toBeGreaterThan(100)
    expect(pieces).toBeLessThan(1_000)
    const { data } = JSON.parse(text) as { data: Row[] }
    expect(data).toHaveLength(6_000)
    expect(sumOf(data, 'units')).toBe(3_000 * 2_999)
  })

  it('answers 503 while a day can’t be read, if nothing was sent before', async () => {
    const store = storeOf({ [dayAgo(3)]: '{', [dayAgo(2)]: rowsText(10), [dayAgo(1)]: null })
    const gateway = await startGateway({ ...harnessConfig('http://127.0.0.1:1'), store })
    for (const [query, why] of [
      ['?since=1d', /^usage can’t be read now: EISDIR/],
      ['?since=2d&client=nobody', /^usage can’t be read now: EISDIR/],
      ['?since=3d&until=3d', /^usage can’t be read now: \S+\.json is damaged: put back a copy/],
      ['?since=3d&until=3d', /^usage can’t be read now: \S+\.json is damaged: put back a copy/],
    ] as const) {
      const answer = await call(gateway.adminUrl, `/v1/usage/days${query}`)
      expect(answer.status).toBe(503)
      expect(answer.json().detail).toMatch(why)
    }
  })

  it('is cut off at a day that can’t be read, and the log and the command say so', async () => {
    const store = storeOf({ [dayAgo(2)]: rowsText(5_000), [dayAgo(1)]: null })
    const gateway = await startProcess({ ...harnessConfig('http://127.0.0.1:1'), store })
    const { code, stdout, stderr } = await runCommand(['usage', '--url', gateway.adminUrl])
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toMatch(/\/v1\/usage\/days\?since=90d broke off in the middle of its answer: .*the gateway’s log/)
    expect(await gateway.line(/an export of usage was cut off/)).toContain('EISDIR')
  })
})

describe('usage of a gateway with workers', () => {
  it('is that of all of them', async () => {
    const upstream = await startUpstream()
    const store = { kind: 'redis', url: inject('redisUrl'), prefix: `usage-${process.pid}`, commandTimeout: '2s' }
    const gateway = await startProcess({
      ...harnessConfig(upstream.url),
      server: { port: 0, workers: 2 },
      store,
    })
    for (let i = 0; i < 10; i++) await call(gateway.url, READ)
    const { data, away } = (await call(gateway.adminUrl, '/v1/usage')).json()
    expect(away).toEqual([])
    expect(data[0]).toMatchObject({ class: 'read', clients: [{ client: 'anonymous', used: 10, hour: 10, day: 10 }] })
    await expect.poll(async () => sumOf(await daysOf(gateway), 'units')).toBe(10)
  })
})
