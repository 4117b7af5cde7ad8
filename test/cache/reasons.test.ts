import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parse, stringify } from 'yaml'
import { parseConfig } from '../../src/config/load.ts'
import { warningsOf } from '../../src/config/warnings.ts'
import { counting, startCached } from '../support/cached-gateway.ts'
import { newFolder, startGateway, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { runCommand } from '../support/command-line.ts'

const CREDENTIAL = { accounts: { main: { credential: { type: 'bearer', value: 'token-1' } } } }

describe('Cache-Status says why an answer is not kept', () => {
  it.each<[string, Record<string, string>, Parameters<typeof startCached>[1]]>([
    ['authorization', { 'cache-control': 'max-age=60' }, { upstream: CREDENTIAL }],
    ['private', { 'cache-control': 'private, max-age=60' }, {}],
    ['no-store', { 'cache-control': 'no-store' }, {}],
    ['vary', { 'cache-control': 'max-age=60', vary: '*' }, {}],
    ['set-cookie', { 'cache-control': 'max-age=60', 'set-cookie': 'a=b' }, { cache: { scope: 'account' } }],
    ['no-lifetime', {}, { cache: { staleIfError: '0s' } }],
    [
      'too-large',
      { 'cache-control': 'max-age=60', 'content-length': '2000' },
      { rest: { cache: { maxEntryBytes: 1024 } } },
    ],
  ])('%s', async (detail, headers, options) => {
    const body = 'x'.repeat(Number(headers['content-length'] ?? 8))
    const gateway = await startCached((_, response) => response.writeHead(200, headers).end(body), options)
    expect((await gateway.read()).headers['cache-status']).toBe(`sluice; fwd=uri-miss; detail=${detail}`)
  })

  it.each<[string, string, string]>([
    ['status', 'HTTP/1.1 206 Partial Content', 'Content-Range: bytes 0-0/9\r\nContent-Length: 1'],
    ['status', 'HTTP/1.1 500 Internal Server Error', 'Content-Length: 1'],
    ['no-length', 'HTTP/1.1 200 OK', 'Cache-Control: max-age=60'],
  ])('%s, of %s', async (detail, line, fields) => {
    const gateway = await startCached((_, { socket }) => {
      socket!.end(`${line}\r\n${fields}\r\nConnection: close\r\n\r\nx`)
    })
    expect((await gateway.read()).headers['cache-status']).toBe(`sluice; fwd=uri-miss; detail=${detail}`)
  })

  it.each<[string, Record<string, string>]>([
    ['range', { range: 'bytes=0-1' }],
    ['if-match', { 'if-match': '"x"' }],
    ['no-store', { 'cache-control': 'no-store' }],
  ])('or why the request was not looked for: %s', async (detail, headers) => {
    const gateway = await startCached(counting({ 'cache-control': 'max-age=60' }))
    expect((await gateway.read(headers)).headers['cache-status']).toBe(`sluice; fwd=bypass; detail=${detail}`)
  })

  it('and nothing where it is kept', async () => {
    const gateway = await startCached(counting({}), { upstream: CREDENTIAL, cache: { private: true, freshFor: '10s' } })
    expect((await gateway.read()).headers['cache-status']).toBe('sluice; fwd=uri-miss; stored')
    expect((await gateway.read()).headers['cache-status']).toBe('sluice; hit; ttl=10')
  })
})

describe('the example of the documentation', () => {
  const text = readFileSync(new URL('../../docs/cache.md', import.meta.url), 'utf8').split('```')[1]!
  const example = parse(text.slice(text.indexOf('\n'))) as {
    cache: object
    upstreams: { tickets: object; github: object }
  }
  const accounts = { main: { credential: { value: 'Bearer token-1' } } }

  it('caches with a credential in Authorization', async () => {
    const upstream = await startUpstream((_, response) => response.end('{}'))
    const tickets = { url: upstream.url, accounts, limits: { read: [] }, ...example.upstreams.tickets }
    const gateway = await startGateway({
      server: { port: 0 },
      admin: { port: 0 },
      store: { dir: newFolder() },
      cache: example.cache,
      upstreams: { tickets },
    })
    await call(gateway.url, '/tickets/projects')
    expect((await call(gateway.url, '/tickets/projects')).headers['cache-status']).toMatch(/^sluice; hit; ttl=\d+$/)
    expect(upstream.seen).toHaveLength(1)
  })

  it('is not warned of', () => {
    const config = {
      ...example,
      upstreams: {
        tickets: { url: 'https://tickets.example', accounts, limits: { read: [] }, ...example.upstreams.tickets },
        github: { ...example.upstreams.github, accounts },
      },
    }
    expect(warningsOf(parseConfig(stringify(config), {}))).toEqual([])
  })
})

describe('a cached route whose credential travels in Authorization', () => {
  const withRoute = (upstream: object, credential: object): string =>
    stringify({
      upstreams: {
        api: {
          url: 'https://api.example',
          accounts: { main: { id: 'AbCdEf', credential } },
          limits: { read: [] },
          ...upstream,
        },
      },
    })
  const MARKED = { routes: [{ path: '/items', class: 'read', cache: true }] }
  const HEADER = { value: 'Bearer token-1' }
  const WARNED = /^upstreams\.api\.(routes\[0\]\.cache|cache\.routes) keeps hardly anything: .*private: true/

  it.each<[string, object, object]>([
    ['in the header', MARKED, HEADER],
    ['as bearer', MARKED, { type: 'bearer', value: 'x' }],
    ['as basic', MARKED, { type: 'basic', username: 'x', password: 'x' }],
    [
      'as bearer of a route',
      { routes: [{ path: '/items', class: 'read', cache: true, credential: 'bearer' }] },
      { header: 'x-api-key', value: 'x' },
    ],
    ['with settings of its own', { routes: [{ path: '/items', class: 'read', cache: { freshFor: '10s' } }] }, HEADER],
    ['with settings of its upstream', { ...MARKED, cache: { scope: 'account' } }, HEADER],
    ['that a preset proposes', { preset: 'harness', cache: { routes: 'proposed' } }, { type: 'bearer', value: 'x' }],
  ])('is warned of, because it keeps hardly anything: %s', (_, upstream, credential) => {
    const warnings = warningsOf(parseConfig(withRoute(upstream, credential), {}))
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toMatch(WARNED)
  })

  it.each<[string, object, object]>([
    ['it is private', { ...MARKED, cache: { private: true } }, HEADER],
    ['it is meant', { ...MARKED, cache: { private: false } }, HEADER],
    ['another header carries it', MARKED, { header: 'x-api-key', value: 'x' }],
    ['the query carries it', MARKED, { type: 'query', parameter: 'key', value: 'x' }],
    ['it gets none', { routes: [{ path: '/items', class: 'read', cache: true, credential: 'none' }] }, HEADER],
    ['it is not cached', { routes: [{ path: '/items', class: 'read', cache: false }] }, HEADER],
    ['the preset knows better', { preset: 'github', cache: { routes: 'proposed' } }, HEADER],
  ])('is not warned of where %s', (_, upstream, credential) => {
    expect(warningsOf(parseConfig(withRoute(upstream, credential), {}))).toEqual([])
  })

  it('is explained, and so is one that is kept', async () => {
    const cwd = newFolder()
    const explained = async (method: string, upstream: object): Promise<string> => {
      writeFileSync(join(cwd, 'sluice.yaml'), withRoute({ ...MARKED, ...upstream }, HEADER))
      const { stdout } = await runCommand(['explain', method, '/api/items'], { cwd })
      return /^cache +(.*)$/m.exec(stdout)![1]!
    }
    expect(await explained('GET', {})).toBe(
      'for the client, fresh as long as the answer says; only if it says public, s-maxage or must-revalidate, without private: true, as the credential travels in Authorization',
    )
    expect(await explained('GET', { cache: { private: true, freshFor: '10s', scope: 'account' } })).toBe(
      'for all clients of the account, fresh 10s unless the answer says otherwise',
    )
    expect(await explained('POST', {})).toBe('no')
    const { stdout } = await runCommand(['explain', '--json', 'GET', '/api/items'], { cwd })
    expect(JSON.parse(stdout)).toMatchObject({ cache: { scope: 'client', freshForMs: 0, keeps: 'only-public' } })
  })
})
