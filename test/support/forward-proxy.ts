import { once } from 'node:events'
import { createSecureServer } from 'node:http2'
import type { AddressInfo, LookupFunction, Socket } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls'
import { checkConfig } from '../../src/config/load.ts'
import { hashKey } from '../../src/clients/keys.ts'
import { type AccessLine, createLog } from '../../src/observe/log.ts'
import { type Running, runGateway } from '../../src/process/run.ts'
import { type Certificates, makeCertificates } from './certificates.ts'
import { RawClient } from './http.ts'
import { temporaryFolder } from './temporary-folder.ts'

/** The vendor: an upstream, whose URL has a path. */
export const VENDOR = 'api.vendor.example'
/** Another host, which is no upstream's and may be reached. */
export const OTHER = 'files.other.example'
export const KEYS = { tool: 'slk_tool-secret', narrow: 'slk_narrow-secret' }
export const VENDOR_KEY = 'vendor-key-secret'

export interface SeenByVendor {
  readonly method: string
  readonly url: string
  readonly version: string
  readonly headers: Record<string, string | string[] | undefined>
  readonly body: string
}

export interface ForwardProxyWorld {
  readonly gateway: Running
  /** `http://…` of the forward proxy, without credentials; and with those of a client. */
  readonly proxyUrl: string
  readonly proxyFor: (key: string) => string
  readonly lines: AccessLine[]
  readonly seen: SeenByVendor[]
  /** `api.vendor.example:PORT`, and the port of the other host. */
  readonly vendor: string
  readonly otherPort: number
  /** What the names stand for, and how often they were looked up; a list is gone through, one for each look-up. */
  readonly addresses: Map<string, string | string[]>
  readonly lookups: string[]
  /** The folder of the CA, and the authority of vendor and other host. */
  readonly ca: string
  readonly vendorCa: string
  readonly folder: string
  metrics(): Promise<string>
  close(): Promise<void>
}

let certificates: Certificates | undefined
/** To be called once, behind the last test of a file. */
export function removeCertificates(): void {
  certificates?.remove()
}

/** A vendor, another host, and a gateway with a forward proxy between them and its clients. One for all tests of a file. */
export async function openWorld(change: (otherPort: number) => object = () => ({})): Promise<ForwardProxyWorld> {
  const folder = temporaryFolder('forward-proxy')
  certificates ??= makeCertificates([VENDOR, OTHER])
  const { read } = certificates
  const seen: SeenByVendor[] = []
  const listen = async (name: string): Promise<{ port: number; close(): void }> => {
    const server = createSecureServer(
      { cert: read(`${name}.pem`), key: read(`${name}.key`), allowHTTP1: true },
      (request, response) => {
        void request.toArray().then((pieces) => {
          const body = Buffer.concat(pieces as Buffer[]).toString()
          const { method, url, httpVersion, headers } = request
          if (name === VENDOR) seen.push({ method, url, version: httpVersion, headers, body })
          const link = `<https://${headers.host ?? headers[':authority']?.toString()}/v2/items?page=2>; rel="next"`
          response.writeHead(200, { 'content-type': 'application/json', link })
          response.end(JSON.stringify({ host: name, url, body }))
        })
      },
    )
    const open = new Set<Socket>()
    server.on('connection', (socket: Socket) => {
      open.add(socket)
      socket.on('error', () => undefined)
      socket.once('close', () => open.delete(socket))
    })
    server.on('sessionError', () => undefined)
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
    const close = (): void => {
      for (const socket of open) socket.destroy()
      server.close()
    }
    return { port: (server.address() as AddressInfo).port, close }
  }
  const [vendor, other] = [await listen(VENDOR), await listen(OTHER)]
  const lookups: string[] = []
  const addresses = new Map<string, string | string[]>([
    [VENDOR, '127.0.0.1'],
    [OTHER, '127.0.0.1'],
  ])
  const lookup: LookupFunction = (hostname, _, callback) => {
    lookups.push(hostname)
    const known = addresses.get(hostname)
    const address = Array.isArray(known) ? known.shift() : known
    if (address === undefined) callback(Object.assign(new Error('not found'), { code: 'ENOTFOUND' }), '')
    else callback(null, [{ address, family: address.includes(':') ? 6 : 4 }])
  }
  const ca = join(folder.path, 'ca')
  const config = {
    server: { port: 0, drain: '2s' },
    admin: { port: 0 },
    store: { dir: join(folder.path, 'store') },
    forwardProxy: {
      port: 0,
      ca,
      ports: [443, other.port],
      networkAccess: { blocked: ['blocked.example', 'https://partly.example/secret'] },
    },
    upstreams: {
      vendor: {
        url: `https://${VENDOR}:${vendor.port}/v2`,
        privateAddresses: 'allow',
        tls: { ca: read('ca.pem') },
        accounts: { main: { credential: { header: 'authorization', value: `Bearer ${VENDOR_KEY}` } } },
        limits: { read: [{ requests: 1_000, window: '1m' }], write: [{ requests: 1_000, window: '1m' }] },
      },
    },
    clients: {
      tool: { keys: [hashKey(KEYS.tool)] },
      narrow: { keys: [hashKey(KEYS.narrow)], networkAccess: { allowed: [VENDOR] } },
    },
    ...change(other.port),
  }
  const lines: AccessLine[] = []
  const log = createLog({ level: 'silent', format: 'json' })
  const gateway = await runGateway(checkConfig(config, 'test'), {
    log: { ...log, access: (line) => void lines.push(line) },
    lookup,
  })
  const proxyUrl = gateway.forwardProxyUrl!
  return {
    gateway,
    proxyUrl,
    proxyFor: (key) => proxyUrl.replace('//', `//tool:${key}@`),
    lines,
    seen,
    vendor: `${VENDOR}:${vendor.port}`,
    otherPort: other.port,
    addresses,
    lookups,
    ca: config.forwardProxy.ca,
    vendorCa: read('ca.pem'),
    folder: folder.path,
    metrics: async () => (await fetch(`${gateway.adminUrl}/metrics`)).text(),
    async close() {
      await gateway.stop()
      vendor.close()
      other.close()
      folder.remove()
    },
  }
}

export const basic = (key: string): string => `Basic ${Buffer.from(`tool:${key}`).toString('base64')}`

/** A connection on which CONNECT was asked for, and all that was answered so far. */
export async function askTunnel(proxyUrl: string, authority: string, key?: string): Promise<RawClient> {
  const client = await RawClient.connect(proxyUrl)
  const credentials = key === undefined ? '' : `Proxy-Authorization: ${basic(key)}\r\n`
  client.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${credentials}\r\n`)
  await client.until(/\r\n\r\n/)
  return client
}

/** TLS in such a tunnel. */
export async function tlsIn(client: RawClient, options: ConnectionOptions): Promise<TLSSocket> {
  client.socket.removeAllListeners('data')
  const secure = connectTls({ socket: client.socket, ...options })
  await once(secure, 'secureConnect')
  return secure
}
