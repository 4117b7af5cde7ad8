import { once } from 'node:events'
import {
  type ClientHttp2Session,
  constants,
  createServer,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
// @ts-expect-error: it has no types
import symbols from 'undici/lib/core/symbols.js'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Pool } from '../../src/packages/undici.ts'
import { cancelStreams } from '../../src/upstream/cancel-streams.ts'
import {
  type OutgoingRequest,
  type ResponseControl,
  type ResponseHandler,
  Transport,
} from '../../src/upstream/transport.ts'

const CANCEL = constants.NGHTTP2_CANCEL
const OVER = new Error('it is over')
const GET: OutgoingRequest = { method: 'GET', path: '/', headers: [], body: null, upgrade: null }

describe('a stream of HTTP/2 that is given up', () => {
  it('is cancelled upstream though it was sent just before', async () => {
    const { transport, streams } = await setUp()
    const call = send(transport, GET)
    await expect.poll(() => streams.length).toBe(2)
    call.control!.abort(OVER)
    // In the same turn of the event loop.
    const next = send(transport, GET)
    next.control!.abort(OVER)
    await expect.poll(() => streams.map(({ rstCode }) => rstCode)).toEqual([0, CANCEL, CANCEL])
  })

  it('is cancelled upstream though that has not read the body', async () => {
    const { transport, streams } = await setUp()
    const call = send(transport, { ...GET, method: 'PUT', body: Buffer.alloc(1_000_000) })
    await expect.poll(() => streams.length).toBe(2)
    call.control!.abort(OVER)
    await expect.poll(() => streams[1]!.rstCode).toBe(CANCEL)
  })

  it('is cancelled upstream while the answer to another is read', async () => {
    const { transport, streams } = await setUp()
    const slow = send(transport, GET)
    await expect.poll(() => streams.length).toBe(2)
    send(transport, GET, { onResponseStart: () => slow.control!.abort(OVER) })
    await expect.poll(() => streams.length).toBe(3)
    streams[2]!.respond({ ':status': 200 }, { endStream: true })
    await expect.poll(() => streams[1]!.rstCode).toBe(CANCEL)
  })

  it('is cancelled upstream in the middle of its answer', async () => {
    const { transport, streams } = await setUp()
    send(transport, GET, { onResponseData: (control) => control.abort(OVER) })
    await expect.poll(() => streams.length).toBe(2)
    streams[1]!.respond({ ':status': 200 })
    streams[1]!.write('some')
    await expect.poll(() => streams[1]!.rstCode).toBe(CANCEL)
  })

  it('does not end the body of which a part was sent', async () => {
    const { transport, streams } = await setUp()
    const call = send(transport, { ...GET, method: 'POST', body: endless() })
    await expect.poll(() => streams.length).toBe(2)
    const stream = streams[1]!
    await once(stream, 'data')
    call.control!.abort(OVER)
    await once(stream, 'end')
    expect(stream.aborted).toBe(true)
    await expect.poll(() => stream.rstCode).toBe(CANCEL)
  })
})

it('a stream of HTTP/2 whose answer came before the rest of its body is cancelled', async () => {
  const { transport, streams } = await setUp()
  const answered = Promise.withResolvers<void>()
  send(transport, { ...GET, method: 'POST', body: endless() }, { onResponseEnd: () => answered.resolve() })
  await expect.poll(() => streams.length).toBe(2)
  const stream = streams[1]!
  await once(stream, 'data')
  stream.respond({ ':status': 200 }, { endStream: true })
  await answered.promise
  // Before the connection ends by itself, because it seems to be idle.
  await expect.poll(() => stream.rstCode, { timeout: 5_000 }).toBe(CANCEL)
})

it.each([
  ['is not whole where it is reset without an error', 'onResponseError', false],
  ['is whole where it is reset after its end', 'onResponseEnd', true],
] as const)('an answer over HTTP/2 %s', async (_, event, isWhole) => {
  const { transport, streams } = await setUp()
  const ended = Promise.withResolvers<string>()
  const body = Buffer.alloc(1_000_000)
  send(
    transport,
    { ...GET, method: 'POST', body },
    {
      onResponseEnd: () => ended.resolve('onResponseEnd'),
      onResponseError: () => ended.resolve('onResponseError'),
    },
  )
  await expect.poll(() => streams.length).toBe(2)
  const stream = streams[1]!
  // Node does not end a stream that waits for its trailers.
  stream.respond({ ':status': 200 }, { waitForTrailers: !isWhole })
  stream.write('half')
  if (isWhole) stream.end()
  else stream.close(constants.NGHTTP2_NO_ERROR)
  expect(await ended.promise).toBe(event)
})

describe('a connection of HTTP/2 on which nothing came since a stream began that is given up', () => {
  it('is given up where it does not answer a PING either', async () => {
    const { port } = await startServer()
    const sockets: Socket[] = []
    const line = createTcpServer((socket) => {
      if (sockets.push(socket) === 1) socket.resume().write(SETTINGS)
      else socket.pipe(connect(port, '127.0.0.1')).pipe(socket)
    })
    await once(line.listen(0, '127.0.0.1'), 'listening')
    onTestFinished(() => {
      for (const socket of sockets) socket.destroy()
      line.close()
    })
    const transport = transportTo(line.address() as AddressInfo, 50)
    await expect.poll(() => isAnswered(transport), { timeout: 5_000 }).toBe(true)
    expect(sockets).toHaveLength(2)
  })

  it('goes on where it answers a PING', async () => {
    const { transport, streams, sessions } = await setUp(50)
    const slow = send(transport, GET)
    await expect.poll(() => streams.length).toBe(2)
    slow.control!.abort(OVER)
    await pause(150)
    send(transport, GET)
    await expect.poll(() => streams.length).toBe(3)
    expect(sessions).toHaveLength(1)
  })
})

it.each(['close', 'destroy'] as const)(
  'a call goes over another connection after %s() of the first one',
  async (end) => {
    const { port, sessions } = await startServer()
    const pool = new Pool(`http://127.0.0.1:${port}`, {
      allowH2: true,
      connections: 1,
      ...({ useH2c: true } as object),
    })
    cancelStreams(pool, 5_000)
    const connected = once(pool, 'connect') as Promise<[URL, Record<symbol, ClientHttp2Session>[]]>
    await pool.request({ method: 'GET', path: '/' })
    const [, targets] = await connected
    targets.at(-1)![symbols.kHTTP2Session]![end]()
    const call = pool.request({ method: 'GET', path: '/' })
    await expect.poll(() => sessions.length).toBe(2)
    await Promise.all([expect(call).rejects.toThrow(OVER), pool.destroy(OVER)])
  },
)

const SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])

async function* endless(): AsyncGenerator<Buffer> {
  yield Buffer.from('some')
  await new Promise(() => undefined)
}

async function isAnswered(transport: Transport): Promise<boolean> {
  let isOver = false
  const call = send(transport, GET, { onResponseEnd: () => void (isOver = true) })
  await pause(20)
  call.control?.abort(OVER)
  return isOver
}

/** A connection on which one request was answered. */
async function setUp(connectTimeoutMs?: number) {
  const { port, streams, sessions } = await startServer()
  const transport = transportTo({ port }, connectTimeoutMs)
  await new Promise<void>((resolve) => send(transport, GET, { onResponseEnd: () => resolve() }))
  return { transport, streams, sessions }
}

/** Answers the first request that it gets. */
async function startServer() {
  const streams: ServerHttp2Stream[] = []
  const sessions: ServerHttp2Session[] = []
  const server = createServer()
  server.on('session', (session) => void sessions.push(session.on('error', () => undefined)))
  server.on('stream', (stream: ServerHttp2Stream) => {
    stream.on('error', () => undefined)
    if (streams.push(stream) === 1) stream.respond({ ':status': 200 }, { endStream: true })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => {
    for (const session of sessions) session.destroy()
    server.close()
  })
  return { port: (server.address() as AddressInfo).port, streams, sessions }
}

function transportTo({ port }: Pick<AddressInfo, 'port'>, connectTimeoutMs = 5_000): Transport {
  return new Transport({
    url: new URL(`http://127.0.0.1:${port}`),
    connections: 1,
    connectTimeoutMs,
    tlsTimeoutMs: 5_000,
    idleTimeoutMs: 60_000,
    tls: {},
    http2: true,
    proxy: undefined,
  })
}

function send(transport: Transport, request: OutgoingRequest, handler: ResponseHandler = {}) {
  const call: { control?: ResponseControl } = {}
  transport.dispatch(request, {
    onResponseStart: () => undefined,
    onResponseData: () => undefined,
    onResponseEnd: () => undefined,
    onResponseError: () => undefined,
    ...handler,
    onRequestStart: (control) => void (call.control = control),
  })
  return call
}
