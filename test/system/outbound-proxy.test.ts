import { createServer, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { type Certificates, makeCertificates } from '../support/certificates.ts'
import { harnessConfig, startGateway, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'

const READ = '/harness/ng/api/projects'
const PASSWORD = 'p@ss:word'
const BASIC = `Basic ${Buffer.from(`egress:${PASSWORD}`).toString('base64')}`

let certificates: Certificates
beforeAll(() => {
  certificates = makeCertificates(['localhost'])
})
afterAll(() => certificates.remove())

async function portOf(server: Server): Promise<number> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => void sockets.add(socket))
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

/** A proxy that makes tunnels to 127.0.0.1, whatever host is asked for, to those who know the password. */
async function startProxy(): Promise<{ port: number; asked: string[]; seen: string[] }> {
  const asked: string[] = []
  const seen: string[] = []
  const proxy = createServer((_, response) => response.writeHead(405).end())
  proxy.on('connect', ({ url = '', headers }, client: Socket) => {
    asked.push(url)
    client.on('error', () => undefined)
    if (headers['proxy-authorization'] !== BASIC) {
      client.end('HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n')
      return
    }
    const upstream = connect(Number(url.split(':').at(-1)), '127.0.0.1', () => {
      client.write('HTTP/1.1 200 Connection established\r\n\r\n')
      client.on('data', (chunk) => void seen.push(chunk.toString('latin1')))
      client.pipe(upstream).pipe(client)
    })
    upstream.on('error', () => void client.destroy())
  })
  return { port: await portOf(proxy), asked, seen }
}

async function startTlsUpstream(): Promise<number> {
  const keys = { key: certificates.read('localhost.key'), cert: certificates.read('localhost.pem') }
  return portOf(createTlsServer(keys, (_, response) => response.end('through')))
}

const withPassword = (port: number, password = PASSWORD): string =>
  `http://egress:${encodeURIComponent(password)}@127.0.0.1:${port}`

describe('an upstream behind an outbound proxy', () => {
  it('is reached through it, with TLS from end to end', async () => {
    const { port, asked, seen } = await startProxy()
    const upstreamPort = await startTlsUpstream()
    const tls = { ca: certificates.read('ca.pem') }
    const upstream = { proxy: withPassword(port), tls }
    const gateway = await startGateway(harnessConfig(`https://localhost:${upstreamPort}`, upstream))
    expect(await call(gateway.url, READ)).toMatchObject({ status: 200, body: 'through' })
    expect(await call(gateway.url, READ)).toMatchObject({ status: 200 })
    expect(asked).toEqual([`localhost:${upstreamPort}`])
    expect(seen.join('')).not.toMatch(/GET |topsecret/)
  })

  it('is not spoken to if its certificate is none for its name, whatever the proxy says', async () => {
    const { port } = await startProxy()
    const upstream = { proxy: withPassword(port), tls: { ca: certificates.read('ca.pem') }, retry: { retries: 0 } }
    const gateway = await startGateway(harnessConfig(`https://api.example:${await startTlsUpstream()}`, upstream))
    const answer = await call(gateway.url, READ)
    expect(answer.headers['x-sluice-error']).toBe('unreachable')
    expect(answer.json().message).toContain('ERR_TLS_CERT_ALTNAME_INVALID')
  })

  it('is found by the proxy, which need not be where its name is known', async () => {
    const { port, asked } = await startProxy()
    const { url, seen } = await startUpstream()
    const upstreamPort = new URL(url).port
    const upstream = { proxy: withPassword(port), limits: { read: [] } }
    const gateway = await startGateway(harnessConfig(`http://api.invalid:${upstreamPort}`, upstream))
    expect((await call(gateway.url, READ)).status).toBe(200)
    expect(asked).toEqual([`api.invalid:${upstreamPort}`])
    expect(seen[0]!.headers['proxy-authorization']).toBeUndefined()
  })

  it('is unreachable, even for a POST that may then be sent again, while the proxy refuses; nothing tells the password', async () => {
    const { port } = await startProxy()
    const upstream = { proxy: withPassword(port, 'wrong-secret'), retry: { retries: 1, baseDelay: '1ms' } }
    const gateway = await startGateway(harnessConfig('https://api.example', upstream))
    const answer = await call(gateway.url, '/harness/ng/api/projects', { method: 'POST', body: '{}' })
    expect(answer).toMatchObject({ status: 502 })
    expect(answer.headers['x-sluice-error']).toBe('unreachable')
    expect(gateway.lines).toMatchObject([{ attempts: 2, tries: [{ error: 'unreachable (ERR_PROXY_REFUSED)' }, {}] }])
    expect(JSON.stringify([answer, gateway.lines])).not.toContain('wrong-secret')
  })

  it('is unreachable in time if the proxy does not answer', async () => {
    const silent = createServer()
    silent.on('connect', () => undefined)
    const proxy = `http://127.0.0.1:${await portOf(silent)}`
    const upstream = { proxy, timeouts: { connect: '100ms' }, retry: { retries: 0 } }
    const gateway = await startGateway(harnessConfig('https://api.example', upstream))
    expect((await call(gateway.url, READ)).headers['x-sluice-error']).toBe('unreachable')
    expect(await gateway.metrics()).toMatch(/sluice_timeouts_total\{upstream="harness",phase="connect"\} 1/)
  })
})

describe('upstreams.*.proxy', () => {
  it.each(['proxy.example:3128', 'socks5://proxy:1080', 'http://proxy/path', 'http://a%zz@proxy:1', 'nonsense'])(
    'refuses %s, and does not retry it',
    (proxy) => {
      const check = (): unknown => checkConfig(harnessConfig('https://api.example', { proxy }), 'test')
      expect(check).toThrow('must be the URL of a proxy')
      expect(check).not.toThrow(proxy)
    },
  )
})
