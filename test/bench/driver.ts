import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'

/**
 * The other side of a benchmark: an upstream that answers at once, and clients that ask again as soon as they are answered.
 * Both speak just enough HTTP, so that the proxy between them is what the machine is busy with.
 */
const BODY = JSON.stringify({ status: 'SUCCESS', data: { content: ['x'.repeat(200)] } })
// The fields that an API behind a load balancer usually sends, and those of a generated client.
const ANSWER = message(['HTTP/1.1 200 OK'], BODY, {
  Date: 'Sat, 01 Jan 2028 00:00:00 GMT',
  'Content-Type': 'application/json',
  'Content-Length': String(BODY.length),
  Connection: 'keep-alive',
  'X-Request-Id': '5f2f9d0e-6c7b-4c39-9f0a-3b8f3a1f7c55',
  'Cache-Control': 'no-cache, no-store, must-revalidate',
  'Strict-Transport-Security': 'max-age=31536000; includeSubDomains; preload',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'SAMEORIGIN',
  Vary: 'Origin, Accept-Encoding',
})
/** The key that the benchmarked programs know. */
export const BENCH_KEY = 'slk_bench'
const REQUEST_FIELDS = {
  Host: '127.0.0.1',
  Connection: 'keep-alive',
  Accept: 'application/json, text/plain, */*',
  'Accept-Encoding': 'gzip, deflate, br',
  'Content-Type': 'application/json',
  'User-Agent': 'generated-sdk/1.4.0 (linux; x64)',
  'X-Api-Key': BENCH_KEY,
}

function message(startLine: readonly string[], body: string, fields: Record<string, string>): Buffer {
  const head = [...startLine, ...Object.entries(fields).map(([name, value]) => `${name}: ${value}`)]
  return Buffer.from(`${head.join('\r\n')}\r\n\r\n${body}`)
}

export function startUpstream(): Promise<{ port: number; server: Server }> {
  const server = createServer((socket) => {
    socket.setNoDelay(true)
    let pending = ''
    socket.on('data', (chunk) => {
      pending += chunk.toString('latin1')
      for (let end = pending.indexOf('\r\n\r\n'); end >= 0; end = pending.indexOf('\r\n\r\n')) {
        pending = pending.slice(end + 4)
        socket.write(ANSWER)
      }
    })
    socket.on('error', () => socket.destroy())
  })
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve({ port: (server.address() as { port: number }).port, server }))
  })
}

/**
 * Keeps this process polling instead of sleeping, until the returned function is called. To wake a sleeping reader costs its
 * writer up to ten microseconds, and a slow proxy finds its readers asleep more often: that would count against it twice.
 */
export function stayAwake(): () => void {
  let isAwake = true
  const poll = (): void => {
    if (isAwake) setImmediate(poll)
  }
  poll()
  return () => {
    isAwake = false
  }
}

export interface LoadResult {
  readonly requests: number
  readonly failures: number
  /** Head of the first answer whose status was not 200. */
  readonly firstFailure: string | undefined
  /** Milliseconds, sorted. */
  readonly latencies: Float64Array
}

/** A GET as `load` sends it. */
export function get(path: string, fields: Record<string, string> = {}): Buffer {
  return message([`GET ${path} HTTP/1.1`], '', { ...REQUEST_FIELDS, ...fields })
}

/** A connection that is asked one thing at a time. Calls `onAnswer` with the head of each answer, whose body has come as well. */
function connection(port: number, onAnswer: (head: string) => void, onError: (error: Error) => void): Socket {
  const socket: Socket = connect(port, '127.0.0.1')
  socket.setNoDelay(true)
  let head = ''
  let missing = 0
  const answered = (): void => {
    const whole = head
    head = ''
    missing = 0
    onAnswer(whole)
  }
  socket.on('error', onError)
  socket.on('data', (chunk) => {
    if (missing > 0) {
      missing -= chunk.length
      if (missing <= 0) answered()
      return
    }
    head += chunk.toString('latin1')
    const end = head.indexOf('\r\n\r\n')
    if (end < 0) return
    missing = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0) - (head.length - end - 4)
    if (missing <= 0) answered()
  })
  return socket
}

const isOk = (head: string): boolean => head.startsWith('HTTP/1.1 200')

/** Sends GETs over `connections`, one at a time on each, for so many milliseconds or calls: of that path, or these in turn. */
export async function load(
  port: number,
  path: string | readonly Buffer[],
  connections: number,
  length: number | { readonly calls: number },
): Promise<LoadResult> {
  const { ms, calls } = typeof length === 'number' ? { ms: length, calls: Infinity } : { ms: Infinity, ...length }
  const requests = typeof path === 'string' ? [get(path)] : path
  let sent = 0
  const latencies: number[] = []
  let failures = 0
  let firstFailure: string | undefined
  const until = performance.now() + ms
  const client = (): Promise<void> =>
    new Promise((resolve, reject) => {
      let sentAt = 0
      const send = (): void => {
        if (sent >= calls || performance.now() >= until) {
          socket.destroy()
          resolve()
          return
        }
        sentAt = performance.now()
        socket.write(requests[sent++ % requests.length]!)
      }
      const answered = (head: string): void => {
        latencies.push(performance.now() - sentAt)
        if (!isOk(head)) {
          failures++
          firstFailure ??= head
        }
        send()
      }
      const socket = connection(port, answered, reject)
      socket.on('connect', send)
    })
  await Promise.all(Array.from({ length: connections }, client))
  return { requests: latencies.length, failures, firstFailure, latencies: Float64Array.from(latencies).sort() }
}

/**
 * Sends GETs at a steady mean rate, at random moments as independent clients do, whether or not those before were answered. A
 * latency counts from the moment at which the request was due: one that had to wait for a free connection, or for this process,
 * counts as late. Otherwise a stall would delay the very requests that would have shown it (coordinated omission).
 */
export async function openLoad(
  port: number,
  path: string | readonly Buffer[],
  { connections, perSecond, durationMs }: { connections: number; perSecond: number; durationMs: number },
): Promise<LoadResult> {
  const requests = typeof path === 'string' ? [get(path)] : path
  const count = Math.round((perSecond * durationMs) / 1_000)
  const latencies = new Float64Array(count)
  const idle: ((dueAt: number) => void)[] = []
  const { promise: done, resolve, reject } = Promise.withResolvers<void>()
  let [sent, answers, failures] = [0, 0, 0]
  let firstFailure: string | undefined
  const sockets = Array.from({ length: connections }, () => {
    let wasDueAt = 0
    const send = (dueAt: number): void => {
      wasDueAt = dueAt
      socket.write(requests[sent++ % requests.length]!)
    }
    const answered = (head: string): void => {
      latencies[answers++] = performance.now() - wasDueAt
      if (!isOk(head)) {
        failures++
        firstFailure ??= head
      }
      if (answers === count) resolve()
      idle.push(send)
    }
    const socket = connection(port, answered, reject)
    socket.on('connect', () => idle.push(send))
    return socket
  })
  await Promise.all(sockets.map((socket) => once(socket, 'connect')))
  const gapMs = (): number => (-Math.log(1 - Math.random()) * 1_000) / perSecond
  let dueAt = performance.now() + gapMs()
  const poll = (): void => {
    for (; sent < count && dueAt <= performance.now(); dueAt += gapMs()) {
      const send = idle.pop()
      if (send === undefined) break
      send(dueAt)
    }
    if (sent < count) setImmediate(poll)
  }
  poll()
  await done
  for (const socket of sockets) socket.destroy()
  return { requests: count, failures, firstFailure, latencies: latencies.sort() }
}
