import { readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, inject, it } from 'vitest'
import { Redis } from 'ioredis'
import { createKey, hashKey } from '../../../src/clients/keys.ts'
import { deadPort } from '../../support/find-redis.ts'
import { ADMIN_TOKEN, ask } from '../../support/admin.ts'
import { harnessConfig, newFolder, startGateway, startUpstream, stores } from '../../support/gateway.ts'
import { call } from '../../support/http.ts'
import { startProcess } from '../../support/process.ts'

const CONFIGURED = { keys: [{ hash: hashKey('configured'), label: 'CI' }], classes: ['read'], share: '40%' }

async function setUp(rest: object = {}) {
  const upstream = await startUpstream()
  const clients = { fixed: CONFIGURED }
  const config = harnessConfig(upstream.url, {}, { clients, admin: { port: 0, token: ADMIN_TOKEN }, ...rest })
  const gateway = await startGateway(config)
  return { upstream, config, gateway }
}

const statusOf = async (url: string, key: string, method = 'GET', path = '/harness/ng/api/projects') =>
  (await call(url, path, { method, headers: { 'x-sluice-key': key } })).status

describe('a client of the admin API', () => {
  it('is made with a key that is shown once and works at once', async () => {
    const { gateway, upstream } = await setUp()
    const made = await ask(gateway, 'POST', '/clients', {
      name: 'bot',
      key: { label: 'laptop', expires: '2099-01-01' },
      methods: ['GET'],
      budget: [{ requests: 10, window: '1h' }],
    })
    expect(made.status).toBe(201)
    const { id, key, ...rest } = made.json()
    expect(id).toMatch(/^client_[0-9a-f]{32}$/)
    expect(key).toMatch(/^slk_/)
    expect(made.headers).toMatchObject({ location: `/v1/clients/${id}`, etag: '"1"', 'cache-control': 'no-store' })
    expect(rest).toMatchObject({
      name: 'bot',
      source: 'api',
      read_only: false,
      methods: ['GET'],
      budget: [{ requests: 10, window: '1h' }],
      keys: [
        { id: expect.stringMatching(/^key_[0-9a-f]{32}$/), label: 'laptop', expires_at: '2099-01-02T00:00:00.000Z' },
      ],
      archived_at: null,
    })
    expect(await statusOf(gateway.url, key)).toBe(200)
    expect(await statusOf(gateway.url, key, 'POST')).toBe(403)
    expect(upstream.seen).toHaveLength(1)
    expect(gateway.lines[0]).toMatchObject({ client: 'bot' })
    const read = await ask(gateway, 'GET', `/clients/${id}`)
    expect(read.json()).toEqual({ id, ...rest })
    expect(read.headers['etag']).toBe('"1"')
    expect(JSON.stringify((await ask(gateway, 'GET', '/clients')).json())).not.toContain(key)
  })

  it('is changed, archived, taken back and deleted, each in force at once', async () => {
    const { gateway } = await setUp()
    const { id, key } = (await ask(gateway, 'POST', '/clients', { name: 'bot', methods: ['GET'] })).json()
    const changed = await ask(gateway, 'PATCH', `/clients/${id}`, { methods: ['POST'], classes: ['write'] })
    expect(changed.json()).toMatchObject({ methods: ['POST'], classes: ['write'], version: 2 })
    expect(await statusOf(gateway.url, key)).toBe(403)
    expect(await statusOf(gateway.url, key, 'POST')).toBe(200)
    const freed = await ask(gateway, 'PATCH', `/clients/${id}`, { methods: null, classes: null })
    expect(freed.json().methods).toBeUndefined()
    expect(await statusOf(gateway.url, key)).toBe(200)

    const archived = await ask(gateway, 'POST', `/clients/${id}/archive`)
    expect(Date.parse(archived.json().archived_at)).toBeGreaterThan(0)
    expect(await statusOf(gateway.url, key)).toBe(401)
    const names = async (query: string) =>
      (await ask(gateway, 'GET', `/clients${query}`)).json().data.map(({ name }: { name: string }) => name)
    expect(await names('')).toEqual(['fixed'])
    expect(await names('?include_archived=true')).toEqual(['bot', 'fixed'])
    const again = await ask(gateway, 'POST', `/clients/${id}/archive`)
    expect(again.json().archived_at).toBe(archived.json().archived_at)
    expect((await ask(gateway, 'POST', `/clients/${id}/unarchive`)).json().archived_at).toBeNull()
    expect(await statusOf(gateway.url, key)).toBe(200)

    expect((await ask(gateway, 'DELETE', `/clients/${id}`)).status).toBe(204)
    expect(await statusOf(gateway.url, key)).toBe(401)
    expect((await ask(gateway, 'GET', `/clients/${id}`)).status).toBe(404)
    expect(await names('?include_archived=true')).toEqual(['fixed'])
    expect((await ask(gateway, 'POST', '/clients', { name: 'bot' })).status).toBe(201)
  })

  it('keeps what a patch does not name, at any depth', async () => {
    const { gateway } = await setUp()
    const networkAccess = { allowed: ['*.vendor.example'], blocked: ['a.vendor.example'] }
    const { id } = (await ask(gateway, 'POST', '/clients', { name: 'bot', networkAccess })).json()
    const patched = async (patch: object) => (await ask(gateway, 'PATCH', `/clients/${id}`, patch)).json().networkAccess
    const blocked = ['a.vendor.example', 'b.vendor.example']
    expect(await patched({ networkAccess: { blocked } })).toEqual({ ...networkAccess, blocked })
    expect(await patched({ networkAccess: { blocked: null } })).toEqual({ allowed: networkAccess.allowed })
    expect(await patched({ networkAccess: null })).toBeUndefined()
    expect(await patched({ networkAccess: { allowed: null, blocked } })).toEqual({ blocked })
  })

  it('with the name of one of the configuration is refused for that, whatever its share', async () => {
    const { gateway } = await setUp()
    const made = await ask(gateway, 'POST', '/clients', { name: 'fixed', share: '70%' })
    expect(made.json()).toMatchObject({ status: 409, code: 'NAME_TAKEN' })
  })

  it('that is wrong is answered without advice about YAML, as is all that JSON says', async () => {
    const { gateway } = await setUp()
    const errorsOf = async (path: string, body: object) => (await ask(gateway, 'POST', path, body)).json().errors
    for (const group of [null, 5]) {
      expect(await errorsOf('/upstreams/harness/breaker', { state: 'open', group })).toEqual([
        { path: 'group', message: 'must be a text' },
      ])
    }
    const [{ message }] = await errorsOf('/clients', { name: 'bot', 'share:topsecret': 1 })
    expect(message).toMatch(/^unknown key, not shown because it may hold a secret/)
    expect(message).not.toMatch(/space|topsecret/)
  })

  it('has no share with which those of an account would be more than all of it', async () => {
    const { gateway } = await setUp()
    const make = (name: string, share: string) => ask(gateway, 'POST', '/clients', { name, share })
    const tooMuch = {
      status: 400,
      errors: [{ path: 'share', message: expect.stringContaining('shares of harness/prod add up to more than 100%') }],
    }
    expect((await make('greedy', '61%')).json()).toMatchObject(tooMuch)
    expect((await make('bot', '50%')).status).toBe(201)
    expect((await make('other', '11%')).json()).toMatchObject(tooMuch)
    expect((await ask(gateway, 'PATCH', '/clients/bot', { share: '61%' })).json()).toMatchObject(tooMuch)
    expect((await ask(gateway, 'PATCH', '/clients/bot', { share: '60%' })).status).toBe(200)
    await ask(gateway, 'POST', '/clients/bot/archive')
    expect((await make('other', '11%')).status).toBe(201)
    expect((await ask(gateway, 'POST', '/clients/bot/unarchive')).json()).toMatchObject(tooMuch)
    await ask(gateway, 'DELETE', '/clients/other')
    expect((await ask(gateway, 'POST', '/clients/bot/unarchive')).status).toBe(200)
  })

  it.each(['the embedded store', 'Redis'] as const)(
    'is compared with those that are made and taken back at the same time, with %s',
    async (kind) => {
      const { gateway } = await setUp({ store: stores[kind]() })
      const statuses = async (asked: ReturnType<typeof ask>[]) =>
        (await Promise.all(asked)).map(({ status }) => status).toSorted((a, b) => a - b)
      const keys = [{ hash: hashKey('shared') }]
      const made = ['a', 'b', 'c'].map((name) => ask(gateway, 'POST', '/clients', { name, keys }))
      expect(await statuses(made)).toEqual([201, 409, 409])
      const names = ['d', 'e', 'f']
      expect(await statuses(names.map((name) => ask(gateway, 'POST', '/clients', { name, share: '60%' })))).toEqual([
        201, 400, 400,
      ])
      await Promise.all(names.map((name) => ask(gateway, 'DELETE', `/clients/${name}`)))
      for (const name of ['g', 'h']) {
        await ask(gateway, 'POST', '/clients', { name, share: '60%' })
        await ask(gateway, 'POST', `/clients/${name}/archive`)
      }
      const back = ['g', 'h'].map((name) => ask(gateway, 'POST', `/clients/${name}/unarchive`))
      expect(await statuses(back)).toEqual([200, 400])
    },
  )

  it('may take less, and has a share elsewhere, where those of an account are too much already', async () => {
    const upstream = await startUpstream()
    const admin = { port: 0, token: ADMIN_TOKEN }
    const { upstreams, ...rest } = harnessConfig(upstream.url, {}, { admin }) as { upstreams: object }
    const other = { url: upstream.url, limits: { read: [], write: [] }, accounts: { main: {} } }
    const config = { ...rest, upstreams: { ...upstreams, other }, clients: { fixed: CONFIGURED } }
    const gateway = await startGateway(config)
    const make = async (client: object) => (await ask(gateway, 'POST', '/clients', client)).status
    const shareOf = async (name: string, share: string | null) =>
      (await ask(gateway, 'PATCH', `/clients/${name}`, { share })).status
    expect(await make({ name: 'one', upstreams: ['harness'], share: '40%' })).toBe(201)
    expect(await make({ name: 'two', upstreams: ['harness'], share: '20%' })).toBe(201)
    await gateway.reloadWith({ ...config, clients: { fixed: { ...CONFIGURED, share: '70%' } } })
    expect(await make({ name: 'three', upstreams: ['other'], share: '30%' })).toBe(201)
    expect(await make({ name: 'four', upstreams: ['other'], share: '1%' })).toBe(400)
    expect(await make({ name: 'four', upstreams: ['harness'], share: '1%' })).toBe(400)
    expect([await shareOf('one', '35%'), await shareOf('two', '19%')]).toEqual([200, 200])
    expect([await shareOf('one', '36%'), await shareOf('two', '20%')]).toEqual([400, 400])
    expect([await shareOf('one', null), await shareOf('two', '20%')]).toEqual([200, 200])
  })

  it('that contradicts one of the configuration is told of by the reload that brings that', async () => {
    const { gateway, config } = await setUp()
    const { keyHash } = createKey()
    await ask(gateway, 'POST', '/clients', { name: 'bot', share: '60%' })
    await ask(gateway, 'POST', '/clients', { name: 'other', keys: [{ hash: keyHash }] })
    const { id } = (await ask(gateway, 'POST', '/clients', { name: 'archived' })).json()
    await ask(gateway, 'POST', `/clients/${id}/archive`)
    const clients = {
      fixed: { ...CONFIGURED, share: '41%' },
      bot: { keys: [hashKey('bot')] },
      same: { keys: [hashKey('same'), keyHash] },
      archived: { keys: [hashKey('archived')] },
    }
    const reloaded = await gateway.reloadWith({ ...config, clients })
    expect(reloaded).toMatchObject({ result: 'applied' })
    expect((reloaded as { warnings?: readonly string[] }).warnings).toEqual([
      expect.stringMatching(/^clients\.bot has the name of a client of the admin API/),
      expect.stringMatching(/^clients\.same\.keys\[1\] is a key of "other" of the admin API/),
      expect.stringMatching(/^the share of client "bot": .*harness\/prod add up to more than 100%/),
    ])
    expect(JSON.stringify(reloaded)).not.toContain(keyHash)
    expect(await gateway.reloadWith(config)).not.toHaveProperty('warnings')
    await gateway.reloadWith({ ...config, clients })
    expect((await ask(gateway, 'POST', `/clients/${id}/unarchive`)).json().code).toBe('NAME_TAKEN')
  })

  it('is not taken back while one of the configuration has its key', async () => {
    const { gateway, config } = await setUp()
    const { keyHash } = createKey()
    await ask(gateway, 'POST', '/clients', { name: 'bot', keys: [{ hash: keyHash }] })
    await ask(gateway, 'POST', '/clients/bot/archive')
    await gateway.reloadWith({ ...config, clients: { fixed: CONFIGURED, same: { keys: [keyHash] } } })
    const refused = await ask(gateway, 'POST', '/clients/bot/unarchive')
    expect(refused.json()).toMatchObject({ status: 409, code: 'KEY_TAKEN' })
    await gateway.reloadWith(config)
    expect((await ask(gateway, 'POST', '/clients/bot/unarchive')).status).toBe(200)
  })

  it('has keys that overlap, and each is revoked by itself', async () => {
    const { gateway } = await setUp()
    const { id, key: first, keys } = (await ask(gateway, 'POST', '/clients', { name: 'bot' })).json()
    const second = await ask(gateway, 'POST', `/clients/${id}/keys`, { label: 'new' })
    expect(second.status).toBe(201)
    expect(second.json()).toMatchObject({ label: 'new', key: expect.stringMatching(/^slk_/) })
    for (const label of ['\u001B[2J', 'new\n', '\u009B2J'])
      expect((await ask(gateway, 'POST', `/clients/${id}/keys`, { label })).status).toBe(400)
    expect([await statusOf(gateway.url, first), await statusOf(gateway.url, second.json().key)]).toEqual([200, 200])
    const revoked = await ask(gateway, 'DELETE', `/clients/${id}/keys/${keys[0].id}`)
    expect(revoked.json().keys).toMatchObject([{ label: 'new' }])
    expect([await statusOf(gateway.url, first), await statusOf(gateway.url, second.json().key)]).toEqual([401, 200])
    expect((await ask(gateway, 'DELETE', `/clients/${id}/keys/${keys[0].id}`)).status).toBe(404)
  })

  it('is refused on a connection that is open when its key is revoked', async () => {
    const { gateway } = await setUp()
    const { id, key } = (await ask(gateway, 'POST', '/clients', { name: 'bot' })).json()
    // One connection, kept alive by the program's own client.
    const get = () => fetch(`${gateway.url}/harness/ng/api/x`, { headers: { 'x-sluice-key': key } })
    expect((await get()).status).toBe(200)
    await ask(gateway, 'POST', `/clients/${id}/archive`)
    expect((await get()).status).toBe(401)
  })

  it('can be made with keys that exist', async () => {
    const { gateway } = await setUp()
    const { key, keyHash } = createKey()
    const made = await ask(gateway, 'POST', '/clients', { name: 'bot', keys: [{ hash: keyHash, label: 'old' }] })
    expect(made.json()).toMatchObject({ keys: [{ label: 'old' }] })
    expect(made.json().key).toBeUndefined()
    expect(JSON.stringify(made.json())).not.toContain(keyHash)
    expect(await statusOf(gateway.url, key)).toBe(200)
    const taken = [{ hash: keyHash }]
    expect((await ask(gateway, 'POST', '/clients', { name: 'other', keys: taken })).json().code).toBe('KEY_TAKEN')
  })

  it('is not changed where another changed it meanwhile', async () => {
    const { gateway } = await setUp()
    const { id } = (await ask(gateway, 'POST', '/clients', { name: 'bot' })).json()
    const change = (tag: string) => ask(gateway, 'PATCH', `/clients/${id}`, { classes: ['read'] }, { 'if-match': tag })
    expect((await change('"1"')).headers['etag']).toBe('"2"')
    expect((await change('"1"')).json()).toMatchObject({ status: 412, code: 'PRECONDITION_FAILED' })
    expect((await change('*')).status).toBe(200)
  })

  it('of the configuration is shown without hashes, and only read', async () => {
    const { gateway } = await setUp()
    const [fixed] = (await ask(gateway, 'GET', '/clients')).json().data
    expect(fixed).toMatchObject({ name: 'fixed', source: 'config', read_only: true, classes: ['read'], share: '40%' })
    expect(fixed.keys).toMatchObject([{ label: 'CI' }])
    expect(JSON.stringify(fixed)).not.toContain(hashKey('configured').slice(7))
    expect((await ask(gateway, 'GET', `/clients/${fixed.id}`)).json()).toEqual(fixed)
    for (const [method, path] of [
      ['PATCH', ''],
      ['DELETE', ''],
      ['POST', '/archive'],
      ['POST', '/keys'],
    ]) {
      const answer = await ask(gateway, method!, `/clients/${fixed.id}${path}`, method === 'PATCH' ? {} : undefined)
      expect(answer.json(), `${method} ${path}`).toMatchObject({ status: 409, code: 'READ_ONLY' })
    }
    expect((await ask(gateway, 'POST', '/clients', { name: 'fixed' })).json().code).toBe('NAME_TAKEN')
    expect(await statusOf(gateway.url, 'configured')).toBe(200)
  })

  it.each<[string, object, string, string]>([
    ['an unknown field', { clases: ['read'] }, 'clases', 'did you mean "classes"?'],
    ['a wrong name', { name: 'Bot!' }, 'name', 'lower-case'],
    ['a wrong duration', { budget: [{ requests: 1, window: 'fortnight' }] }, 'budget[0].window', '30s'],
    ['an unknown account', { accounts: ['harness/prdo'] }, 'accounts[0]', 'did you mean "harness/prod"?'],
    ['a day that does not exist', { key: { expires: '2027-02-30' } }, 'key.expires', 'must be a day'],
    ['a key in the clear', { keys: [{ hash: 'slk_secret' }] }, 'keys[0].hash', '64 hex digits'],
  ])('is refused with %s, and told where', async (_, body, path, message) => {
    const { gateway } = await setUp()
    const answer = await ask(gateway, 'POST', '/clients', { name: 'bot', ...body })
    expect(answer.headers['content-type']).toBe('application/problem+json; charset=utf-8')
    expect(answer.json()).toMatchObject({ status: 400, code: 'INVALID_REQUEST' })
    expect(answer.json().errors).toEqual([{ path, message: expect.stringContaining(message) }])
    expect(answer.body).not.toContain('slk_secret')
    expect((await ask(gateway, 'GET', '/clients')).json().data).toHaveLength(1)
  })

  it.each([
    [
      'a form, as curl sends it',
      'application/x-www-form-urlencoded',
      '{"name":"x"}',
      415,
      /must be JSON.*Content-Type: application\/json/,
    ],
    ['text', 'text/plain', '{"name":"x"}', 415, /must be JSON.*Content-Type: application\/json/],
    ['broken JSON', 'application/json', '{"name":', 400, /not well-formed JSON/],
    ['empty JSON', 'application/json', '', 400, /the body is empty/],
    ['too long JSON', 'application/json', `"${'x'.repeat(70_000)}"`, 413, /larger than the admin API takes/],
  ])('says in its own words what is wrong with a body that is %s', async (_, type, body, status, detail) => {
    const { gateway } = await setUp()
    const headers = { authorization: `Bearer ${ADMIN_TOKEN}`, 'content-type': type }
    const answer = await call(gateway.adminUrl, '/v1/clients', { method: 'POST', headers, body })
    expect(answer.status).toBe(status)
    expect(answer.json().detail).toMatch(detail)
    expect(answer.body).not.toContain('FST_')
  })

  it('gets no key that has expired already, and each key once', async () => {
    const { gateway } = await setUp()
    const hash = hashKey('given')
    const expired = (path: string) => ({ status: 400, errors: [{ path, message: 'is in the past' }] })
    const make = async (body: object) => (await ask(gateway, 'POST', '/clients', { name: 'bot', ...body })).json()
    expect(await make({ key: { expires: '2020-01-01' } })).toMatchObject(expired('key.expires'))
    expect(await make({ keys: [{ hash, expires: '2020-01-01' }] })).toMatchObject(expired('keys[0].expires'))
    expect(await make({ keys: [{ hash }, { hash }] })).toMatchObject({
      status: 400,
      detail: 'keys has the same hash twice',
    })
    expect(await make({ keys: [{ hash, expires: '2099-01-01' }] })).toMatchObject({ name: 'bot' })
    const more = await ask(gateway, 'POST', '/clients/bot/keys', { expires: '2020-01-01T00:00Z' })
    expect(more.json()).toMatchObject(expired('expires'))
    expect((await ask(gateway, 'GET', '/clients/bot')).json().keys).toHaveLength(1)
  })

  it('is changed by a merge patch that says that it is one', async () => {
    const { gateway } = await setUp()
    await ask(gateway, 'POST', '/clients', { name: 'bot' })
    const type = { 'content-type': 'application/merge-patch+json' }
    const patched = await ask(gateway, 'PATCH', '/clients/bot', { classes: ['read'] }, type)
    expect([patched.status, patched.json().classes]).toEqual([200, ['read']])
    const headers = { authorization: `Bearer ${ADMIN_TOKEN}`, ...type }
    const broken = await call(gateway.adminUrl, '/v1/clients/bot', { method: 'PATCH', headers, body: '{"classes":' })
    expect([broken.status, broken.json().detail]).toEqual([400, 'the body is not well-formed JSON'])
  })

  it('is found, changed, given keys and archived by its name as well as by its id', async () => {
    const { gateway } = await setUp()
    const { id } = (await ask(gateway, 'POST', '/clients', { name: 'bot' })).json()
    expect((await ask(gateway, 'PATCH', '/clients/bot', { classes: ['read'] })).json()).toMatchObject({
      id,
      classes: ['read'],
    })
    expect((await ask(gateway, 'POST', '/clients/bot/keys', { label: 'CI' })).status).toBe(201)
    expect((await ask(gateway, 'POST', '/clients/bot/archive')).status).toBe(200)
    expect((await ask(gateway, 'GET', '/clients/bot')).json().id).toBe(id)
    expect((await ask(gateway, 'PATCH', '/clients/nobody', { classes: ['read'] })).status).toBe(404)
    expect((await ask(gateway, 'DELETE', '/clients/bot')).status).toBe(204)
    expect((await ask(gateway, 'GET', '/accounts/harness%2Fprod')).json().name).toBe('harness/prod')
    expect((await ask(gateway, 'GET', '/presets/harness')).json().name).toBe('harness')
  })

  it.each([
    ['GET', '/clients/client_0', undefined, 404],
    ['PUT', '/clients', {}, 404],
    ['GET', '/clients?limit=0', undefined, 400],
    ['GET', '/clients?limit=1&limit=2', undefined, 400],
    ['GET', '/clients?serch=x', undefined, 400],
    ['GET', '/clients?include_archived=yes', undefined, 400],
    ['POST', '/clients', [], 400],
    ['POST', '/clients', { name: 'x'.repeat(70_000) }, 413],
  ])('%s %s is a problem as RFC 9457 has it', async (method, path, body, status) => {
    const { gateway } = await setUp()
    const answer = await ask(gateway, method, path, body)
    expect(answer.status).toBe(status)
    expect(answer.headers['content-type']).toBe('application/problem+json; charset=utf-8')
    expect(answer.json()).toMatchObject({
      type: 'about:blank',
      status,
      code: expect.any(String),
      detail: expect.any(String),
    })
  })

  it('may have a name that every object has', async () => {
    const { gateway } = await setUp()
    const { key, name } = (await ask(gateway, 'POST', '/clients', { name: 'constructor' })).json()
    expect(name).toBe('constructor')
    expect(await statusOf(gateway.url, key)).toBe(200)
    expect((await ask(gateway, 'POST', '/clients', { name: 'constructor' })).json().code).toBe('NAME_TAKEN')
  })

  it('is listed by name, a page at a time, and found by any text in any case', async () => {
    const { gateway } = await setUp()
    for (const name of ['delta', 'alpha', 'charlie', 'bravo']) {
      await ask(gateway, 'POST', '/clients', { name, key: { label: `Key of ${name}` } })
    }
    const names = async (query: string) =>
      (await ask(gateway, 'GET', `/clients${query}`)).json().data.map(({ name }: { name: string }) => name)
    expect(await names('?limit=2')).toEqual(['alpha', 'bravo'])
    expect(await names('?limit=2&offset=3')).toEqual(['delta', 'fixed'])
    expect(await names('?search=KEY%20OF%20B')).toEqual(['bravo'])
    expect(await names('?offset=99')).toEqual([])
  })
})

describe('a gateway without configured clients', () => {
  it('lets nobody call without a key once a client was made, even if that is deleted again', async () => {
    const { gateway } = await setUp({ clients: undefined })
    const open = () => call(gateway.url, '/harness/ng/api/x')
    expect((await open()).status).toBe(200)
    const { id, key } = (await ask(gateway, 'POST', '/clients', { name: 'bot' })).json()
    expect((await open()).status).toBe(401)
    expect(await statusOf(gateway.url, key)).toBe(200)
    await ask(gateway, 'DELETE', `/clients/${id}`)
    expect((await open()).status).toBe(401)
  })
})

describe('the clients of the admin API', () => {
  it('are kept as hashes, in a file for its owner alone, over kill -9', async () => {
    const { config, gateway, upstream } = await setUp()
    await gateway.stop()
    const { store } = config as { store: { dir: string } }
    const first = await startProcess(config)
    const { key } = (await ask(first, 'POST', '/clients', { name: 'bot', key: { label: 'CI' } })).json()
    first.kill('SIGKILL')
    await first.ended
    const file = join(store.dir, 'clients.json')
    expect(statSync(file).mode & 0o777).toBe(0o600)
    for (const name of readdirSync(store.dir, { recursive: true, encoding: 'utf8' })) {
      if (statSync(join(store.dir, name)).isFile())
        expect(readFileSync(join(store.dir, name), 'utf8')).not.toContain(key)
    }
    const second = await startProcess(config)
    expect(await statusOf(second.url, key)).toBe(200)
    expect(upstream.seen).toHaveLength(1)
  })

  it('are those of all instances that share a Redis, at once', async () => {
    const store = stores.Redis()
    const { gateway, config } = await setUp({ store })
    const other = await startGateway(config)
    const { id, key } = (await ask(gateway, 'POST', '/clients', { name: 'bot' })).json()
    await expect.poll(() => statusOf(other.url, key)).toBe(200)
    await ask(other, 'POST', `/clients/${id}/archive`)
    expect(await statusOf(other.url, key)).toBe(401)
    await expect.poll(() => statusOf(gateway.url, key)).toBe(401)
    const redis = new Redis(inject('redisUrl'))
    const kept = await redis.hgetall(`${store.prefix}:clients`)
    await redis.quit()
    expect(Object.keys(kept)).toEqual(['bot'])
    expect(JSON.stringify(kept)).not.toContain(key)
  })

  it('are those of all workers, though the first process has the admin port', async () => {
    const { gateway, config } = await setUp({ store: stores.Redis() })
    await gateway.stop()
    const workers = await startProcess({ ...config, server: { port: 0, workers: 2 } })
    const { id, key } = (await ask(workers, 'POST', '/clients', { name: 'bot' })).json()
    // Each call is a connection of its own, which the workers take in turn.
    const statuses = () => Promise.all([1, 2, 3, 4].map(() => statusOf(workers.url, key)))
    await expect.poll(statuses).toEqual([200, 200, 200, 200])
    await ask(workers, 'DELETE', `/clients/${id}`)
    await expect.poll(statuses).toEqual([401, 401, 401, 401])
  })

  it('may be whose a key is while they can’t be read, so it is not called wrong', async () => {
    const { gateway } = await setUp({ store: { kind: 'redis', url: `redis://127.0.0.1:${await deadPort()}` } })
    const answer = await call(gateway.url, '/harness/ng/api/x', { headers: { 'x-sluice-key': 'perhaps' } })
    expect(answer.status).toBe(503)
    expect(answer.headers['x-sluice-error']).toBe('store_unavailable')
    const detail = expect.stringMatching(/^the clients can’t be read: Redis does not answer \(/)
    expect((await ask(gateway, 'GET', '/clients')).json()).toMatchObject({
      status: 503,
      code: 'STORE_UNAVAILABLE',
      detail,
    })
    expect(await statusOf(gateway.url, 'configured')).not.toBe(401)
  })

  it('have one name each, whoever makes them at the same time', async () => {
    const { gateway, config } = await setUp({ store: stores.Redis() })
    const other = await startGateway(config)
    const made = await Promise.all(
      [gateway, other, gateway, other].map((one) => ask(one, 'POST', '/clients', { name: 'bot' })),
    )
    expect(made.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([201, 409, 409, 409])
  })
})

it('a client that another version stored, and this one does not understand, can be mended', async () => {
  const dir = newFolder()
  const { gateway, config } = await setUp({ store: { dir } })
  expect((await ask(gateway, 'POST', '/clients', { name: 'bot', priority: 'batch' })).status).toBe(201)
  await gateway.stop()
  const file = join(dir, 'clients.json')
  const text = readFileSync(file, 'utf8')
  expect(text).toContain('"batch"')
  writeFileSync(file, text.replace('"batch"', '"urgent"'))
  const next = await startGateway(config)
  await ask(next, 'POST', '/clients/bot/archive')
  const back = () => ask(next, 'POST', '/clients/bot/unarchive')
  expect((await back()).json()).toMatchObject({
    status: 400,
    detail: 'another version stored what this one does not understand: change it first',
    errors: [{ path: 'priority' }],
  })
  const mended = await ask(next, 'PATCH', '/clients/bot', { priority: 'normal' })
  expect([mended.status, mended.json().priority]).toEqual([200, 'normal'])
  expect((await back()).status).toBe(200)
})

it('nobody calls without a key while it is not known whether there are clients, and it is known as soon as they can be read', async () => {
  const dir = newFolder()
  const upstream = await startUpstream()
  const config = harnessConfig(upstream.url, {}, { admin: { port: 0, token: ADMIN_TOKEN }, store: { dir } })
  const first = await startGateway(config)
  expect((await call(first.url, '/harness/ng/api/projects')).status).toBe(200)
  const { key } = (await ask(first, 'POST', '/clients', { name: 'bot' })).json()
  await first.stop()
  const file = join(dir, 'clients.json')
  const text = readFileSync(file, 'utf8')
  writeFileSync(file, text.slice(0, -5))
  const second = await startGateway(config)
  for (const headers of [{}, { 'x-sluice-key': key }]) {
    const { status, headers: answered } = await call(second.url, '/harness/ng/api/projects', { headers })
    expect([status, answered['x-sluice-error']]).toEqual([503, 'store_unavailable'])
  }
  writeFileSync(file, text)
  await expect.poll(() => statusOf(second.url, key)).toBe(200)
  expect((await call(second.url, '/harness/ng/api/projects')).status).toBe(401)
})
