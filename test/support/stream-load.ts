import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'

const PIECE = Buffer.alloc(262_144, 's')
/** How long a receiver takes nothing at first: whoever buffers instead of waiting shows it then. */
const ASLEEP_MS = 500

export interface Streamed {
  /** What arrived at the other end. */
  readonly bytes: number
  /** How much memory the gateway had before, and at its peak meanwhile, as the system counts it. */
  readonly rssBefore: number
  readonly rssPeak: number
}

/** An upstream that takes uploads of any length, and answers a GET with as many bytes as its query says. */
export async function startStreamUpstream(asleepMs = ASLEEP_MS): Promise<{ readonly url: string; stop(): void }> {
  const server = createServer((request, response) => {
    if (request.method === 'GET') return void send(Number(request.url?.split('bytes=')[1]), response)
    return void count(request, asleepMs).then((bytes) => response.end(String(bytes)))
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    stop() {
      server.closeAllConnections()
      server.close()
    },
  }
}

export async function upload(gateway: { url: string; pid: number }, path: string, bytes: number): Promise<Streamed> {
  const { hostname, port } = new URL(gateway.url)
  const socket = connect(Number(port), hostname)
  await once(socket, 'connect')
  const memory = new PeakMemory(gateway.pid)
  const answer = once(socket, 'data') as Promise<[Buffer]>
  socket.write(`PUT ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: ${bytes}\r\n\r\n`)
  await send(bytes, socket, false)
  const [response] = await answer
  socket.destroy()
  return { bytes: Number(response.toString().split('\r\n\r\n')[1]?.split('\r\n').at(-1)), ...memory.peak() }
}

export async function download(
  gateway: { url: string; pid: number },
  path: string,
  bytes: number,
  asleepMs = ASLEEP_MS,
): Promise<Streamed> {
  const { hostname, port } = new URL(gateway.url)
  const socket = connect(Number(port), hostname)
  await once(socket, 'connect')
  const memory = new PeakMemory(gateway.pid)
  socket.write(`GET ${path}?bytes=${bytes} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
  await pause(asleepMs)
  let received = 0
  let head = ''
  // Not until the connection ends: the bare plugin keeps it open, whatever the request says.
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    if (head.includes('\r\n\r\n')) received += chunk.length
    else {
      head += chunk.toString('latin1')
      received = Math.max(0, head.length - head.indexOf('\r\n\r\n') - 4)
    }
    if (received >= bytes) break
  }
  return { bytes: received, ...memory.peak() }
}

/** Writes as fast as it is taken. */
async function send(bytes: number, to: Socket | ServerResponse, ends = true): Promise<void> {
  if ('writeHead' in to) to.writeHead(200, { 'content-length': bytes })
  for (let left = bytes; left > 0; left -= PIECE.length) {
    if (!to.write(left < PIECE.length ? PIECE.subarray(0, left) : PIECE)) await once(to, 'drain')
  }
  if (ends) to.end()
}

async function count(request: IncomingMessage, asleepMs: number): Promise<number> {
  await pause(asleepMs)
  let bytes = 0
  for await (const chunk of request) bytes += (chunk as Buffer).length
  return bytes
}

class PeakMemory {
  readonly #pid: number
  readonly #before: number

  constructor(pid: number) {
    this.#pid = pid
    this.#before = this.#read('VmRSS')
    // Forgets the peak so far (proc_pid_clear_refs(5)).
    writeFileSync(`/proc/${pid}/clear_refs`, '5')
  }

  peak(): { rssBefore: number; rssPeak: number } {
    return { rssBefore: this.#before, rssPeak: this.#read('VmHWM') }
  }

  #read(name: string): number {
    const status = readFileSync(`/proc/${this.#pid}/status`, 'utf8')
    return Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1]) * 1_024
  }
}
