import { once } from 'node:events'
import { connect, type IncomingHttpHeaders } from 'node:http2'
import { expect, it, onTestFinished } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { harnessConfig, newFolder, startGateway, startUpstream } from '../support/gateway.ts'
import { RawClient } from '../support/http.ts'

/** Ways to write `/admin/x` that some server takes for it. */
const ADMIN = [
  '/admin/x',
  '/%61dmin/x',
  '//admin/x',
  '/admin;a=b/x',
  '/admin%2Fx',
  '/admin%2fx',
  '/%2Fadmin%2Fx',
  '/admin%5Cx',
  '/admin\\x',
  '/\\admin/x',
  '/admin%252Fx',
  '/admin%25252fx',
  '/%2561dmin/x',
  '/admin%3Ba=b/x',
  '/admin%253Ba=b%252Fx',
  '/admin;a%2Fb/x',
  '/./admin%2F.%2Fx',
  '/%2e%2Fadmin/x',
  '/open/%252e%252e/admin/x',
  '/admin%25C0%25AFx',
  '/admin/x%3Fy',
  '/admin%2Fx%2523y',
]
/** And `/admin`, where what is handed on decoded ends. */
const ENDED = ['/admin%3Fx', '/admin%253Fx', '/admin%23x', '/admin%2523x', '/admin%2500x']
const OPEN = [
  '/open',
  '/open/a%2Fb',
  '/open/a%252Fb',
  '/open/a;b=c',
  '/administration',
  '/ad%2Fmin',
  '/open/100%25',
  '/open/%C3%A4',
]
const BAD = [
  '/admin%C0%AFx',
  '/open/%E9',
  '/admin%00',
  '/admin%00/x',
  '/open/..%2Fadmin',
  '/open%2F..%2Fadmin',
  '/open/..;/admin',
]

const CLIENTS = {
  blocked: { keys: [hashKey('blocked')], networkAccess: { blocked: ['${url}/admin'] } },
  allowed: {
    keys: [hashKey('allowed')],
    networkAccess: { allowed: ['${url}/open', '${url}/administration', '${url}/ad'] },
  },
  paths: { keys: [hashKey('paths')], paths: ['/open/*', '/administration', '/ad%2Fmin'] },
  classes: { keys: [hashKey('classes')], classes: ['read'] },
  anything: { keys: [hashKey('anything')] },
}

async function setUp() {
  const upstream = await startUpstream()
  const clients = JSON.parse(JSON.stringify(CLIENTS).replaceAll('${url}', upstream.url)) as object
  const gateway = await startGateway({
    server: { port: 0 },
    admin: { port: 0 },
    store: { dir: newFolder() },
    upstreams: {
      api: {
        url: upstream.url,
        accounts: { main: { credential: { header: 'x-vendor', value: 'secret-of-the-vendor' } } },
        limits: { read: [], admin: [] },
        routes: [
          { path: '/*', class: 'read' },
          { path: '/admin/*', class: 'admin' },
        ],
      },
    },
    clients,
  })
  const ask = async (path: string, key: string): Promise<string> => {
    const client = await RawClient.connect(gateway.url)
    client.write(`GET /api${path} HTTP/1.1\r\nHost: gateway\r\nX-Sluice-Key: ${key}\r\nConnection: close\r\n\r\n`)
    const [head = ''] = (await client.closed()).split('\r\n\r\n')
    return `${head.slice(9, 12)} ${/x-sluice-error: (\w+)/i.exec(head)?.[1] ?? 'ok'}`
  }
  return { upstream, gateway, ask }
}

it('holds access lists, paths and classes of clients to what a path means, however it is escaped', async () => {
  const { upstream, gateway, ask } = await setUp()
  for (const key of ['blocked', 'allowed', 'paths', 'classes']) {
    // A class is of what is below /admin.
    const refused = key === 'classes' ? ADMIN : [...ADMIN, ...ENDED]
    for (const path of refused) expect(await ask(path, key), `${key} ${path}`).toBe('403 forbidden')
    expect(upstream.seen, key).toEqual([])
    for (const path of OPEN) {
      if (key === 'allowed' && path === '/ad%2Fmin') continue // as it is written it is not below /ad
      expect(await ask(path, key), `${key} ${path}`).toBe('200 ok')
    }
    expect(upstream.seen.splice(0).length, key).toBeGreaterThan(6)
  }
  expect(gateway.lines.some(({ outcome }) => outcome === 'internal')).toBe(false)
})

it('classes a path alike however it is escaped, and sends it on as it came', async () => {
  const { upstream, gateway, ask } = await setUp()
  for (const path of [...ADMIN, ...OPEN]) expect(await ask(path, 'anything'), path).toBe('200 ok')
  expect(upstream.seen.map(({ url }) => url)).toEqual([...ADMIN, ...OPEN])
  expect(gateway.lines.map((line) => line.class)).toEqual([...ADMIN.map(() => 'admin'), ...OPEN.map(() => 'read')])
})

it('refuses paths that are no text, that climb, or that some servers would end early', async () => {
  const { upstream, ask } = await setUp()
  for (const path of BAD) expect(await ask(path, 'anything'), path).toBe('400 invalid_request')
  expect(upstream.seen).toEqual([])
})

it('refuses bytes of HTTP/2 that are a slash or a dot to lenient servers, however they are written', async () => {
  const upstream = await startUpstream()
  const gateway = await startGateway({
    server: { port: 0, http2: true },
    admin: { port: 0 },
    store: { dir: newFolder() },
    upstreams: { api: { url: upstream.url, accounts: { main: {} }, limits: { read: [] } } },
    clients: { one: { keys: [hashKey('one')], paths: ['/open/{name}'] } },
  })
  const session = connect(gateway.url)
  onTestFinished(() => session.destroy())
  const ask = async (path: string) => {
    const stream = session.request({ ':path': `/api${path}`, 'x-sluice-key': 'one' })
    const [headers] = (await once(stream, 'response')) as [IncomingHttpHeaders]
    stream.resume()
    return headers['x-sluice-error'] ?? 'ok'
  }
  for (const path of [
    '/open/a\xc0\xaf..\xc0\xafadmin',
    '/open/\xc0\xae\xc0\xae',
    '/open/\xe0\x80\xafx',
    '/open/\xf0\x80\x80\xaf',
  ])
    expect(await ask(path), path).toBe('invalid_request')
  expect(upstream.seen).toEqual([])
  expect(await ask('/open/%C3%A4')).toBe('ok')
})

it('keeps the token in a webhook’s path out of the log, and other accounts out of the path, however its slashes are escaped', async () => {
  const upstream = await startUpstream()
  const gateway = await startGateway(harnessConfig(upstream.url))
  const ask = async (path: string, method: string): Promise<string> => {
    const client = await RawClient.connect(gateway.url)
    client.write(`${method} /harness${path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`)
    return (await client.closed()).slice(9, 12)
  }
  for (const path of ['/webhook/custom/hush/v3', '/webhook%2Fcustom%2Fhush/v3', '/webhook/custom%2Fhush%2Fv3']) {
    expect(await ask(`/pipeline/api${path}`, 'POST'), path).toBe('200')
  }
  expect(upstream.seen.map(({ headers }) => headers['x-api-key'])).toEqual([undefined, undefined, undefined])
  expect(gateway.lines.map((line) => line.class)).toEqual(['webhook', 'webhook', 'webhook'])
  expect(JSON.stringify(gateway.lines)).not.toContain('hush')
  expect(await ask('/ng/api%2Faccounts%2Fother', 'GET')).toBe('403')
  expect(gateway.lines.at(-1)).toMatchObject({ outcome: 'account_mismatch' })
})
