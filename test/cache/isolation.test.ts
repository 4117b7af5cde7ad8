import { describe, expect, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { caches, startCached } from '../support/cached-gateway.ts'
import { startGateway, startServer } from '../support/gateway.ts'
import { call } from '../support/http.ts'

type Kind = keyof typeof caches
const KEYS = { a: 'slk_a', b: 'slk_b' }
const clients = Object.fromEntries(Object.entries(KEYS).map(([name, key]) => [name, { keys: [hashKey(key)] }]))
const FRESH = { 'cache-control': 'max-age=60' }
const accounts = {
  one: { id: 'id-one', credential: { header: 'x-api-key', value: 'vendor-one' } },
  two: { id: 'id-two', credential: { header: 'x-api-key', value: 'vendor-two' } },
}

describe.each(Object.keys(caches) as Kind[])('answers that are kept in %s', (kind) => {
  /** An upstream that answers with whom it takes the call for, and what it was asked. */
  const start = (cache: object = {}) =>
    startCached(
      ({ url, headers }, response, count) =>
        response.writeHead(200, FRESH).end([count, headers['x-api-key'], headers['x-for'], url].join(' ')),
      { kind, cache, upstream: { accounts, credentialHeader: 'x-api-key', scrub: false }, rest: { clients } },
    )

  it('never reach another client, whatever it sends', async () => {
    const gateway = await start()
    const path = '/items/1?page=1'
    const own = await gateway.read({ 'x-sluice-key': KEYS.a, 'x-sluice-account': 'one', 'x-for': 'a' }, path)
    expect(own.body).toBe('1 vendor-one a /items/1?page=1')
    const attempts: [string, Record<string, string>][] = [
      [path, {}],
      [path, { 'cache-control': 'only-if-cached' }],
      [path, { 'cache-control': 'max-stale' }],
      [path, { 'x-sluice-client': 'a', 'x-client': 'a', cookie: 'sluice-client=a' }],
      [path, { 'x-api-key': KEYS.b, 'x-sluice-key': KEYS.b }],
      ['/items/1?page=1&client=a', {}],
      ['//items/1?page=1', {}],
      ['/items/1%3Fpage=1', {}],
      ['/./items/1?page=1', {}],
    ]
    for (const [at, headers] of attempts) {
      const answer = await gateway.read(
        { 'x-sluice-key': KEYS.b, 'x-sluice-account': 'one', 'x-for': 'b', ...headers },
        at,
      )
      if (answer.status === 200) expect(answer.body).toContain(' b ')
      expect(answer.body).not.toContain(' a ')
    }
    // And what the other one was given is not taken for the first one's.
    expect((await gateway.read({ 'x-sluice-key': KEYS.a, 'x-sluice-account': 'one' }, path)).body).toBe(own.body)
  })

  it('never reach another account, not even for the same client and with a scope of accounts', async () => {
    for (const cache of [{}, { scope: 'account' }]) {
      const gateway = await start(cache)
      for (const account of ['one', 'two']) {
        for (let i = 0; i < 2; i++) {
          const { body } = await gateway.read({ 'x-sluice-key': KEYS.a, 'x-sluice-account': account })
          expect(body).toContain(`vendor-${account}`)
        }
      }
      expect(gateway.upstream.seen).toHaveLength(2)
    }
  })

  it('are shared by the clients of an account where that is wished, and only by those', async () => {
    const gateway = await startCached((_, response, count) => response.writeHead(200, FRESH).end(`answer ${count}`), {
      kind,
      cache: { scope: 'account' },
      upstream: { accounts, credentialHeader: 'x-api-key' },
      rest: {
        clients: {
          a: { keys: [hashKey(KEYS.a)], accounts: ['api/one'] },
          b: { keys: [hashKey(KEYS.b)], accounts: ['api/one'] },
          c: { keys: [hashKey('slk_c')], accounts: ['api/two'] },
          d: { keys: [hashKey('slk_d')], accounts: ['api/one'], classes: ['write'] },
        },
      },
    })
    const bodyFor = async (key: string) => (await gateway.read({ 'x-sluice-key': key })).body
    expect(await bodyFor(KEYS.a)).toBe('answer 1')
    expect(await bodyFor(KEYS.b)).toBe('answer 1')
    expect(await bodyFor('slk_c')).toBe('answer 2')
    expect((await gateway.read({ 'x-sluice-key': 'slk_d' })).status).toBe(403)
    expect((await gateway.read({ 'x-sluice-key': 'slk_nobody' })).status).toBe(401)
  })

  it('are not waited for by another client', async () => {
    const gateway = await startCached(() => undefined, {
      kind,
      rest: { clients },
      upstream: { timeouts: { headers: '1s' } },
    })
    const reads = Object.values(KEYS).map((key) => gateway.read({ 'x-sluice-key': key }))
    await expect.poll(() => gateway.upstream.seen).toHaveLength(2)
    await gateway.clock.advance(1_000)
    await Promise.all(reads)
  })

  it('are ended for every client of the account by a write of one of them', async () => {
    const gateway = await start()
    const readAs = (key: string, account: string) => gateway.read({ 'x-sluice-key': key, 'x-sluice-account': account })
    const before = await Promise.all([readAs(KEYS.a, 'one'), readAs(KEYS.b, 'one'), readAs(KEYS.a, 'two')])
    await gateway.read({ 'x-sluice-key': KEYS.b, 'x-sluice-account': 'one' }, '/items/1', { method: 'PUT', body: 'x' })
    const after = await Promise.all([readAs(KEYS.a, 'one'), readAs(KEYS.b, 'one'), readAs(KEYS.a, 'two')])
    expect(after.map(({ body }, i) => body === before[i]!.body)).toEqual([false, false, true])
  })

  it('that set a cookie are kept for the one client only, also if they are public', async () => {
    for (const [scope, control, isKept] of [
      ['client', 'max-age=60', true],
      ['account', 'max-age=60', false],
      ['account', 'public, max-age=60', false],
    ] as const) {
      const gateway = await startCached(
        (_, response) => response.writeHead(200, { 'cache-control': control, 'set-cookie': ['a=1', 'b=2'] }).end(),
        { kind, cache: { scope } },
      )
      await gateway.read()
      const { headers } = await gateway.read()
      expect(headers['set-cookie']).toEqual(['a=1', 'b=2'])
      expect(gateway.upstream.seen, `${scope} ${control}`).toHaveLength(isKept ? 1 : 2)
    }
  })

  it('that are private, or to an account that is proven by Authorization, are kept only where that is wished', async () => {
    const bearer = { main: { credential: { type: 'bearer', value: 'token' } } }
    const keyed = { main: { credential: { header: 'x-api-key', value: 'key' } } }
    for (const [isWished, of, control, isKept] of [
      [false, keyed, 'private, max-age=60', false],
      [true, keyed, 'private, max-age=60', true],
      [false, bearer, 'max-age=60', false],
      [true, bearer, 'max-age=60', true],
      [false, bearer, 'public, max-age=60', true],
      [false, bearer, 's-maxage=60', true],
      [true, bearer, 'no-store, max-age=60', false],
    ] as const) {
      const gateway = await startCached((_, response) => response.writeHead(200, { 'cache-control': control }).end(), {
        kind,
        cache: { private: isWished },
        upstream: { accounts: of },
      })
      await gateway.read()
      await gateway.read()
      expect(gateway.upstream.seen, `${isWished} ${control}`).toHaveLength(isKept ? 1 : 2)
    }
  })

  it('are apart for everybody whom the fields of a client name to the upstream', async () => {
    const account = { credential: { header: 'x-api-key', value: 'vendor-one' } }
    for (const cache of [{ private: true }, { scope: 'account' }]) {
      const gateway = await startCached(
        ({ headers }, response) =>
          response.writeHead(200, { 'cache-control': cache.private ? 'private, max-age=60' : 'max-age=60' }).end(
            headers['x-tells']
              ?.toString()
              .split(' ')
              .map((name) => headers[name])
              .join(),
          ),
        {
          kind,
          cache,
          upstream: {
            accounts: { main: account },
            accountHeader: 'X-Vendor-Unit',
            accountClaims: { headers: ['x-claimed'] },
            forward: ['client'],
          },
        },
      )
      const names = ['x-vendor-unit', 'x-claimed', 'cookie', 'private-token', 'openai-organization', 'x-scope-orgid']
      names.push('stripe-account', 'impersonate-user', 'from', 'sudo', 'x-auth-request-user')
      for (const name of names) {
        const readAs = (value: string) => gateway.read({ [name]: value, 'x-tells': name }, `/items/${name}`)
        for (const value of ['alice', 'bob']) expect((await readAs(value)).body, name).toBe(value)
        expect((await readAs('alice')).headers['cache-status'], name).toMatch(/; hit/)
        // Whoever names nobody gets nobody's.
        expect((await gateway.read({ 'x-tells': name }, `/items/${name}`)).body).toBe('')
        // A write ends them all.
        await gateway.read({}, `/items/${name}`, { method: 'PUT', body: 'x' })
        expect((await readAs('alice')).headers['cache-status'], name).not.toMatch(/; hit/)
      }
    }
  })

  it('are apart for the names by which clients call the gateway, where the upstream is told', async () => {
    const gateway = await startCached(
      ({ headers }, response) => response.writeHead(200, FRESH).end(headers['x-forwarded-host']),
      { kind, cache: { scope: 'account' }, upstream: { forward: ['client'] } },
    )
    for (const name of ['evil.example', 'gw.example', 'evil.example'])
      expect((await gateway.read({ 'x-forwarded-host': name })).body).toBe(name)
    expect(gateway.upstream.seen).toHaveLength(2)
  })

  it('are not apart for what names nobody, or does not go upstream', async () => {
    const gateway = await start({ private: true })
    const as = { 'x-sluice-key': KEYS.a, 'x-sluice-account': 'one' }
    await gateway.read(as)
    const said = { 'user-agent': 'b', 'idempotency-key': 'c', accept: 'd', 'x-forge-id': 'e' }
    const dropped = { authorization: 'Bearer f', cookie: 'sluice-x=g', 'x-auth-request-user': 'h', 'x-api-key': 'i' }
    await gateway.read({ ...as, ...said, ...dropped })
    expect(gateway.upstream.seen).toHaveLength(1)
  })

  it('are not waited for by whom another field names', async () => {
    const gateway = await startCached(
      ({ headers }, response, count) => {
        if (count === 2) response.writeHead(200, FRESH).end(headers['x-vendor-unit'])
      },
      { kind, upstream: { accountHeader: 'X-Vendor-Unit', timeouts: { headers: '1s' } } },
    )
    const first = gateway.read({ 'x-vendor-unit': 'A' })
    await expect.poll(() => gateway.upstream.seen).toHaveLength(1)
    expect((await gateway.read({ 'x-vendor-unit': 'B' })).body).toBe('B')
    await gateway.clock.advance(1_000)
    await first
  })

  it('never reach the account that a reload puts in the place of another', async () => {
    const url = await startServer((request, response) =>
      response.writeHead(200, FRESH).end(request.headers['x-vendor-unit']),
    )
    const configOf = (id: string) => ({
      server: { port: 0 },
      admin: { port: 0 },
      ...caches[kind](),
      upstreams: {
        api: {
          url,
          accountHeader: 'X-Vendor-Unit',
          accounts: { main: { id } },
          limits: { read: [] },
          routes: [{ path: '/items', class: 'read', cache: true }],
        },
      },
    })
    const before = configOf('A')
    const gateway = await startGateway(before)
    expect((await call(gateway.url, '/api/items')).body).toBe('A')
    await gateway.reloadWith({ ...configOf('B'), store: before.store, cache: before.cache })
    expect((await call(gateway.url, '/api/items')).body).toBe('B')
  })

  it('do not come back from before a write when a reload turns the cache off, and another one on', async () => {
    let item = 'old'
    const url = await startServer((request, response) => {
      if (request.method === 'PUT') item = 'new'
      response.writeHead(200, FRESH).end(item)
    })
    const services = caches[kind]()
    const configOf = (cache: boolean) => ({
      server: { port: 0 },
      admin: { port: 0 },
      ...services,
      upstreams: {
        api: {
          url,
          accounts: { main: {} },
          limits: { read: [], write: [] },
          routes: [{ method: 'GET', path: '/items', class: 'read', cache }],
        },
      },
    })
    const gateway = await startGateway(configOf(true))
    const read = async () => (await call(gateway.url, '/api/items')).body
    expect(await read()).toBe('old')
    await gateway.reloadWith(configOf(false))
    await call(gateway.url, '/api/items', { method: 'PUT' })
    expect(await read()).toBe('new')
    await gateway.reloadWith(configOf(true))
    expect(await read()).toBe('new')
  })
})
