import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, connect, type Server, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import type { TLSSocket } from 'node:tls'
import { parseArgs } from 'node:util'
import { makeCertificates } from '../support/certificates.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { bar } from './bar.ts'
import { get } from './driver.ts'
import { residentKb } from './process-tree.ts'
import { type Started, startProgram } from './started.ts'

/**
 * `npm run bench:connections`: the resident memory of one gateway process for each idle connection and each open stream of events, and
 * how many TLS handshakes with an upstream that closes its connections are full ones.
 */
const { values } = parseArgs({
  options: { idle: { type: 'string', default: '10000' }, streams: { type: 'string', default: '5000' } },
})
const MOST_KB = 40
/** Connections that the upstream closes after one answer each. */
const TLS_CALLS = 100
/** So many are opened at a time: a server takes 511 at once. */
const AT_ONCE = 100

const folder = temporaryFolder('connections')
const certificates = makeCertificates(['localhost'])
const open: ServerResponse[] = []
const upstream = createServer((request, response) => {
  if (request.url !== '/events') return void response.end('{}')
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' })
  response.write('data: 1\n\n')
  return void open.push(response)
})
let resumed = 0
const [key, cert] = [certificates.read('localhost.key'), certificates.read('localhost.pem')]
const secure = createTlsServer({ key, cert }, (_, response) => void response.setHeader('connection', 'close').end('{}'))
secure.on('secureConnection', (socket: TLSSocket) => void (resumed += Number(socket.isSessionReused())))
const gateway = await startProgram(
  {
    server: { port: 0, connectionsPerAddress: 100_000 },
    upstreams: {
      plain: { url: `http://127.0.0.1:${await listening(upstream)}`, connections: 50_000, ...anyCalls() },
      secure: {
        url: `https://localhost:${await listening(secure)}`,
        tls: { ca: certificates.read('ca.pem') },
        ...anyCalls(),
      },
    },
  },
  folder.path,
)
try {
  // The first few hundred pay for code and for room that later ones use again.
  await close(await openAll(300, '/plain/warm-up'))
  await close(await openAll(300, '/plain/events'))
  await perConnection('idle connections', Number(values.idle), '/plain/warm-up')
  await perConnection('event streams', Number(values.streams), '/plain/events')
  for (let i = 0; i < TLS_CALLS; i++) await close(await openAll(1, '/secure/thing'))
  console.log(`${TLS_CALLS} TLS connections to an upstream, one after the other: ${resumed} sessions resumed`)
  bar('full TLS handshakes', TLS_CALLS - resumed, { atMost: 1 }, '')
} finally {
  await gateway.stop()
  folder.remove()
  certificates.remove()
}
process.exit()

async function perConnection(what: string, count: number, path: string): Promise<void> {
  const before = await residentOf(gateway)
  const sockets = await openAll(count, path)
  const after = await residentOf(gateway)
  const mebibytes = `${(before / 1_024).toFixed(0)} MiB before, ${(after / 1_024).toFixed(0)} MiB with them`
  console.log(`${count} ${what}: ${mebibytes}`)
  bar(`resident memory for each of ${count} ${what}`, (after - before) / count, { atMost: MOST_KB }, 'KB')
  // Those that stay must still be served.
  if (path.endsWith('/events')) {
    const arrived = Promise.all(sockets.map((socket) => once(socket, 'data')))
    for (const response of open) response.write('data: 2\n\n')
    await arrived
  }
  await close(sockets)
}

/** Opened connections on each of which one call was answered, or has begun to be. */
async function openAll(count: number, path: string): Promise<Socket[]> {
  const sockets: Socket[] = []
  while (sockets.length < count) {
    const some = Array.from({ length: Math.min(AT_ONCE, count - sockets.length) }, () =>
      connect(gateway.port, '127.0.0.1'),
    )
    const answers = await Promise.all(
      some.map((socket) => {
        socket.write(get(path))
        return once(socket, 'data') as Promise<[Buffer]>
      }),
    )
    for (const [answer] of answers)
      if (!answer.toString().startsWith('HTTP/1.1 200')) throw new Error(answer.toString())
    sockets.push(...some)
  }
  return sockets
}

async function close(sockets: readonly Socket[]): Promise<void> {
  for (const socket of sockets) socket.destroy()
  for (const response of open.splice(0)) response.destroy()
  await pause(sockets.length > 1 ? 1_000 : 0)
}

/** When it has settled. */
async function residentOf({ pid }: Started): Promise<number> {
  await pause(3_000)
  return residentKb(pid)
}

async function listening(server: Server): Promise<number> {
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return (server.address() as AddressInfo).port
}

function anyCalls(): object {
  return { accounts: { main: {} }, limits: { read: [], write: [] } }
}
