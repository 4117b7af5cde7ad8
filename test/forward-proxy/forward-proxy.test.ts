import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect as connectHttp2 } from 'node:http2'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { promisify } from 'node:util'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { toolEnvironment } from '../../src/cli/tool-environment.ts'
import { hashKey } from '../../src/clients/keys.ts'
import { checkConfig } from '../../src/config/load.ts'
import { warningsOf } from '../../src/config/warnings.ts'
import {
  askTunnel,
  basic,
  type ForwardProxyWorld,
  KEYS,
  openWorld,
  OTHER,
  removeCertificates,
  tlsIn,
  VENDOR,
  VENDOR_KEY,
} from '../support/forward-proxy.ts'
import { startGateway, startServer, startUpstream } from '../support/gateway.ts'
import { call, RawClient } from '../support/http.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { hasProgram } from '../support/packages.ts'

/** With clients, and with no private address allowed. */
let world: ForwardProxyWorld
/** Without clients, where tunnels may lead to the other host, which is at a private address. */
let open: ForwardProxyWorld
const { path: folder, remove } = temporaryFolder('forward-proxy')
beforeAll(async () => {
  world = await openWorld()
  open = await openWorld((otherPort) => ({
    clients: undefined,
    forwardProxy: {
      port: 0,
      ca: join(folder, 'open-ca'),
      ports: [443, otherPort],
      maxTunnels: 20,
      networkAccess: { allowed: [OTHER, 'rebind.example', '127.0.0.1'] },
    },
  }))
})
afterAll(async () => {
  await Promise.all([world.close(), open.close()])
  removeCertificates()
  remove()
})

const run = promisify(execFile)
const caOf = ({ ca }: ForwardProxyWorld): string => readFileSync(join(ca, 'ca.pem'), 'utf8')

/** Sends it in a tunnel to the vendor, inside TLS, and returns all that came when the connection is closed, or matches. */
async function inTunnel(
  request: string,
  until = /\r\n\r\n/,
  key: string | undefined = KEYS.tool,
  at = world,
): Promise<string> {
  const secure = await vendorTls(at, key)
  let text = ''
  secure.on('data', (chunk) => void (text += String(chunk)))
  secure.write(request, 'latin1')
  while (!until.test(text) && !secure.destroyed) {
    await Promise.race([once(secure, 'data'), once(secure, 'close')]).catch(() => undefined)
  }
  secure.destroy()
  return text
}

async function vendorTls(at: ForwardProxyWorld, key?: string, options: object = {}): Promise<TLSSocket> {
  const client = await askTunnel(at.proxyUrl, at.vendor, key)
  expect(client.received).toBe('HTTP/1.1 200 Connection Established\r\n\r\n')
  return tlsIn(client, { servername: VENDOR, ca: caOf(at), ...options })
}

describe('a tunnel to an upstream', () => {
  it.each(['1.1', '2'])('serves calls of HTTP/%s like those of any client: credential, quota, log', async (version) => {
    const file = join(world.ca, 'ca.pem')
    const authorization = ['-H', 'authorization: Bearer dummy', '-w', '%{http_version}']
    const args = ['-sS', `--http${version}`, '--cacert', file, '-x', world.proxyFor(KEYS.tool), ...authorization]
    const { stdout } = await run('curl', [...args, '-d', 'x=1', '-D', '-', `https://${world.vendor}/v2/items?a=b`])
    expect(stdout).toContain(`"url":"/v2/items?a=b","body":"x=1"}${version}`)
    expect(stdout).toMatch(/^ratelimit: "write";r=\d+;t=\d+$/im)
    // Its client goes to where the upstream's links lead.
    expect(stdout).toContain(`link: <https://${world.vendor}/v2/items?page=2>; rel="next"`)
    const { method, headers } = world.seen.at(-1)!
    expect(method).toBe('POST')
    expect(headers).toMatchObject({ authorization: `Bearer ${VENDOR_KEY}` })
    expect(headers).not.toHaveProperty('proxy-authorization')
    const about = { client: 'tool', upstream: 'vendor', class: 'write', path: '/v2/items', outcome: 'delivered' }
    expect(world.lines.at(-1)).toMatchObject(about)
  })

  it('judges the key for each call: those in a tunnel are refused once it is revoked', async () => {
    const upstream = await startUpstream()
    const configOf = (key: string): object => ({
      server: { port: 0 },
      admin: { port: 0 },
      store: { dir: join(folder, 'revoked') },
      forwardProxy: { port: 0, ca: join(folder, 'revoked-ca') },
      upstreams: { vendor: { url: upstream.url, accounts: { main: {} }, limits: {} } },
      clients: { tool: { keys: [hashKey(key)] } },
    })
    const gateway = await startGateway(configOf(KEYS.tool))
    const { host } = new URL(upstream.url)
    const client = await askTunnel(gateway.forwardProxyUrl!, host, KEYS.tool)
    client.write(`GET /first HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
    await client.until(/HTTP\/1\.1 200 OK/)
    await gateway.reloadWith(configOf('slk_another'))
    client.write(`GET /second HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
    await client.until(/HTTP\/1\.1 407 /)
    expect(upstream.seen.map(({ url }) => url)).toEqual(['/first'])
    client.socket.destroy()
  })

  it('is to a host and a port: another port of the same host is another host', async () => {
    const client = await askTunnel(world.proxyUrl, `${VENDOR}:8443`, KEYS.tool)
    expect(client.received).toMatch(/^HTTP\/1\.1 403 /)
  })

  it('is counted', async () => {
    expect(await world.metrics()).toMatch(/^sluice_tunnels_total\{kind="intercepted"\} [1-9]/m)
  })
})

describe('plain HTTP to the port', () => {
  it('serves whole URLs of an upstream, and no others', async () => {
    const headers = { 'proxy-authorization': basic(KEYS.tool), host: world.vendor }
    const served = await call(world.proxyUrl, `https://${world.vendor}/v2/plain`, { headers })
    expect(served.json()).toMatchObject({ url: '/v2/plain' })
    expect(world.seen.at(-1)!.headers).not.toHaveProperty('proxy-authorization')
    const foreign = await call(world.proxyUrl, 'http://other.example/x', { headers })
    expect(foreign).toMatchObject({ status: 403 })
    expect(foreign.json().message).toMatch(/no upstream's, and plain HTTP to other hosts is not forwarded/)
    const path = await call(world.proxyUrl, '/vendor/v2/x', { headers })
    expect(path.json().message).toMatch(/this port is a forward proxy/)
  })

  it('serves nothing above the path of an upstream', async () => {
    const headers = { 'proxy-authorization': basic(KEYS.tool) }
    for (const path of ['/', '/v3/x', '/v2x', '/v2/../v3', '/v2/%2e%2e/v3', '//v2/x']) {
      const answer = await call(world.proxyUrl, `https://${world.vendor}${path}`, { headers })
      expect(answer.status, path).toBe(/\.|%2e/.test(path) ? 400 : 404)
    }
  })
})

describe('proxy credentials', () => {
  it.each([
    ['none', undefined, /no proxy credentials/],
    ['a wrong key', 'slk_wrong', /unknown client key/],
    ['those of the vendor', VENDOR_KEY, /unknown client key/],
  ])('%s are refused with 407 and a text', async (_, key, why) => {
    const client = await askTunnel(world.proxyUrl, world.vendor, key)
    const text = await client.closed()
    expect(text).toMatch(/^HTTP\/1\.1 407 Proxy Authentication Required\r\n/)
    expect(text).toMatch(/\r\nProxy-Authenticate: Basic realm="sluice"\r\n/)
    expect(text).toMatch(/\r\nX-Sluice-Error: proxy_unauthenticated\r\n/)
    expect(text).toMatch(why)
    expect(world.lines.at(-1)).toMatchObject({
      method: 'CONNECT',
      path: world.vendor,
      outcome: 'proxy_unauthenticated',
    })
    if (key !== undefined) expect(text + JSON.stringify(world.lines)).not.toContain(key)
  })

  it('of a client are those of the tunnel: a key inside is the vendor’s, and is not looked at', async () => {
    const request = `GET /v2/x HTTP/1.1\r\nHost: ${world.vendor}\r\nX-Sluice-Key: wrong\r\nProxy-Authorization: Basic wrong\r\n\r\n`
    expect(await inTunnel(request)).toMatch(/^HTTP\/1\.1 200/)
    expect(JSON.stringify(world.seen.at(-1)!.headers)).not.toContain('wrong')
  })
})

/** CONNECT to it is refused, with this text. */
const CLOSED: [authority: string, why: RegExp, status?: number][] = [
  ['127.0.0.1:443', /no address that may be reached/],
  ['localhost:443', /no address that may be reached|unreachable/],
  ['[::1]:443', /no address that may be reached/],
  ['0.0.0.0:443', /no address that may be reached/],
  ['10.0.0.1:443', /no address that may be reached/],
  ['169.254.169.254:443', /no address that may be reached/],
  ['169.254.169.254:80', /forwardProxy\.ports has only 443/],
  ['metadata.example:443', /no address that may be reached/],
  ['[fd00:ec2::254]:443', /no address that may be reached/],
  ['[::ffff:127.0.0.1]:443', /no address that may be reached/],
  ['[::ffff:169.254.169.254]:443', /no address that may be reached/],
  ['[::ffff:a9fe:a9fe]:443', /no address that may be reached/],
  ['[64:ff9b::7f00:1]:443', /no address that may be reached/],
  ['2130706433:443', /no address that may be reached/],
  ['0x7f000001:443', /no address that may be reached/],
  ['0x7f.1:443', /no address that may be reached/],
  ['0177.0.0.1:443', /no address that may be reached/],
  ['127.1:443', /no address that may be reached/],
  ['private.example:443', /no address that may be reached/],
  ['mapped.example:443', /no address that may be reached/],
  ['blocked.example:443', /the network access lists do not allow/],
  ['BLOCKED.example.:443', /the network access lists do not allow/],
  ['partly.example:443', /the network access lists do not allow/],
  ['public.example:22', /forwardProxy\.ports has only 443/],
  ['public.example:25', /forwardProxy\.ports has only 443/],
  ['public.example', /no address that may be reached/],
  ['user@public.example:443', /CONNECT names a host and a port/, 400],
  ['public.example:443/path', /CONNECT names a host and a port/, 400],
  ['public.example:port', /CONNECT names a host and a port/, 400],
  ['public.example..:443', /CONNECT names a host and a port/, 400],
  ['.public.example:443', /CONNECT names a host and a port/, 400],
  ['public%2eexample:443', /CONNECT names a host and a port/, 400],
]

describe('CONNECT', () => {
  for (const [authority, why, status = 403] of CLOSED)
    it(`to ${authority} is refused`, async () => {
      for (const [name, address] of Object.entries({
        localhost: '127.0.0.1',
        'metadata.example': '169.254.169.254',
        'private.example': '192.168.1.1',
        'mapped.example': '::ffff:10.0.0.1',
        'public.example': '10.1.1.1',
        'partly.example': '127.0.0.1',
      }))
        world.addresses.set(name, address)
      const text = await (await askTunnel(world.proxyUrl, authority, KEYS.tool)).closed()
      // What Node's parser takes for no request at all is refused as such.
      expect(text).toMatch(new RegExp(`^HTTP/1\\.1 (?:${status}|400) `))
      if (!text.includes('not a well-formed')) expect(text).toMatch(why)
      const [, id] = /X-Correlation-Id: (\S+)/.exec(text) ?? []
      expect(world.lines.at(-1)).toMatchObject({ correlationId: id, status: expect.stringMatching(/^40[03]$/) })
    })

  it('is refused to a client whose own list does not have the host', async () => {
    const text = await (await askTunnel(world.proxyUrl, 'public.example:443', KEYS.narrow)).closed()
    expect(text).toMatch(/^HTTP\/1\.1 403 [^]*the network access lists do not allow/)
  })

  it('in HTTP/2, and in a tunnel, is refused', async () => {
    const nested = await inTunnel(
      `CONNECT ${world.vendor} HTTP/1.1\r\nHost: ${world.vendor}\r\nProxy-Authorization: ${basic(KEYS.tool)}\r\n\r\n`,
    )
    expect(nested).toMatch(/^HTTP\/1\.1 400 /)
    const secure = await vendorTls(world, KEYS.tool, { ALPNProtocols: ['h2'] })
    const session = connectHttp2(`https://${world.vendor}`, { createConnection: () => secure })
    const stream = session.request({ ':method': 'CONNECT', ':authority': world.vendor })
    const [headers] = await once(stream, 'response')
    expect(headers[':status']).toBe(400)
    session.destroy()
  })
})

describe('inside a tunnel', () => {
  const GET = `GET /v2/x HTTP/1.1\r\n`
  /** Refused, each of them, before anything goes to the vendor. */
  const SMUGGLED: Record<string, string> = {
    'another Host': `${GET}Host: other.example\r\n\r\n`,
    'the same Host at another port': `${GET}Host: ${VENDOR}:1\r\n\r\n`,
    'two Hosts': `${GET}Host: VENDOR\r\nHost: other.example\r\n\r\n`,
    'a user before the Host': `${GET}Host: x@VENDOR\r\n\r\n`,
    'a whole URL of another host': 'GET https://other.example/v2/x HTTP/1.1\r\nHost: VENDOR\r\n\r\n',
    'a whole URL of the metadata service': 'GET http://169.254.169.254/latest HTTP/1.1\r\nHost: VENDOR\r\n\r\n',
    'the vendor without TLS': 'GET http://VENDOR/v2/x HTTP/1.1\r\nHost: VENDOR\r\n\r\n'.replaceAll('VENDOR', VENDOR),
    'a length and chunks': `POST /v2/x HTTP/1.1\r\nHost: VENDOR\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v2/smuggled HTTP/1.1\r\nHost: VENDOR\r\n\r\n`,
    'two lengths': 'POST /v2/x HTTP/1.1\r\nHost: VENDOR\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nabcde',
    'a coding behind chunks':
      'POST /v2/x HTTP/1.1\r\nHost: VENDOR\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n',
    'a field with a blank before its colon': `${GET}Host: VENDOR\r\nContent-Length : 5\r\n\r\nabcde`,
    'a bare line feed in a value': `${GET}Host: VENDOR\r\nX-A: a\nX-B: b\rc\r\n\r\n`,
    'no HTTP': 'EHLO other.example\r\n\r\n',
  }

  it.each(Object.entries(SMUGGLED))('%s is refused', async (_, request) => {
    const count = world.seen.length
    const text = await inTunnel(request.replaceAll('VENDOR', world.vendor), /\r\n\r\n/)
    expect(text).toMatch(/^HTTP\/1\.1 400 /)
    expect(world.seen).toHaveLength(count)
  })

  it('what a page of another site asks is refused where no key is wanted, and what the vendor’s own page asks is served', async () => {
    const ask = (field: string) => inTunnel(`${GET}Host: ${open.vendor}\r\n${field}\r\n`, undefined, '', open)
    const count = open.seen.length
    expect(await ask('Origin: https://evil.example\r\n')).toMatch(/^HTTP\/1\.1 403 /)
    expect(await ask('Sec-Fetch-Site: cross-site\r\n')).toMatch(/^HTTP\/1\.1 403 /)
    expect(open.seen).toHaveLength(count)
    expect(await ask('')).toMatch(/^HTTP\/1\.1 200 /)
    expect(await ask(`Origin: https://${open.vendor}\r\n`)).toMatch(/^HTTP\/1\.1 200 /)
  })

  it('another authority of HTTP/2 is refused', async () => {
    const secure = await vendorTls(world, KEYS.tool, { ALPNProtocols: ['h2'] })
    const session = connectHttp2(`https://${world.vendor}`, { createConnection: () => secure })
    const ask = async (authority: string): Promise<number> => {
      const stream = session.request({ ':path': '/v2/x', ':authority': authority })
      const [headers] = await once(stream, 'response')
      stream.resume()
      return headers[':status']
    }
    expect(await ask('other.example')).toBe(400)
    expect(await ask(world.vendor)).toBe(200)
    session.destroy()
  })

  it('TLS for another host than that of the tunnel is refused, and gets no certificate', async () => {
    const client = await askTunnel(world.proxyUrl, world.vendor, KEYS.tool)
    client.socket.removeAllListeners('data')
    const secure = connectTls({ socket: client.socket, servername: 'bank.example', rejectUnauthorized: false })
    let hasCertificate = false
    secure.on('secureConnect', () => (hasCertificate = true)).on('error', () => undefined)
    await new Promise((resolve) => secure.once('close', resolve))
    expect(hasCertificate).toBe(false)
    await expect
      .poll(() => world.lines.at(-1)?.reason)
      .toBe(`the TLS in the tunnel to ${VENDOR} asks for another host, bank.example`)
  })

  it('plain HTTP is served too, as it is what some clients speak to a proxy', async () => {
    const client = await askTunnel(world.proxyUrl, world.vendor, KEYS.tool)
    client.write(`GET /v2/plain-inside HTTP/1.1\r\nHost: ${world.vendor}\r\nConnection: close\r\n\r\n`)
    expect(await client.closed()).toMatch(/"url":"\/v2\/plain-inside"/)
  })
})

describe('a client that does not trust the certificate', () => {
  it.each([
    [
      'says so',
      'curl',
      /does not trust the gateway's certificate for api\.vendor\.example \(ERR_SSL_\w*UNKNOWN_CA\): have it trust/,
    ],
    ['only ends', 'node', /ended its TLS to api\.vendor\.example without a request: if it does not trust/],
  ])('that %s is told of in the log, with what to do', async (_, program, hint) => {
    // One that only ends is told of once a minute, and some have ended in the other one.
    const at = program === 'curl' ? world : open
    const count = at.lines.length
    if (program === 'curl') {
      const failed = run('curl', ['-sS', '-x', world.proxyFor(KEYS.tool), `https://${world.vendor}/v2/x`])
      await expect(failed).rejects.toThrow(/SSL certificate problem/)
    } else {
      const client = await askTunnel(at.proxyUrl, at.vendor)
      await expect(tlsIn(client, { servername: VENDOR, ca: world.vendorCa })).rejects.toThrow(/certificate/)
      client.socket.destroy()
    }
    await expect.poll(() => at.lines.slice(count).at(-1)?.reason ?? '').toMatch(hint)
  })
})

describe('a tunnel to another host', () => {
  it('is passed on unread, and has a line with its bytes', async () => {
    writeFileSync(join(folder, 'other.pem'), open.vendorCa)
    const url = `https://${OTHER}:${open.otherPort}/file`
    const { stdout } = await run('curl', ['-sS', '--cacert', join(folder, 'other.pem'), '-x', open.proxyUrl, url])
    expect(JSON.parse(stdout)).toEqual({ host: OTHER, url: '/file', body: '' })
    await expect.poll(() => open.lines.at(-1)).toMatchObject({ method: 'CONNECT', path: `${OTHER}:${open.otherPort}` })
    const { status, outcome, requestBytes, responseBytes } = open.lines.at(-1)!
    expect({ status, outcome }).toEqual({ status: '200', outcome: 'delivered' })
    expect(requestBytes).toBeGreaterThan(100)
    expect(responseBytes).toBeGreaterThan(1_000)
  })

  it('leads to the address that was checked, whatever the name means a moment later', async () => {
    open.addresses.set('rebind.example', ['127.0.0.1', '127.0.0.2', '127.0.0.2'])
    const client = await askTunnel(open.proxyUrl, `rebind.example:${open.otherPort}`)
    expect(client.received).toMatch(/^HTTP\/1\.1 200 /)
    expect(open.lookups.filter((name) => name === 'rebind.example')).toHaveLength(1)
    // Now that it means another address, which is not allowed, it is refused.
    const again = await askTunnel(open.proxyUrl, `rebind.example:${open.otherPort}`)
    expect(await again.closed()).toMatch(/^HTTP\/1\.1 403 /)
    client.socket.destroy()
  })

  it('that can not be made is refused with 502', async () => {
    open.addresses.delete('rebind.example')
    const passed = async () => /^sluice_tunnels_total\{kind="passed"\} (\d+)/m.exec(await open.metrics())![1]
    const before = await passed()
    const client = await askTunnel(open.proxyUrl, `rebind.example:${open.otherPort}`)
    expect(await client.closed()).toMatch(/^HTTP\/1\.1 502 [^]*no connection to rebind\.example:\d+ \(ENOTFOUND\)/)
    expect(await passed()).toBe(before)
  })

  it('ends on both sides when one of them ends, and takes no place any more', async () => {
    const client = await askTunnel(open.proxyUrl, `${OTHER}:${open.otherPort}`)
    expect(await open.metrics()).toMatch(/^sluice_tunnels_open [1-9]/m)
    client.socket.destroy()
    await expect.poll(async () => /^sluice_tunnels_open (\d+)/m.exec(await open.metrics())?.[1]).toBe('0')
  })

  it('is not made for a client that leaves while its token is checked, and takes no place', async () => {
    const { privateKey, publicKey } = await generateKeyPair('RS256')
    const asked: (() => void)[] = []
    const jwks = await startServer((_, response) => {
      asked.push(() => void exportJWK(publicKey).then((jwk) => response.end(JSON.stringify({ keys: [jwk] }))))
    })
    const issuer = 'https://login.example'
    const left = await openWorld(() => ({
      clients: { ci: { tokens: [{ issuer: 'corp', claims: { sub: 'ci' } }] } },
      tokenIssuers: { corp: { issuer, audience: 'sluice', jwks } },
    }))
    onTestFinished(() => left.close())
    const token = await new SignJWT({
      iss: issuer,
      aud: 'sluice',
      sub: 'ci',
      exp: Math.floor(Date.now() / 1_000) + 600,
    })
      .setProtectedHeader({ alg: 'RS256' })
      .sign(privateKey)
    const client = await RawClient.connect(left.proxyUrl)
    client.write(`CONNECT ${left.vendor} HTTP/1.1\r\nHost: x\r\nProxy-Authorization: ${basic(token)}\r\n\r\n`)
    await expect.poll(() => asked.length).toBe(1)
    client.socket.resetAndDestroy()
    await expect.poll(async () => /^sluice_client_connections (\d+)/m.exec(await left.metrics())?.[1]).toBe('0')
    asked[0]!()
    await expect.poll(() => left.lines).toMatchObject([{ outcome: 'client_gone' }])
    expect(await left.metrics()).toMatch(/^sluice_tunnels_open 0$/m)
  })

  it('is one of so many as may be open, of both kinds', async () => {
    const held = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        askTunnel(open.proxyUrl, i % 2 === 0 ? open.vendor : `${OTHER}:${open.otherPort}`),
      ),
    )
    const refused = await askTunnel(open.proxyUrl, open.vendor)
    expect(await refused.closed()).toMatch(/^HTTP\/1\.1 429 [^]*as many as forwardProxy\.maxTunnels allows/)
    for (const { socket } of held) socket.destroy()
    await expect.poll(async () => (await askTunnel(open.proxyUrl, open.vendor)).received).toMatch(/^HTTP\/1\.1 200/)
  })
})

describe('slow and half-open tunnels', () => {
  it('end: one in which nothing is said, one whose TLS stops half-way, and one that is idle', async () => {
    const slow = await openWorld((otherPort) => ({
      clients: undefined,
      server: { port: 0, headTimeout: '150ms', drain: '1s' },
      forwardProxy: {
        port: 0,
        ca: join(folder, 'slow-ca'),
        ports: [otherPort],
        idle: '150ms',
        networkAccess: { allowed: [OTHER, '127.0.0.1'] },
      },
    }))
    onTestFinished(() => slow.close())
    const [silent, halfWay, idle, halfOpen] = await Promise.all([
      askTunnel(slow.proxyUrl, slow.vendor),
      askTunnel(slow.proxyUrl, slow.vendor),
      askTunnel(slow.proxyUrl, `${OTHER}:${slow.otherPort}`),
      askTunnel(slow.proxyUrl, `${OTHER}:${slow.otherPort}`),
    ])
    halfWay.write('\x16\x03\x01\x02\x00\x01')
    halfOpen.socket.end()
    for (const client of [silent, halfWay, idle, halfOpen]) {
      expect(client.received).toMatch(/^HTTP\/1\.1 200/)
      await client.closed()
    }
    // A head that never ends, before there is a tunnel.
    const head = await RawClient.connect(slow.proxyUrl)
    head.write('CONNECT slow.example:443 HTTP/1.1\r\nHost: slow')
    expect(await head.closed()).toMatch(/^HTTP\/1\.1 400 [^]*server\.headTimeout/)
    await expect.poll(async () => /^sluice_tunnels_open (\d+)/m.exec(await slow.metrics())?.[1]).toBe('0')
  })

  it('do not hold up a stop: calls inside are finished, what is idle is closed, new ones are refused', async () => {
    let answer: (() => void) | undefined
    const upstream = await startUpstream((_, response) => {
      answer = () => response.end('finished')
    })
    const gateway = await startGateway(
      {
        server: { port: 0, drain: '20s' },
        admin: { port: 0 },
        store: { dir: join(folder, 'drained') },
        forwardProxy: {
          port: 0,
          ca: join(folder, 'drained-ca'),
          ports: [open.otherPort],
          networkAccess: { allowed: [OTHER, '127.0.0.1'] },
        },
        upstreams: {
          vendor: {
            url: upstream.url,
            hosts: ['vendor.example'],
            accounts: { main: { credential: { value: 'key' } } },
            limits: {},
          },
        },
      },
      { lookup: (_, __, callback) => callback(null, [{ address: '127.0.0.1', family: 4 }]) },
    )
    const proxyUrl = gateway.forwardProxyUrl!
    const ca = readFileSync(join(folder, 'drained-ca', 'ca.pem'), 'utf8')
    const [busy, passed, silent] = [
      await tlsIn(await askTunnel(proxyUrl, 'vendor.example:443'), { servername: 'vendor.example', ca }),
      await askTunnel(proxyUrl, `${OTHER}:${open.otherPort}`),
      await askTunnel(proxyUrl, 'vendor.example:443'),
    ]
    busy.write('GET /slow HTTP/1.1\r\nHost: vendor.example\r\n\r\n')
    await expect.poll(() => answer).toBeDefined()
    const startedAt = performance.now()
    const stopped = gateway.stop()
    await passed.closed()
    answer!()
    expect(String((await once(busy, 'data'))[0])).toMatch(/^HTTP\/1\.1 200 [^]*finished$/)
    await stopped
    await silent.closed()
    // By far: it did not wait for the end of server.drain.
    expect(performance.now() - startedAt).toBeLessThan(15_000)
  })
})

describe('Java', () => {
  it.skipIf(!hasProgram('java'))('goes through it by the options that sluice run sets, and trusts it', async () => {
    const file = join(folder, 'Tool.java')
    writeFileSync(
      file,
      `import java.net.URI; import java.net.http.*;
      class Tool { public static void main(String[] args) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(args[0])).header("Authorization", "Bearer dummy").build();
        System.out.println(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body());
      } }`,
    )
    const way = { proxy: new URL(open.proxyUrl), ca: caOf(open), hosts: [VENDOR], folder }
    const { env } = toolEnvironment({ PATH: process.env['PATH'] }, way)
    const java = spawn('java', ['-XX:TieredStopAtLevel=1', file, `https://${open.vendor}/v2/java`], { env })
    const [out, err] = await Promise.all([java.stdout.toArray(), java.stderr.toArray()])
    expect(out.join(''), err.join('')).toContain('"url":"/v2/java"')
    expect(open.seen.at(-1)).toMatchObject({ headers: { authorization: `Bearer ${VENDOR_KEY}` } })
  })
})

describe('the configuration', () => {
  const config = (more: object) => ({
    upstreams: { vendor: { url: 'https://api.vendor.example', accounts: { main: {} }, limits: {} } },
    ...more,
  })

  it('has no forward proxy unless it asks for one', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway({
      ...config({}),
      server: { port: 0 },
      admin: { port: 0 },
      store: { dir: join(folder, 'none') },
      upstreams: { vendor: { url: upstream.url, accounts: { main: {} }, limits: {} } },
    })
    expect(gateway.forwardProxyUrl).toBeUndefined()
    const refused = await askTunnel(gateway.url, 'api.vendor.example:443')
    expect(await refused.closed()).toMatch(/^HTTP\/1\.1 400 [^]*CONNECT is not forwarded/)
  })

  it('opens it on loopback only, unless there are clients, and warns of keys that travel unencrypted', () => {
    expect(checkConfig(config({ forwardProxy: {} }), 'test').forwardProxy).toMatchObject({
      host: '127.0.0.1',
      port: 3128,
    })
    expect(() => checkConfig(config({ forwardProxy: { host: '0.0.0.0' } }), 'test')).toThrow(
      /forwardProxy\.host: clients must be configured/,
    )
    const wide = checkConfig(
      config({ forwardProxy: { host: '0.0.0.0' }, clients: { a: { keys: [hashKey('slk_a')] } } }),
      'test',
    )
    expect(warningsOf(wide)).toContain(
      'forwardProxy.host is beyond loopback, so the keys of its clients travel unencrypted to it',
    )
    expect(() => checkConfig(config({ forwardProxy: { port: 8080 } }), 'test')).toThrow(
      /forwardProxy\.port: is the port of server/,
    )
  })

  it('changes it with a restart only, and refuses calls to a host that the CA is not good for', async () => {
    const changed = await openWorld(() => ({ clients: undefined }))
    onTestFinished(() => changed.close())
    const text = await (await askTunnel(changed.proxyUrl, changed.vendor)).until(/\r\n\r\n/)
    expect(text).toMatch(/^HTTP\/1\.1 200/)
    const again = await openWorld(() => ({
      clients: undefined,
      forwardProxy: { port: 0, ca: changed.ca },
      upstreams: { new: { url: 'https://new.example', accounts: { main: {} }, limits: {} } },
    }))
    onTestFinished(() => again.close())
    const refused = await (await askTunnel(again.proxyUrl, 'new.example:443')).closed()
    expect(refused).toMatch(
      /^HTTP\/1\.1 403 [^]*was made before new\.example was an upstream's: run npx sluice ca rotate/,
    )
  })
})
