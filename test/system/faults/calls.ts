import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse, request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { setTimeout as pause } from 'node:timers/promises'
import WebSocket, { WebSocketServer } from 'ws'
import type { Kind } from './table.ts'

/** What a client saw of its call. */
export type Seen =
  | { readonly kind: 'answered' }
  | { readonly kind: 'refused'; readonly error: string }
  | { readonly kind: 'broken off' }
  | { readonly kind: 'closed' }
  /** What must never be. */
  | { readonly kind: 'wrong'; readonly why: string }

const HANG_MS = 60_000
/** Larger than what is kept of a body so that it can be sent again. */
const STREAMED_PIECES = 48
const PIECE = Buffer.alloc(65_536, 'p')
/** Larger than what is collected before it is sent, but kept meanwhile. */
const BODY = Buffer.alloc(262_144, 'b')
const EVENTS = ['data: one\n\n', 'data: two\n\n', 'data: three\n\n']
const ANSWER = 'a whole answer, of which nothing may be missing'.repeat(4)

/** An upstream that notes every request which reaches it, by its path, before it answers. */
export async function startFaultUpstream() {
  const arrivals = new Map<string, number>()
  const note = ({ url = '' }: IncomingMessage): void => void arrivals.set(url, (arrivals.get(url) ?? 0) + 1)
  const server = createServer((request, response) => {
    note(request)
    request.on('error', () => undefined)
    response.on('error', () => undefined)
    request.resume().on('end', () => {
      if (request.headers.accept !== 'text/event-stream') {
        // In chunks, because garbage would be taken for a body of which only the length is known.
        response.writeHead(200, { 'content-type': 'text/plain' })
        response.flushHeaders()
        return void setImmediate(() => response.end(ANSWER))
      }
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      void tell(response)
    })
  })
  // It closes no connection by itself: whoever stalls long enough would be taken for one that is idle.
  server.keepAliveTimeout = 0
  const sockets = new WebSocketServer({ noServer: true })
  server.on('upgrade', (request, socket, head) => {
    note(request)
    sockets.handleUpgrade(request, socket, head, (peer) => {
      peer.on('error', () => undefined)
      peer.on('message', (data, isBinary) => peer.send(data, { binary: isBinary }))
    })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    arrivals,
    stop() {
      for (const peer of sockets.clients) peer.terminate()
      server.closeAllConnections()
      server.close()
    },
  }
}

async function tell(response: ServerResponse): Promise<void> {
  for (const event of EVENTS) {
    response.write(event)
    await pause(10)
  }
  response.end()
}

/** Makes a call of that kind to its end, however it ends. */
export async function makeCall(kind: Kind, url: string): Promise<Seen> {
  const { promise: hangs, resolve } = Promise.withResolvers<Seen>()
  const timer = setTimeout(() => resolve({ kind: 'wrong', why: `no end within ${HANG_MS} ms` }), HANG_MS)
  try {
    return await Promise.race([kind === 'WebSocket' ? callWebSocket(url) : callHttp(kind, url), hangs])
  } finally {
    clearTimeout(timer)
  }
}

async function callHttp(kind: Exclude<Kind, 'WebSocket'>, url: string): Promise<Seen> {
  const outgoing = httpRequest(url, {
    agent: false,
    method: kind.split(' ').at(-1)?.replace('SSE', 'GET') ?? 'GET',
    headers: kind === 'SSE' ? { accept: 'text/event-stream' } : kind === 'streamed PUT' ? {} : lengthOf(kind),
  })
  const responses = once(outgoing, 'response') as Promise<[IncomingMessage]>
  if (kind === 'streamed PUT') Readable.from(pieces()).pipe(outgoing)
  else outgoing.end(kind === 'POST' || kind === 'replayable PUT' ? BODY : undefined)
  const [response] = await responses.catch((error: unknown) => [error as Error] as const)
  outgoing.on('error', () => undefined)
  if (response instanceof Error) return { kind: 'wrong', why: `no answer at all: ${response.message}` }
  const { statusCode = 0, headers } = response
  const body = await response.toArray().then(
    (chunks) => Buffer.concat(chunks as Buffer[]).toString(),
    () => undefined,
  )
  const error = headers['x-sluice-error']
  if (body === undefined) return { kind: 'broken off' }
  if (error !== undefined) return refusal(String(error), body)
  if (statusCode !== 200) return { kind: 'wrong', why: `status ${statusCode}` }
  const whole = kind === 'SSE' ? EVENTS.join('') : ANSWER
  return body === whole ? { kind: 'answered' } : { kind: 'wrong', why: `looks whole, but is: ${body}` }
}

function refusal(error: string, body: string): Seen {
  const { code } = JSON.parse(body) as { code?: string }
  return code === undefined ? { kind: 'wrong', why: `no refusal: ${body}` } : { kind: 'refused', error }
}

function lengthOf(kind: Kind): Record<string, string> {
  return kind === 'GET' ? {} : { 'content-length': String(BODY.length) }
}

function* pieces(): Generator<Buffer> {
  for (let i = 0; i < STREAMED_PIECES; i++) yield PIECE
}

async function callWebSocket(url: string): Promise<Seen> {
  const { promise, resolve } = Promise.withResolvers<Seen>()
  const client = new WebSocket(url.replace('http', 'ws'))
  client.on('unexpected-response', (_, response) => {
    void response
      .toArray()
      .then((chunks) => resolve(refusal(String(response.headers['x-sluice-error']), chunks.join(''))))
  })
  client.on('open', () => client.send(ANSWER))
  client.on('message', (data: Buffer) => {
    const text = data.toString()
    resolve(text === ANSWER ? { kind: 'answered' } : { kind: 'wrong', why: `another message: ${text}` })
    client.close(1000)
  })
  // What is wrong shows in how it is closed.
  client.on('error', () => undefined)
  client.on('close', (code) => resolve({ kind: code === 1001 ? 'closed' : 'broken off' }))
  return promise.finally(() => void setTimeout(() => client.terminate(), 100))
}
