import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { connect as connectHttp2 } from 'node:http2'
import { request as requestTls } from 'node:https'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { afterAll, beforeAll, describe, expect, inject, it, onTestFinished } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { checkConfig } from '../../src/config/load.ts'
import { type Certificates, makeCertificates } from '../support/certificates.ts'
import { freePort } from '../support/find-redis.ts'
import { harnessConfig, newFolder, startGateway, startUpstream } from '../support/gateway.ts'
import { call, RawClient } from '../support/http.ts'
import { hasProgram } from '../support/packages.ts'
import { startProcess } from '../support/process.ts'
import { proxyHeaderV2 } from '../support/proxy-header.ts'
import { parseMetrics, valuesOf } from '../support/openmetrics.ts'

const READ = '/harness/ng/api/projects'
const CLIENTS = { bot: { keys: [hashKey('slk_right')] } }
const BEHIND = { port: 0, proxyProtocol: true, trustedProxies: ['127.0.0.1'] }
const REQUEST = (key = 'slk_right', more = ''): string =>
  `GET ${READ} HTTP/1.1\r\nHost: x\r\nX-Sluice-Key: ${key}\r\n${more}\r\n`
const V1 = (address: string): string => `PROXY TCP4 ${address} 10.0.0.1 56324 443\r\n`
const V2_LAST = (last: number): string =>
  proxyHeaderV2(0x21, 0x11, Buffer.from([203, 0, 113, last, 10, 0, 0, 1, 0xdc, 4, 1, 0xbb])).toString('latin1')

let certificates: Certificates
beforeAll(() => {
  certificates = makeCertificates(['localhost'])
})
afterAll(() => certificates.remove())

/** Calls come from 127.0.0.1, as if from a balancer on this machine. */
async function startBehind(server: object = {}, upstream: object = {}) {
  const target = await startUpstream()
  const config = harnessConfig(target.url, upstream, { server: { ...BEHIND, ...server }, clients: CLIENTS })
  const gateway = await startGateway(config)
  /** What comes back, up to the end of the head, or to the end of the connection. */
  const send = async (text: string): Promise<string> => {
    const client = await RawClient.connect(gateway.url)
    onTestFinished(() => void client.socket.destroy())
    client.write(text)
    return client.until(/\r\n\r\n/)
  }
  return { gateway, send, seen: target.seen }
}

describe('the header of the PROXY protocol of a balancer that is trusted', () => {
  it.each([
    ['version 1', V1('203.0.113.7'), '203.0.113.7'],
    ['version 1 for IPv6', 'PROXY TCP6 2001:db8::7 ::1 1 2\r\n', '2001:db8::7'],
    ['version 2', V2_LAST(7), '203.0.113.7'],
    ['version 1, of nobody known', 'PROXY UNKNOWN\r\n', '127.0.0.1'],
    ['version 2, of itself', proxyHeaderV2(0x20, 0).toString('latin1'), '127.0.0.1'],
  ])('names the client: %s', async (_, header, address) => {
    const { gateway, send } = await startBehind()
    expect(await send(header + REQUEST())).toContain(' 200 OK')
    expect(gateway.lines).toMatchObject([{ address, outcome: 'delivered' }])
  })

  it('may come in pieces, with the request behind the last of them or later', async () => {
    const { gateway } = await startBehind()
    for (const whole of [V1('203.0.113.7') + REQUEST(), V2_LAST(7) + REQUEST()]) {
      const { socket } = await connected(gateway.url)
      socket.setNoDelay(true)
      for (const byte of whole) {
        socket.write(byte, 'latin1')
        await new Promise(setImmediate)
      }
      const [answer] = (await once(socket, 'data')) as [Buffer]
      expect(answer.toString()).toContain(' 200 OK')
    }
    expect(gateway.lines.map(({ address }) => address)).toEqual(['203.0.113.7', '203.0.113.7'])
  })

  it('counts for wrong keys: others behind the same balancer go on', async () => {
    const { send } = await startBehind({ wrongKeys: { perAddress: 2 } })
    for (const key of ['slk_1', 'slk_2', 'slk_3']) await send(V1('203.0.113.7') + REQUEST(key))
    expect(await send(V1('203.0.113.7') + REQUEST())).toContain(' 429 ')
    expect(await send(V1('203.0.113.8') + REQUEST())).toContain(' 200 ')
  })

  it('counts for connections: one client may have no more behind a balancer than elsewhere', async () => {
    const { send } = await startBehind({ connectionsPerAddress: 2 })
    const from = (last: number) => send(V1(`203.0.113.${last}`) + REQUEST())
    expect(await Promise.all([from(7), from(7), from(8)])).toEqual(Array(3).fill(expect.stringContaining(' 200 ')))
    expect(await from(7)).toBe('')
    expect(await from(8)).toContain(' 200 ')
  })

  it('is what an upstream is told where it is to know the client', async () => {
    const { send, seen } = await startBehind({}, { forward: ['client'] })
    await send(V1('203.0.113.7') + REQUEST())
    expect(seen).toMatchObject([{ headers: { 'x-forwarded-for': '203.0.113.7' } }])
  })

  it('names the next balancer, whose X-Forwarded-For is believed if it is trusted, too', async () => {
    const { gateway, send } = await startBehind({ trustedProxies: ['127.0.0.1', '10.0.0.0/8'] })
    await send(V1('10.1.2.3') + REQUEST('slk_right', 'X-Forwarded-For: 203.0.113.9\r\n'))
    await send(V1('203.0.113.7') + REQUEST('slk_right', 'X-Forwarded-For: 203.0.113.9\r\n'))
    expect(gateway.lines.map(({ address }) => address)).toEqual(['203.0.113.9', '203.0.113.7'])
  })

  it.each([false, true])('comes before TLS (with http2: %s)', async (http2) => {
    const tls = { cert: certificates.read('localhost.pem'), key: certificates.read('localhost.key') }
    const { gateway } = await startBehind({ tls, http2 })
    const { socket } = await connected(gateway.url)
    socket.write(V2_LAST(7).slice(0, 10), 'latin1')
    await pause(0)
    socket.write(V2_LAST(7).slice(10), 'latin1')
    const ca = certificates.read('ca.pem')
    const secure = connectTls({ socket, ca, servername: 'localhost' })
    const headers = { 'x-sluice-key': 'slk_right' }
    const outgoing = requestTls({ createConnection: () => secure, path: READ, headers, host: 'localhost' }).end()
    const [{ statusCode }] = (await once(outgoing, 'response')) as [{ statusCode: number }]
    expect(statusCode).toBe(200)
    expect(gateway.lines).toMatchObject([{ address: '203.0.113.7' }])
    // In one piece with the beginning of the handshake, which is none.
    const other = await connected(gateway.url)
    other.socket.write(`${V1('203.0.113.8')}GET / HTTP/1.1\r\n\r\n`)
    await once(other.socket.resume(), 'close')
    expect(gateway.lines.at(-1)).toMatchObject({ address: '203.0.113.8', outcome: 'invalid_request', status: 'none' })
  })

  it.each(['h2c', 'h2'])('comes before HTTP/2 (%s)', async (kind) => {
    const tls = { cert: certificates.read('localhost.pem'), key: certificates.read('localhost.key') }
    const { gateway } = await startBehind({ http2: true, ...(kind === 'h2' ? { tls } : {}) })
    const { socket } = await connected(gateway.url)
    socket.write(V1('203.0.113.7'))
    const secure = { socket, ca: certificates.read('ca.pem'), servername: 'localhost', ALPNProtocols: ['h2'] }
    const session = connectHttp2('http://localhost', {
      createConnection: () => (kind === 'h2' ? connectTls(secure) : socket),
    })
    const stream = session.request({ ':path': READ, 'x-sluice-key': 'slk_right' })
    const [headers] = (await once(stream, 'response')) as [{ ':status': number }]
    expect(headers[':status']).toBe(200)
    stream.close()
    session.on('error', () => undefined).destroy()
    await expect.poll(() => gateway.lines).toMatchObject([{ address: '203.0.113.7' }])
  })
})

describe('a connection of a balancer that is trusted', () => {
  it.each([
    ['has no header', REQUEST(), 'it is none'],
    ['has one that is malformed', 'PROXY TCP4 203.0.113.7\r\n', 'its line is not'],
    ['has one that is too long', proxyHeaderV2(0x21, 0x11, Buffer.alloc(20_000)).toString('latin1'), 'maxHeaderBytes'],
  ])('is closed without a word if it %s, counted and logged', async (_, text, why) => {
    const { gateway, send, seen } = await startBehind()
    expect(await send(text)).toBe('')
    expect(gateway.lines).toMatchObject([{ address: '127.0.0.1', outcome: 'invalid_request', status: 'none' }])
    expect(gateway.lines[0]!.reason).toContain(why)
    expect(valuesOf(parseMetrics(await gateway.metrics()), 'sluice_requests_total', 'outcome')).toEqual({
      invalid_request: 1,
    })
    expect(seen).toEqual([])
  })

  it('is closed if its header does not come within server.headTimeout, however its bytes trickle in', async () => {
    const { gateway } = await startBehind({ headTimeout: '300ms' })
    const { socket } = await connected(gateway.url)
    const trickle = setInterval(() => socket.write('x'), 50)
    socket.write('PROXY UNKNOWN ')
    // What is written while it closes may be an error.
    socket.on('error', () => undefined)
    await new Promise((resolve) => void socket.resume().once('close', resolve))
    clearInterval(trickle)
    await expect.poll(() => gateway.lines.length).toBe(1)
    expect(gateway.lines).toMatchObject([{ outcome: 'invalid_request', status: 'none' }])
    expect(gateway.lines[0]!.reason).toContain('server.headTimeout')
  })

  it('is closed and logged if it ends in the middle of a header, but is no matter if it only looked', async () => {
    const { gateway } = await startBehind()
    for (const text of ['', 'PROXY TCP4']) {
      const { socket } = await connected(gateway.url)
      socket.end(text)
      await once(socket.resume(), 'close')
    }
    expect(gateway.lines).toMatchObject([{ outcome: 'invalid_request', address: '127.0.0.1' }])
  })
})

describe('anybody else', () => {
  it('is served as a client that connects directly, and refused with a header', async () => {
    const { gateway, send } = await startBehind({ trustedProxies: ['10.0.0.0/8'] })
    expect(await send(REQUEST())).toContain(' 200 OK')
    for (const header of [V1('10.0.0.7'), V2_LAST(7)]) expect(await send(header + REQUEST())).toContain(' 400 ')
    expect(gateway.lines).toMatchObject([
      { address: '127.0.0.1', outcome: 'delivered' },
      { address: '127.0.0.1', outcome: 'invalid_request' },
      { address: '127.0.0.1', outcome: 'invalid_request' },
    ])
    for (const { reason } of gateway.lines.slice(1)) expect(reason).toContain('server.proxyProtocol')
  })

  it('needs no header on a port without server.proxyProtocol, not even a trusted balancer', async () => {
    const { send } = await startBehind({ proxyProtocol: false })
    expect(await send(REQUEST())).toContain(' 200 OK')
    expect(await send(V1('203.0.113.7') + REQUEST())).toContain('server.proxyProtocol: true')
  })
})

describe('server.proxyProtocol', () => {
  it('needs to know whose headers to believe', () => {
    const config = harnessConfig('http://127.0.0.1:1', {}, { server: { proxyProtocol: true } })
    expect(() => checkConfig(config, 'test')).toThrow('it needs server.trustedProxies')
  })

  it('is for each of several workers', async () => {
    const upstream = await startUpstream()
    const store = { kind: 'redis', url: inject('redisUrl'), prefix: `proxied-${process.pid}`, commandTimeout: '2s' }
    const server = { ...BEHIND, workers: 2 }
    const gateway = await startProcess(harnessConfig(upstream.url, {}, { server, store, clients: CLIENTS }))
    const { socket } = await connected(gateway.url)
    socket.write(V1('203.0.113.7') + REQUEST())
    const [answer] = (await once(socket, 'data')) as [Buffer]
    expect(answer.toString()).toContain(' 200 OK')
    expect(await gateway.line(/"msg":"call"/)).toContain('"address":"203.0.113.7"')
  })
})

describe.skipIf(!hasProgram('haproxy'))('behind HAProxy', () => {
  it.each(['send-proxy', 'send-proxy-v2', 'send-proxy-v2-ssl'])('%s names its client', async (option) => {
    const { gateway } = await startBehind()
    const port = await startHaproxy(`server gateway ${new URL(gateway.url).host} ${option} check`)
    const headers = { 'x-sluice-key': 'slk_right' }
    const ask = () =>
      call(`http://127.0.0.1:${port}`, READ, { headers }).then(
        ({ status }) => status,
        () => 0,
      )
    await expect.poll(ask).toBe(200)
    // The client of HAProxy is on this machine, too: 127.0.0.2, by its source address.
    const { socket } = await connected(`http://127.0.0.1:${port}`, '127.0.0.2')
    socket.write(REQUEST())
    const [answer] = (await once(socket, 'data')) as [Buffer]
    expect(answer.toString()).toContain(' 200 OK')
    expect(gateway.lines.at(-1)).toMatchObject({ address: '127.0.0.2', outcome: 'delivered' })
    expect(gateway.lines.filter(({ outcome }) => outcome !== 'delivered')).toEqual([])
  })
})

async function connected(url: string, localAddress?: string): Promise<{ socket: Socket }> {
  const { hostname, port } = new URL(url)
  const socket = connect({
    host: hostname,
    port: Number(port),
    ...(localAddress === undefined ? {} : { localAddress }),
  })
  onTestFinished(() => void socket.destroy())
  await once(
    socket.on('error', () => undefined),
    'connect',
  )
  // In an object: a promise of a socket would be one of what it does next.
  return { socket }
}

async function startHaproxy(server: string): Promise<number> {
  const port = await freePort()
  const file = join(newFolder(), 'haproxy.cfg')
  const times = ['connect', 'client', 'server'].map((of) => `  timeout ${of} 10s`)
  const lines = ['defaults', '  mode tcp', ...times, 'listen balancer', `  bind 127.0.0.1:${port}`, `  ${server}`, '']
  writeFileSync(file, lines.join('\n'))
  const haproxy = spawn('haproxy', ['-db', '-f', file], { stdio: 'ignore' })
  onTestFinished(() => void haproxy.kill('SIGKILL'))
  return port
}
