import { randomBytes, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { type Certificates, makeCertificates } from '../support/certificates.ts'
import { call } from '../support/http.ts'
import { harnessConfig, startGateway } from '../support/gateway.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

let certificates: Certificates
beforeAll(() => {
  certificates = makeCertificates(['localhost', 'client'])
})
afterAll(() => certificates.remove())

const file = (name: string): string => certificates.read(name)

async function startTlsUpstream(wantsClient = false): Promise<string> {
  const server = createServer(
    {
      key: file('localhost.key'),
      cert: file('localhost.pem'),
      ca: file('ca.pem'),
      requestCert: wantsClient,
      rejectUnauthorized: wantsClient,
    },
    (request, response) => response.end((request.socket as TLSSocket).getPeerCertificate().subject?.CN ?? 'nobody'),
  )
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return `https://localhost:${(server.address() as AddressInfo).port}`
}

async function callThrough(url: string, tls?: object) {
  const gateway = await startGateway(
    harnessConfig(url, { retry: { retries: 0 }, ...(tls === undefined ? {} : { tls }) }),
  )
  return call(gateway.url, '/harness/ng/api/projects')
}

describe('an upstream with TLS', () => {
  it('is not spoken to if its certificate is of an unknown authority', async () => {
    const answer = await callThrough(await startTlsUpstream())
    expect(answer.headers['x-sluice-error']).toBe('unreachable')
    expect(answer.json().message).toMatch(/SELF_SIGNED|UNABLE_TO_VERIFY/)
  })

  it('is spoken to if its authority is configured', async () => {
    expect(await callThrough(await startTlsUpstream(), { ca: file('ca.pem') })).toMatchObject({
      status: 200,
      body: 'nobody',
    })
  })

  it('is not spoken to under another name than its own', async () => {
    const url = (await startTlsUpstream()).replace('localhost', '127.0.0.1')
    const answer = await callThrough(url, { ca: file('ca.pem') })
    expect(answer.json().message).toContain('ERR_TLS_CERT_ALTNAME_INVALID')
    expect((await callThrough(url, { ca: file('ca.pem'), servername: 'localhost' })).status).toBe(200)
  })

  it('gets the client certificate if there is one', async () => {
    const tls = { ca: file('ca.pem'), cert: file('client.pem'), key: file('client.key') }
    const url = await startTlsUpstream(true)
    expect(await callThrough(url, tls)).toMatchObject({ status: 200, body: 'client' })
    expect((await callThrough(url, { ca: file('ca.pem') })).status).toBe(502)
  })
})

describe('connections to an upstream with TLS', () => {
  /** It closes each connection after its answer, and notes of each whether its session was resumed. */
  async function startClosingUpstream(options: object = {}, port = 0) {
    const resumed: boolean[] = []
    const server = createServer(
      { key: file('localhost.key'), cert: file('localhost.pem'), ...options },
      (_, response) => {
        response.setHeader('connection', 'close').end()
      },
    )
    server.on('secureConnection', (socket: TLSSocket) => resumed.push(socket.isSessionReused()))
    await once(server.listen(port, '127.0.0.1'), 'listening')
    const stop = async (): Promise<void> => {
      server.closeAllConnections()
      await new Promise((resolve) => void server.close(resolve))
    }
    onTestFinished(stop)
    return { resumed, stop, port: (server.address() as AddressInfo).port }
  }

  async function callTimes(gateway: { url: string }, times: number, upstream = 'harness'): Promise<void> {
    for (let i = 0; i < times; i++) {
      expect((await call(gateway.url, `/${upstream}/ng/api/projects`)).status).toBe(200)
      collectGarbage()
    }
  }

  it.for(['TLSv1.2', 'TLSv1.3'] as const)('resume the session of the one before, with %s', async (maxVersion) => {
    const upstream = await startClosingUpstream({ maxVersion })
    const tls = { ca: file('ca.pem') }
    const gateway = await startGateway(harnessConfig(`https://localhost:${upstream.port}`, { tls }))
    await callTimes(gateway, 4)
    expect(upstream.resumed).toEqual([false, true, true, true])
    await upstream.stop()
    // A server that starts anew knows no session of the one before.
    const restarted = await startClosingUpstream({ maxVersion }, upstream.port)
    await callTimes(gateway, 3)
    expect(restarted.resumed).toEqual([false, true, true])
  })

  it('resume no session of another upstream, even if that would take it', async () => {
    const ticketKeys = randomBytes(48)
    const [one, other] = [await startClosingUpstream({ ticketKeys }), await startClosingUpstream({ ticketKeys })]
    const tls = { ca: file('ca.pem') }
    const of = ({ port }: { port: number }) => ({
      url: `https://localhost:${port}`,
      tls,
      accounts: { a: {} },
      limits: { read: [], write: [] },
    })
    const gateway = await startGateway(harnessConfig('', {}, { upstreams: { harness: of(one), other: of(other) } }))
    await callTimes(gateway, 2)
    await callTimes(gateway, 2, 'other')
    expect([one.resumed, other.resumed]).toEqual([
      [false, true],
      [false, true],
    ])
  })
})

it('when a client certificate expires is a metric', async () => {
  const clock = new SimulatedClock(Date.UTC(2026, 0))
  const tls = { cert: file('client.pem'), key: file('client.key') }
  const gateway = await startGateway(harnessConfig('https://localhost:9', { tls }), { clock })
  const endsAt = Date.parse(new X509Certificate(file('client.pem')).validTo)
  expect(await gateway.metrics()).toContain(
    `sluice_credential_expires_seconds{upstream="harness",account="*",credential="harness tls.cert"} ${(endsAt - clock.now()) / 1_000}`,
  )
})
