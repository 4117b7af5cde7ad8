import { once } from 'node:events'
import { createServer, request as httpRequest, Agent } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { hashKey } from '../../src/clients/keys.ts'
import { checkConfig } from '../../src/config/load.ts'
import { createLog } from '../../src/observe/log.ts'
import { runGateway } from '../../src/process/run.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import type { Mutator } from './mutate.ts'

/** Longest time to an answer, on any machine. */
const HANGS_MS = 20_000
const TOKEN = 'token-of-an-operator'
const KEY = 'slk_fuzz'

/** A gateway that is given broken requests and bodies through its sockets. */
export interface Live {
  admin(mutator: Mutator, note: (input: unknown) => void): Promise<string | undefined>
  wire(mutator: Mutator, note: (input: unknown) => void): Promise<string | undefined>
  stop(): Promise<void>
}

export async function startLive(): Promise<Live> {
  const vendor = createServer((request, response) => void request.resume().on('end', () => response.end('ok')))
  await once(vendor.listen(0, '127.0.0.1'), 'listening')
  const folder = temporaryFolder('fuzz')
  const config = checkConfig(
    {
      server: { port: 0, wrongKeys: { perAddress: 1_000_000, overall: 1_000_000 } },
      admin: { port: 0, token: TOKEN },
      store: { dir: folder.path },
      upstreams: {
        api: {
          url: `http://127.0.0.1:${(vendor.address() as AddressInfo).port}`,
          accounts: { main: { credential: { header: 'x-api-key', value: 'credential-of-the-vendor' } } },
          timeouts: { idle: '1s' },
        },
      },
      clients: { tool: { keys: [hashKey(KEY)] } },
    },
    'fuzz',
  )
  let mistakes = 0
  const quiet = createLog({ level: 'silent', format: 'json' })
  const access = ({ outcome }: { outcome: string }): void => void (mistakes += outcome === 'internal' ? 1 : 0)
  const log = { ...quiet, access }
  const gateway = await runGateway(config, { log, load: () => ({ config, source: 'fuzz' }) })
  const { port, hostname } = new URL(gateway.url)
  const agent = new Agent({ keepAlive: true })
  const ask = (method: string, path: string, body: string): Promise<number> =>
    new Promise((resolve, reject) => {
      const { port: adminPort } = new URL(gateway.adminUrl)
      const headers = {
        authorization: `Bearer ${TOKEN}`,
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(body),
      }
      const options = { host: '127.0.0.1', port: adminPort, method, path, headers, agent, timeout: HANGS_MS }
      const outgoing = httpRequest(options, (response) => {
        response.resume().on('end', () => resolve(response.statusCode ?? 0))
      })
      outgoing.on('timeout', () => outgoing.destroy(new Error('no answer'))).on('error', reject)
      outgoing.end(body)
    })
  return {
    async admin(mutator, note) {
      const [method, path] = mutator.oneOf(ADMIN_PATHS)
      const body = mutator.text(ADMIN_BODIES, ADMIN_WORDS)
      note([method, path, body])
      const status = await ask(method, path, body)
      return status >= 200 && status < 500 ? undefined : `is answered ${status}`
    },
    async wire(mutator, note) {
      const request = mutator.text(REQUESTS, WIRE_WORDS)
      note(request)
      const socket = connect(Number(port), hostname)
      let received = ''
      socket.on('data', (chunk) => (received += chunk.toString('latin1'))).on('error', () => undefined)
      const closed = once(socket, 'close')
      socket.end(request, 'latin1')
      // Half of it may be missing; its end says that no more will come.
      const isOver = await Promise.race([closed.then(() => true), pause(HANGS_MS, false, { ref: false })])
      socket.destroy()
      if (!isOver) return 'is never answered'
      if (mistakes > 0) return 'is a mistake of the gateway'
      if (received.includes('credential-of-the-vendor')) return 'is told the credential'
      return /^HTTP\/1\.1 500/m.test(received) ? 'is answered 500' : undefined
    },
    async stop() {
      agent.destroy()
      await gateway.stop()
      vendor.closeAllConnections()
      vendor.close()
      folder.remove()
    },
  }
}

const ID = `client_${'0'.repeat(32)}`
const ADMIN_PATHS = [
  ['POST', '/v1/clients'],
  ['PATCH', `/v1/clients/${ID}`],
  ['POST', `/v1/clients/${ID}/keys`],
  ['POST', '/v1/upstreams/api/breaker'],
  ['POST', '/v1/presets/harness/copy'],
  ['GET', '/v1/clients?limit=1e9&offset=-1'],
] as const
// None of them is right as it stands, or the fuzzer would mostly fill the store.
const ADMIN_BODIES = [
  '{"name":"bot","key":{"label":"laptop","expires":"2099-01-01"},"methods":["GET"],"budget":[{"requests":10,"window":"0h"}]}',
  '{"name":"tool","classes":["read"],"share":"40%","networkAccess":{"allowed":["*.x"],"blocked":[]}}',
  '{"state":"ajar","group":"search"}',
  '{"label":"x","expires":"tomorrow"}',
]
const ADMIN_WORDS = [
  '"',
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  'null',
  'true',
  '1e999',
  '-1',
  '"__proto__":{}',
  '"constructor"',
  '\\u0000',
  '\\ud800',
  '\n',
  '[[[[[[[[',
  '9'.repeat(400),
  'name',
  '\ufeff',
]
const OWN = `Host: gateway\r\nX-Sluice-Key: ${KEY}\r\n`
const REQUESTS = [
  `GET /api/x?a=b HTTP/1.1\r\n${OWN}Connection: close\r\n\r\n`,
  `POST /api/x HTTP/1.1\r\n${OWN}Content-Length: 3\r\n\r\nabc`,
  `POST /api/x HTTP/1.1\r\n${OWN}Transfer-Encoding: chunked\r\nTrailer: x\r\n\r\n3;a=b\r\nabc\r\n0\r\nx: y\r\n\r\n`,
  `GET /api/x HTTP/1.1\r\n${OWN}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n`,
  `PUT http://gateway/api/%2e HTTP/1.0\r\n${OWN}Expect: 100-continue\r\nContent-Length: 10\r\n\r\n`,
  `CONNECT x:443 HTTP/1.1\r\n${OWN}\r\n`,
]
const WIRE_WORDS = [
  '\r\n',
  '\n',
  '\r',
  '\0',
  ' ',
  '\t',
  ':',
  ';',
  '%',
  '..',
  '//',
  'HTTP/2.0',
  'HTTP/0.9',
  'Host: x\r\n',
  'Content-Length: 99\r\n',
  'Transfer-Encoding: chunked\r\n',
  'Connection: close, x-api-key\r\n',
  'Upgrade: h2c\r\n',
  'Expect: x\r\n',
  'X-Sluice-Max-Wait: 1\r\n',
  'X-Correlation-Id: \u00e4\r\n',
  'Accept: ;q=\r\n',
  '-1',
  'fffffffff',
  'TRACE',
]
