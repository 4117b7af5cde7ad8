import { once } from 'node:events'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { hashKey } from '../../../src/clients/keys.ts'
import { SimulatedClock } from '../../support/simulated-clock.ts'
import { openBrowser } from '../../support/browser.ts'
import { startRedisServer } from '../../support/find-redis.ts'
import { harnessConfig, startGateway, startServer, startUpstream, type TestGateway } from '../../support/gateway.ts'
import { call } from '../../support/http.ts'
import { hasProgram } from '../../support/packages.ts'

const READ = '/harness/ng/api/projects'
const TOKEN = 'the admin token'
const SIGNED_IN = { admin: { port: 0, token: TOKEN, tokens: { alice: 'the token of alice' } } }
/** Calls still wait when these tests end. */
const AT_ONCE = { server: { port: 0, drain: '0s' } }
const HOG = { hog: { keys: [hashKey('hog')] }, other: { keys: [hashKey('other')] } }

const getPage = async (gateway: TestGateway, path = '/'): Promise<string> => (await call(gateway.adminUrl, path)).body
/** What a reader of the page sees, without markup. */
const wordsOf = (page: string): string => page.replaceAll(/<[^>]*>/g, ' ').replaceAll(/\s+/g, ' ')
const send = (gateway: TestGateway, times: number, headers: Record<string, string> = {}) =>
  Array.from({ length: times }, () => call(gateway.url, READ, { headers }).catch(() => undefined))

describe('the live page', () => {
  it('says that nothing is wrong where nothing is', async () => {
    const gateway = await startGateway(harnessConfig((await startUpstream()).url))
    await Promise.all(send(gateway, 3))
    const words = wordsOf(await getPage(gateway))
    expect(words).toContain('What is wrong now Nothing. Calls are served.')
    expect(words).toContain('harness/prod read 1m 3 of 1000')
    expect((await call(gateway.adminUrl, '/v1/causes')).json()).toEqual({ data: [], away: [] })
  })

  it('shows the first hundred of many limits and credentials, and says how many more there are', async () => {
    const value = { credential: { value: 'topsecret' } }
    const accounts = Object.fromEntries(Array.from({ length: 130 }, (_, i) => [`account-${i}`, value]))
    const limits = { read: [{ requests: 100, window: '1h' }] }
    const api = { url: (await startUpstream()).url, accounts, limits }
    const gateway = await startGateway({ ...harnessConfig('http://127.0.0.1:1'), upstreams: { api } })
    await call(gateway.url, '/api/x', { headers: { 'x-sluice-account': 'account-129' } })
    const page = await getPage(gateway)
    const rowsOf = (id: string): string[] =>
      new RegExp(`<h2 id="${id}">[^]*?</section>`).exec(page)![0].match(/<th scope="row">/g) ?? []
    expect([rowsOf('limits').length, rowsOf('credentials').length]).toEqual([100, 100])
    const words = wordsOf(page)
    expect(words).toMatch(/Waiting api\/account-129 read 1h 1 of 100/)
    expect(words).toContain('… and 30 more: see npx sluice quota .')
    expect(words).toContain('… and 30 more: see sluice_credential_expires_seconds .')
  })

  it('says when a quota will be used up at this rate, and how fast it is spent', async () => {
    const clock = new SimulatedClock()
    const limits = { read: [{ requests: 100, window: '1h' }] }
    const gateway = await startGateway(harnessConfig((await startUpstream()).url, { limits }), { clock })
    for (let i = 0; i < 20; i++) {
      await Promise.all(send(gateway, 1))
      await clock.advance(15_000)
    }
    const words = wordsOf(await getPage(gateway))
    expect(words).toMatch(/harness\/prod read per 1h will be used up in 2[01] min at this rate: 20 of 100 are\./)
    expect(words).toMatch(/harness\/prod read 1h 20 of 100 20 % \d+ min 2[01] min 2\.[34] 0/)
  })

  it('names who spends a quota of which nothing is left', async () => {
    const limits = { read: [{ requests: 5, window: '60s' }] }
    const gateway = await startGateway(
      harnessConfig((await startUpstream()).url, { limits, queue: { maxWait: '10m' } }, { ...AT_ONCE, clients: HOG }),
    )
    void send(gateway, 12, { 'x-sluice-key': 'hog' })
    void send(gateway, 1, { 'x-sluice-key': 'other' })
    await expect
      .poll(async () => wordsOf(await getPage(gateway)))
      .toMatch(/harness\/prod read per 1m is used up, and 8 calls wait, [78] of the client hog/)
  })

  it.each([
    [
      'somebody else uses the account',
      { 'x-ratelimit-limit': '1000', 'x-ratelimit-remaining': '200', 'x-ratelimit-reset': '30' },
      200,
    ],
    ['the vendor answers 429 and does not say until when', {}, 429],
  ])('says that %s', async (_, headers, status) => {
    const upstream = await startUpstream((_, response) => void response.writeHead(status, headers).end())
    const gateway = await startGateway(
      harnessConfig(upstream.url, { retry: { retries: 0 }, throttle: { pause: '1ms', retry: 'safe' } }),
    )
    await Promise.all(send(gateway, 6))
    await expect
      .poll(async () => wordsOf(await getPage(gateway)))
      .toMatch(/Only \d+ of 1000 of harness\/prod read per 1m can be used: the vendor lets less through/)
  })

  it('says that the vendor is slow', async () => {
    const upstream = await startUpstream((_, response) => void setTimeout(() => response.end(), 5_100))
    const gateway = await startGateway(harnessConfig(upstream.url))
    await Promise.all(send(gateway, 5))
    expect(wordsOf(await getPage(gateway))).toMatch(/harness is slow: half of its calls take more than \d+ s/)
  })

  it.each([
    [401, 'The vendor refuses the credential'],
    [500, 'vendor’s status page'],
  ])('says that the vendor answers %i, and what to do', async (status, todo) => {
    const upstream = await startUpstream((_, response) => void response.writeHead(status).end())
    const gateway = await startGateway(
      harnessConfig(upstream.url, { retry: { retries: 0 }, breaker: { failures: 100 } }),
    )
    await Promise.all(send(gateway, 6))
    const words = wordsOf(await getPage(gateway))
    expect(words).toMatch(new RegExp(`harness/prod answered 6 of 6 calls with ${status === 500 ? '5xx' : status}`))
    expect(words).toContain(todo)
    const { data } = (await call(gateway.adminUrl, '/v1/causes')).json() as { data: object[] }
    const [what, said] = [expect.stringContaining('harness/prod answered 6 of 6'), expect.stringContaining(todo)]
    expect(data).toMatchObject([
      { severity: 'failing', what, todo: said, about: `harness ${status === 500 ? '5xx' : status}` },
    ])
  })

  it('says for five minutes what failed, however many calls succeed after it', async () => {
    const clock = new SimulatedClock()
    const limits = { read: [{ requests: 1_000, window: '60s' }], write: [{ requests: 1, window: '60s' }] }
    const queue = { maxWait: '0s' }
    const config = harnessConfig((await startUpstream()).url, { limits, queue }, { requests: { keep: 500 } })
    const gateway = await startGateway(config, { clock })
    const write = (id: string) => call(gateway.url, READ, { method: 'POST', headers: { 'x-correlation-id': id } })
    for (let i = 0; i < 21; i++) await write(`write-${i}`)
    for (let i = 0; i < 45; i++) await Promise.all(send(gateway, 10))
    const page = await getPage(gateway)
    expect(wordsOf(page)).toContain('20 calls to harness ended as quota_exhausted')
    expect(page.slice(page.indexOf('Calls that failed lately'))).toContain('write-20')
    // The stories of those calls are gone, and still it is said.
    for (let i = 0; i < 10; i++) await Promise.all(send(gateway, 10))
    await clock.advance(60_000)
    expect(wordsOf(await getPage(gateway))).toContain('20 calls to harness ended as quota_exhausted')
    await clock.advance(5 * 60_000)
    expect(wordsOf(await getPage(gateway))).toContain('Nothing. Calls are served.')
  })

  it('says which breaker is open, and when it probes', async () => {
    const gateway = await startGateway(
      harnessConfig('http://127.0.0.1:1', { retry: { retries: 0 }, breaker: { failures: 2 } }),
    )
    for (let i = 0; i < 3; i++) await call(gateway.url, READ)
    const words = wordsOf(await getPage(gateway))
    expect(words).toMatch(/Failing: The breaker of harness is open, the next probe is in \d+ s/)
    expect(words).not.toContain('ended as breaker_open')
  })

  it('shows a limit in money of less than one as full when it is', async () => {
    const limits = { read: [{ amount: 0.5, unit: 'usd', window: '1h' }] }
    const price = { unit: 'usd', list: { default: { call: 0.25 } } }
    const upstream = await startUpstream()
    const gateway = await startGateway({
      ...harnessConfig(upstream.url),
      upstreams: {
        ai: { url: upstream.url, accounts: { main: {} }, routes: [{ path: '/*', class: 'read' }], price, limits },
      },
    })
    for (let i = 0; i < 2; i++) await call(gateway.url, '/ai/x')
    expect(wordsOf(await getPage(gateway))).toMatch(/ai\/main read 1h usd 0\.5 of 0\.5 100 %/)
  })

  it('says that Redis is away', async () => {
    const redis = await startRedisServer([])
    onTestFinished(() => redis.stop())
    const store = { kind: 'redis', url: redis.url }
    const key = 'the key'
    const clients = { 'anyone-with-a-budget': { keys: [hashKey(key)], budget: [{ requests: 10, window: '1h' }] } }
    const gateway = await startGateway(harnessConfig((await startUpstream()).url, {}, { store, clients }))
    await Promise.all(send(gateway, 1, { 'x-sluice-key': key }))
    await redis.stop()
    await Promise.all(send(gateway, 1, { 'x-sluice-key': key }))
    await expect.poll(async () => wordsOf(await getPage(gateway))).toMatch(/Warning: Degraded: the quota store/)
    // What this gateway may not spend without Redis counts as used, but nobody used it.
    const { data } = (await call(gateway.adminUrl, '/v1/quota')).json() as { data: { isLocal?: boolean }[] }
    expect(data.map(({ isLocal }) => isLocal)).toEqual(data.map(() => true))
    const words = wordsOf(await getPage(gateway))
    expect(words).not.toMatch(/used up|1000 of 1000/)
    expect(words).toMatch(
      /Limits What is used is not known while the quota store can not be asked\..* read 1m \? of 1000/,
    )
    expect(words).toMatch(/Budgets What is used is not known .* anyone-with-a-budget 1h \? of 10 \?/)
    expect(await gateway.metrics()).toContain('sluice_quota_limit{')
    expect(await gateway.metrics()).not.toMatch(/sluice_(quota|client_budget)_used\{/)
  })

  it('says that a queue is full', async () => {
    const limits = { read: [{ requests: 1, window: '60s' }] }
    const queue = { maxWait: '10m', maxWaiting: 1 }
    const gateway = await startGateway(harnessConfig((await startUpstream()).url, { limits, queue }, AT_ONCE))
    await call(gateway.url, READ)
    void send(gateway, 4)
    await expect.poll(async () => wordsOf(await getPage(gateway))).toMatch(/\d calls? to harness ended as queue_full/)
  })

  it('says that a reload was rejected, until one is taken', async () => {
    const { url } = await startUpstream()
    const config = harnessConfig(url)
    const gateway = await startGateway(config)
    await gateway.reloadWith({
      ...config,
      upstreams: { harness: { preset: 'harness', accounts: {} } },
      server: { port: 0, workers: 2 },
    })
    expect(wordsOf(await getPage(gateway))).toContain('The last reload was rejected')
    await pause(0)
    await gateway.reloadWith(config)
    await expect.poll(async () => wordsOf(await getPage(gateway))).not.toContain('The last reload was rejected')
  })

  it('says that a key is wrong, and leads to the call', async () => {
    const gateway = await startGateway(harnessConfig((await startUpstream()).url, {}, { clients: HOG }))
    await Promise.all(send(gateway, 1, { 'x-sluice-key': 'wrong', 'x-correlation-id': 'of-the-wrong-key' }))
    const page = await getPage(gateway)
    expect(wordsOf(page)).toContain('1 call to harness ended as unauthenticated')
    expect(page).toContain('href="/requests/of-the-wrong-key"')
    expect(wordsOf(await getPage(gateway, '/requests/of-the-wrong-key'))).toMatch(/unauthenticated: unknown client key/)
  })

  it('lists calls by what metrics call them', async () => {
    const gateway = await startGateway(
      harnessConfig((await startUpstream()).url, {}, { clients: { bot: { keys: [hashKey('bot')] } } }),
    )
    await call(gateway.url, READ, { headers: { 'x-sluice-key': 'wrong', 'x-correlation-id': 'wrong' } })
    await call(gateway.url, '/harness/ng/api/projects', {
      method: 'POST',
      headers: { 'x-sluice-key': 'bot', 'x-correlation-id': 'right' },
    })
    const listed = async (query: string) => {
      const page = await getPage(gateway, `/requests?${query}`)
      return [...page.matchAll(/href="\/requests\/([^"?]+)"/g)].map(([, id]) => id)
    }
    await expect.poll(() => listed('outcome=unauthenticated&account=unknown&client=unknown')).toEqual(['wrong'])
    expect(await listed('account=harness%2Funknown')).toEqual(['wrong'])
    expect(await listed('client=bot&class=all')).toEqual(['right'])
    expect(await listed('client=other&account=prod')).toEqual(['right'])
    expect(wordsOf(await getPage(gateway, '/requests?client=other&account=prod'))).toContain(
      'In metrics “other” are all',
    )
    expect(await listed('client=nobody')).toEqual([])
    expect(await listed('upstream=harness&limit=2')).toEqual(['right', 'wrong'])
    const first = await getPage(gateway, '/requests?upstream=harness&limit=1')
    expect(wordsOf(first)).toContain('These are the latest 1 call. Older ones')
    const [, older = ''] = /href="(\/requests\?[^"]+)"/.exec(first)!
    expect(await listed(older.replace('/requests?', '').replaceAll('&amp;', '&'))).toEqual(['wrong'])
    expect(wordsOf(await getPage(gateway, '/requests?upstream=harness&limit=2'))).not.toContain('Older ones')
  })

  it('lists of each call the day and the time, in UTC as the log and the command', async () => {
    const gateway = await startGateway(harnessConfig((await startUpstream()).url))
    await call(gateway.url, READ, { headers: { 'x-correlation-id': 'listed' } })
    const { time } = (await call(gateway.adminUrl, '/v1/requests')).json().data[0] as { time: string }
    const words = wordsOf(await getPage(gateway, '/requests?outcome=delivered'))
    expect(words).toContain('Time (UTC) Client')
    expect(words).toContain(` ${time.slice(0, 10)} ${time.slice(11, 19)} `)
  })

  it('shows of a call why the cache did not keep its answer', async () => {
    const upstream = await startUpstream((_, response) => void response.writeHead(200, { etag: '"1"' }).end('{}'))
    const accounts = { main: { credential: { header: 'authorization', value: 'Bearer x' } } }
    const routes = [{ path: '/*', class: 'read', cache: true }]
    const limits = { read: [{ requests: 10, window: '60s' }] }
    const gateway = await startGateway({
      ...harnessConfig(upstream.url),
      upstreams: { tickets: { url: upstream.url, accounts, routes, limits } },
    })
    await call(gateway.url, '/tickets/a', { headers: { 'x-correlation-id': 'not-kept' } })
    expect(wordsOf(await getPage(gateway, '/requests/not-kept'))).toMatch(/Cache .*detail=authorization/)
  })

  it('shows of a call its trace, and leads to the call that opened the breaker', async () => {
    const traceId = '0af7651916cd43dd8448eb211c80319c'
    const upstream = await startUpstream((_, response) => response.writeHead(500).end())
    const gateway = await startGateway(
      harnessConfig(
        upstream.url,
        { breaker: { failures: 1 }, retry: { retries: 0 } },
        { telemetry: { traces: { endpoint: upstream.url } } },
      ),
    )
    const headers = { traceparent: `00-${traceId}-b7ad6b7169203331-00` }
    await call(gateway.url, READ, { headers: { 'x-correlation-id': 'first' } })
    await call(gateway.url, READ, { headers: { ...headers, 'x-correlation-id': 'second' } })
    const page = await getPage(gateway, '/requests/second')
    expect(page).toContain('opened by status 500 of <a href="/requests/first">first</a>')
    expect(wordsOf(page)).toContain(`Trace ${traceId}`)
  })

  it('shows of a call that is under way that it runs', async () => {
    const url = await startServer((_, response) => void response.writeHead(200).write('first'))
    const gateway = await startGateway(harnessConfig(url, {}, AT_ONCE))
    const options = { headers: { 'x-correlation-id': 'streaming' } }
    const asked = httpRequest(gateway.url + READ, options, (response) => void response.on('error', () => undefined))
    asked.on('error', () => undefined).end()
    onTestFinished(() => void asked.destroy())
    await once(asked, 'response')
    const words = wordsOf(await getPage(gateway, '/requests/streaming'))
    expect(words).toContain('State running')
    expect(words).not.toContain('Ended as')
  })

  it('shows text of strangers as text', async () => {
    const gateway = await startGateway(harnessConfig((await startUpstream()).url, {}, { clients: HOG }))
    const id = `"><img/src=x>`
    await call(gateway.url, `${READ}/<script>alert(1)</script>`, {
      headers: { 'x-correlation-id': id, 'x-sluice-key': 'wrong' },
    })
    for (const path of ['/', `/requests/${encodeURIComponent(id)}`, '/requests/%3Cscript%3E']) {
      const page = await getPage(gateway, path)
      expect(page).not.toMatch(/<script>|<img/)
    }
  })
})

/** Set to a folder, it gets what the browser shows. */
const PICTURES = process.env['SLUICE_PICTURES']

describe.skipIf(!hasProgram('chromium'))('the live page in a browser', () => {
  async function setUp() {
    const limits = { read: [{ requests: 20, window: '60s' }], write: [{ requests: 300, window: '60s' }] }
    const sick = {
      url: 'http://127.0.0.1:1',
      accounts: { main: {} },
      retry: { retries: 0 },
      breaker: { failures: 2 },
      limits: { read: [] },
    }
    const routes = [{ path: '/*', class: 'read' }]
    const config = harnessConfig(
      (await startUpstream()).url,
      { limits, queue: { maxWait: '10m' } },
      { ...SIGNED_IN, clients: HOG },
    ) as {
      upstreams: object
    }
    const gateway = await startGateway({ ...config, upstreams: { ...config.upstreams, sick: { ...sick, routes } } })
    const tab = await openBrowser()
    const picture = async (name: string): Promise<void> => {
      const shown = await tab.screenshot()
      if (PICTURES === undefined) return
      if (!existsSync(PICTURES)) mkdirSync(PICTURES)
      writeFileSync(`${PICTURES}/${name}.png`, shown)
    }
    const enter = async (url = gateway.adminUrl): Promise<void> => {
      await tab.open(url)
      await tab.eval(
        `document.querySelector('#token').value = ${JSON.stringify(TOKEN)}; document.querySelector('main form').submit()`,
      )
      await expect.poll(() => tab.text()).toContain('What is wrong now')
    }
    return { gateway, tab, picture, enter }
  }

  it('shows by itself what begins to be wrong, on a phone too, and leads to the call', async () => {
    const { gateway, tab, picture, enter } = await setUp()
    await tab.size(1200, 900)
    await enter()
    expect(await tab.text()).toContain('Nothing. Calls are served.')
    await picture('empty')
    void send(gateway, 40, { 'x-sluice-key': 'hog' })
    for (let i = 0; i < 3; i++)
      await call(gateway.url, '/sick/x', { headers: { 'x-sluice-key': 'other', 'x-correlation-id': `sick-${i}` } })
    await expect.poll(() => tab.text()).toMatch(/The breaker of sick is open[^]*of the client hog/)
    await expect.poll(() => tab.text()).toMatch(/Who spends[^]*hog[^]*Who waits/)
    await picture('load')
    await tab.size(390, 844, 'dark')
    await picture('phone')
    // Tables scroll in themselves, the page does not.
    expect(await tab.eval<number>('document.documentElement.scrollWidth')).toBeLessThanOrEqual(390)
    await tab.eval(`document.querySelector('#id').value = 'sick-2'; document.querySelector('.search').submit()`)
    await expect.poll(() => tab.text()).toMatch(/Call sick-2[^]*breaker_open/)
    await tab.size(1200, 900)
    await picture('call')
    expect(tab.errors).toEqual([])
  })

  it('is up to date where something of it has the focus, which stays', async () => {
    const { gateway, tab, enter } = await setUp()
    await enter()
    const fail = (id: string) =>
      call(gateway.url, '/sick/x', { headers: { 'x-sluice-key': 'other', 'x-correlation-id': id } })
    const failed = `document.querySelector('[aria-label="Calls that failed lately"]')`
    const shown = () => tab.eval<string>(`${failed}?.innerHTML ?? ''`)
    await fail('sick-1')
    await expect.poll(shown).toContain('/requests/sick-1')
    await tab.eval(`${failed}.focus()`)
    await fail('sick-2')
    await expect.poll(shown).toContain('/requests/sick-2')
    expect(await tab.eval<boolean>(`document.activeElement === ${failed}`)).toBe(true)
    await tab.eval(`${failed}.querySelector('a[href="/requests/sick-1"]').focus()`)
    await fail('sick-3')
    await expect.poll(shown).toContain('/requests/sick-3')
    expect(await tab.eval<string>('document.activeElement.getAttribute("href")')).toBe('/requests/sick-1')
  })

  it('connects again after it was refused', async () => {
    const { gateway, tab, enter } = await setUp()
    const connection = `document.querySelector('#connection').textContent`
    const signedIn = await call(gateway.adminUrl, '/sign-in', {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams({ token: TOKEN }).toString(),
    })
    const cookie = String(signedIn.headers['set-cookie']).split(';')[0]!
    // Such as a hundred pages that others have left open.
    const pages = new AbortController()
    onTestFinished(() => pages.abort())
    const open = () =>
      fetch(`${gateway.adminUrl}/events`, { headers: { cookie }, redirect: 'error', signal: pages.signal })
    // A response that nobody holds is closed as soon as garbage is collected.
    const opened = await Promise.all(Array.from({ length: 101 }, open))
    expect(opened.map(({ status }) => status)).toContain(503)
    await enter()
    await expect.poll(() => tab.eval<string>(connection)).toContain('Not connected')
    pages.abort()
    await expect.poll(() => tab.eval<string>(connection)).toBe('')
    expect(opened).toHaveLength(101)
  })

  it('leads to where one signs in, if the session ended while it was not connected', async () => {
    const { gateway, tab, enter } = await setUp()
    await enter()
    // Whatever breaks its connection. When it connects again, it has no session.
    // Not awaited: the page may leave before that has an answer.
    await tab.eval(`void fetch('/sign-out', { method: 'POST' }).then(() => connect())`)
    await expect.poll(() => tab.eval<string>('location.href')).toBe(`${gateway.adminUrl}/sign-in`)
  })

  it('says that it may be old if its gateway hangs, and no longer when that goes on', { timeout: 60_000 }, async () => {
    const { gateway, tab, enter } = await setUp()
    const { hostname, port } = new URL(gateway.adminUrl)
    let isHung = false
    const url = await startServer((asked, response) => {
      const { url: path, method, headers } = asked
      const passed = httpRequest({ hostname, port, path, method, headers }, (answer) => {
        response.writeHead(answer.statusCode!, answer.headers)
        answer.on('data', (piece) => void (isHung || response.write(piece))).on('end', () => response.end())
      })
      response.once('close', () => passed.destroy())
      asked.pipe(passed.on('error', () => undefined))
    })
    await enter(url)
    const connection = () => tab.eval<string>(`document.querySelector('#connection').textContent`)
    expect(await connection()).toBe('')
    isHung = true
    await expect.poll(connection, { timeout: 30_000 }).toContain('may be old')
    isHung = false
    await expect.poll(connection, { timeout: 30_000 }).toBe('')
  })

  it('is no wider than a phone, however long names are', async () => {
    const { url } = await startUpstream()
    const [name, account] = ['u'.repeat(63), 'a'.repeat(63)]
    const api = { url, accounts: { [account]: {} }, limits: { read: [{ requests: 1, window: '1h' }] } }
    const gateway = await startGateway({ ...harnessConfig(url), upstreams: { [name]: api } })
    const id = 'i'.repeat(128)
    await call(gateway.url, `/${name}/x`, { headers: { 'x-correlation-id': id } })
    await call(gateway.url, `/${name}/x`, { headers: { 'x-correlation-id': id, 'x-sluice-max-wait': '0' } })
    const tab = await openBrowser()
    await tab.size(390, 844)
    for (const path of ['/', `/requests/${id}`, `/requests?account=${account}`]) {
      await tab.open(gateway.adminUrl + path)
      expect(await tab.text()).toMatch(/is used up|quota_exhausted/)
      expect(await tab.eval<number>('document.documentElement.scrollWidth'), path).toBeLessThanOrEqual(390)
    }
  })

  it('is of use without scripts', async () => {
    const { tab, enter } = await setUp()
    await enter()
    await tab.withoutScripts()
    await tab.reload()
    await expect.poll(() => tab.text()).toContain('Nothing. Calls are served.')
    expect(await tab.eval<string>(`document.querySelector('main').innerText`)).toContain('harness/prod')
  })
})
