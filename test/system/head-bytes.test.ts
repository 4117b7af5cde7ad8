import { once } from 'node:events'
import {
  connect,
  createServer as createHttp2Server,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { newFolder, startGateway } from '../support/gateway.ts'
import { RawClient } from '../support/http.ts'

/** Every byte that a field may have beyond ASCII: no UTF-8, and none that an encoding and back would leave as it is. */
const BYTES = `gr\xfcn \xe2\x82\xac ${String.fromCharCode(...Array.from({ length: 128 }, (_, i) => 128 + i))}`
const FIELD = `x-a: ${BYTES}`

/** What the upstream answers; `rest` comes when the client has the head. */
interface Way {
  readonly method?: string
  readonly status?: number
  readonly fields?: readonly string[]
  readonly body?: string
  readonly rest?: string
  readonly hints?: boolean
  readonly trailers?: boolean
}

const ways: Readonly<Record<string, Way>> = {
  'with its body': { body: 'hello' },
  'before its body': { rest: 'hello' },
  'before its body, of a length that is known': { fields: ['content-length: 5'], rest: 'hello' },
  'without a body': { fields: ['content-length: 0'] },
  'of a HEAD': { method: 'HEAD', fields: ['content-length: 5'] },
  'of a 204': { status: 204 },
  'of a 304': { status: 304 },
  'of an error': { status: 404, body: 'hello' },
  'of an error that is no longer retried': { status: 503, rest: 'hello' },
  'with a disposition and a length': {
    fields: [`content-disposition: attachment; filename="${BYTES.slice(0, 4)}"`, 'content-length: 5'],
    body: 'hello',
  },
  'with cookies': { fields: [`set-cookie: a=${BYTES}`, `set-cookie: b=${BYTES}`], body: 'hello' },
  'of a response before the response': { hints: true, rest: 'hello' },
  'behind the body': { body: 'hello', trailers: true },
}

describe.each(['HTTP/1.1', 'HTTP/2'] as const)('the head of a response that comes in %s', (upstreamVersion) => {
  describe.each(['HTTP/1.1', 'HTTP/2'] as const)('has the same bytes when it leaves in %s', (clientVersion) => {
    it.each(Object.entries(ways))('%s', async (_, way) => {
      const gone = Promise.withResolvers<void>()
      const upstream = await startUpstream(upstreamVersion, way, gone.promise)
      const gateway = await startGateway(config(upstream.url, upstreamVersion))
      const ask = clientVersion === 'HTTP/2' ? askHttp2 : askHttp1
      const seen = await ask(gateway.url, way.method ?? 'GET', () => gone.resolve())
      const expected = [...(way.fields ?? []).filter((field) => !field.startsWith('content-length')), FIELD]
      for (const field of new Set(expected)) {
        const times = field === FIELD ? 1 + Number(way.hints === true) + Number(way.trailers === true) : 1
        expect(
          seen.filter((one) => one === field),
          field.slice(0, 12),
        ).toHaveLength(times)
      }
    })
  })
})

describe('the head of a request', () => {
  const bodies = {
    'without a body': ['GET', undefined],
    'with a body that is collected': ['PUT', 'hello'],
    'with a body that streams': ['POST', 'x'.repeat(100_000)],
  } as const
  describe.each(['HTTP/1.1', 'HTTP/2'] as const)('that comes in %s', (clientVersion) => {
    describe.each(['HTTP/1.1', 'HTTP/2'] as const)('has the same bytes when it leaves in %s', (upstreamVersion) => {
      it.each(Object.entries(bodies))('%s', async (_, [method, body]) => {
        const upstream = await startUpstream(upstreamVersion, { body: 'hello' }, Promise.resolve())
        const gateway = await startGateway(config(upstream.url, upstreamVersion))
        await (clientVersion === 'HTTP/2' ? askHttp2 : askHttp1)(gateway.url, method, () => undefined, body)
        expect(upstream.fields).toContain(FIELD)
      })
    })
  })
})

it.each(['HTTP/1.1', 'HTTP/2'] as const)(
  'a target with bytes beyond ASCII leaves in %s as it came, in HTTP/2',
  async (version) => {
    const upstream = await startUpstream(version, { body: 'hello' }, Promise.resolve())
    const gateway = await startGateway(config(upstream.url, version))
    const client = connect(gateway.url)
    onTestFinished(() => client.destroy())
    const stream = client.request({ ':path': '/api/gr\xfcn?\xe4=\xdf' })
    await once(stream, 'response')
    stream.resume()
    const line = version === 'HTTP/2' ? ':path: /gr\xfcn?\xe4=\xdf' : 'get /gr\xfcn?\xe4=\xdf http/1.1'
    expect(upstream.fields).toContain(line)
  },
)

describe('a WebSocket', () => {
  it.each([101, 403])('has the same bytes in its request and in the head of a %i', async (status) => {
    const answer = `HTTP/1.1 ${status} X\r\n${FIELD}\r\n${
      status === 101 ? 'Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n' : 'Content-Length: 2\r\n\r\nno'
    }`
    const upstream = await startRaw((_, write) => write(answer))
    const gateway = await startGateway(config(upstream.url, 'HTTP/1.1'))
    const client = await RawClient.connect(gateway.url)
    const upgrade = 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
    client.write(`GET /api/x HTTP/1.1\r\nHost: x\r\n${upgrade}${FIELD}\r\n\r\n`)
    const head = await client.until(/\r\n\r\n/)
    expect(head).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `))
    expect(head.split('\r\n')).toContain(FIELD)
    expect(upstream.fields).toContain(FIELD)
    client.socket.destroy()
  })
})

it('the head of a response has the same bytes when it comes out of the cache', async () => {
  const upstream = await startUpstream(
    'HTTP/1.1',
    { fields: ['cache-control: max-age=60', 'content-length: 5'], body: 'hello' },
    Promise.resolve(),
  )
  const gateway = await startGateway(config(upstream.url, 'HTTP/1.1'))
  for (const method of ['GET', 'GET', 'HEAD'])
    expect(await askHttp1(gateway.url, method, () => undefined), method).toContain(FIELD)
  expect(upstream.requests).toBe(1)
})

function config(url: string, version: string): object {
  return {
    server: { port: 0, http2: true },
    admin: { port: 0 },
    store: { kind: 'memory', dir: newFolder() },
    upstreams: {
      api: {
        url,
        http2: version === 'HTTP/2',
        accounts: { main: {} },
        limits: { read: [] },
        routes: [{ path: '/*', class: 'read', cache: true }],
        retry: { retries: 0 },
      },
    },
  }
}

/** Heads and trailers as lines of `name: value`, with names in lower case. */
function linesOf(text: string): string[] {
  return text.split('\r\n').map((line) => line.replace(/^[^:]+/, (name) => name.toLowerCase()))
}

async function askHttp1(url: string, method: string, onHead: () => void, body?: string): Promise<string[]> {
  const client = await RawClient.connect(url)
  const length = body === undefined ? '' : `Content-Length: ${body.length}\r\n`
  client.write(`${method} /api/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${FIELD}\r\n${length}\r\n${body ?? ''}`)
  await client.until(/HTTP\/1\.1 [2-5]\d\d [^]*\r\n\r\n/)
  onHead()
  return linesOf(await client.closed())
}

async function askHttp2(url: string, method: string, onHead: () => void, body?: string): Promise<string[]> {
  const client = connect(url)
  onTestFinished(() => client.destroy())
  const stream = client.request(
    { ':method': method, ':path': '/api/x', 'x-a': BYTES },
    { endStream: body === undefined },
  )
  const seen: string[] = []
  const note = (headers: IncomingHttpHeaders): void => {
    for (const [name, value] of Object.entries(headers))
      for (const one of [value ?? ''].flat()) seen.push(`${name}: ${one}`)
  }
  stream.on('headers', note).on('trailers', note)
  if (body !== undefined) stream.end(body)
  note(((await once(stream, 'response')) as [IncomingHttpHeaders])[0])
  onHead()
  await stream.resume().toArray()
  return seen
}

interface Upstream {
  readonly url: string
  /** Of the last request. */
  readonly fields: readonly string[]
  readonly requests: number
}

function startUpstream(version: 'HTTP/1.1' | 'HTTP/2', way: Way, gone: Promise<void>): Promise<Upstream> {
  const { status = 200, fields = [], body = '', rest, hints = false, trailers = false } = way
  if (version === 'HTTP/2') return startHttp2(way, gone)
  const isEmpty = status === 204 || status === 304 || fields.some((field) => field.startsWith('content-length'))
  return startRaw((_, write) => {
    const chunk = (text: string): string => (isEmpty || text === '' ? text : `${text.length}\r\n${text}\r\n`)
    const framing = isEmpty ? [] : ['transfer-encoding: chunked']
    const head = [`HTTP/1.1 ${status} X`, ...fields, FIELD, ...framing, '', ''].join('\r\n')
    const end = isEmpty ? '' : `0\r\n${trailers ? `${FIELD}\r\n` : ''}\r\n`
    write(`${hints ? `HTTP/1.1 103 Early Hints\r\n${FIELD}\r\n\r\n` : ''}${head}${chunk(body)}`)
    if (rest === undefined) write(end)
    else void gone.then(() => write(chunk(rest) + end))
  })
}

/** Answers every request, once it is there whole, by bytes. */
async function startRaw(answer: (head: string, write: (text: string) => void) => void): Promise<Upstream> {
  let fields: readonly string[] = []
  let requests = 0
  const server = createTcpServer((socket) => {
    let received = ''
    socket.on('error', () => undefined)
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1')
      const [head = '', body] = received.split('\r\n\r\n')
      const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0)
      // What else there is of a body in chunks is no request.
      const isHead = / HTTP\/1\.1\r\n/.test(head)
      if (isHead && (body === undefined || body.length < length)) return
      received = ''
      if (!isHead) return
      fields = linesOf(head)
      requests++
      answer(head, (text) => void socket.write(text, 'latin1'))
    })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => void server.close())
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get fields() {
      return fields
    },
    get requests() {
      return requests
    },
  }
}

async function startHttp2(way: Way, gone: Promise<void>): Promise<Upstream> {
  const { method = 'GET', status = 200, fields = [], body = '', rest, hints = false, trailers = false } = way
  let seen: readonly string[] = []
  let requests = 0
  const server = createHttp2Server()
  server.on('session', (one) => onTestFinished(() => one.destroy()))
  server.on('stream', (stream: ServerHttp2Stream, headers) => {
    requests++
    seen = Object.entries(headers).map(([name, value]) => `${name}: ${String(value)}`)
    stream.on('error', () => undefined).resume()
    if (hints) stream.additionalHeaders({ ':status': 103, 'x-a': BYTES })
    const head: OutgoingHttpHeaders = { ':status': status, 'x-a': BYTES }
    for (const field of fields) {
      const [name = '', value = ''] = field.split(': ')
      head[name] = [head[name] ?? [], value].flat().map(String)
    }
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-a': BYTES }))
    stream.respond(head, {
      waitForTrailers: trailers,
      endStream: method === 'HEAD' || status === 204 || status === 304,
    })
    if (stream.writableEnded) return
    if (rest === undefined) return void stream.end(body)
    void gone.then(() => stream.end(rest))
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => void server.close())
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get fields() {
      return seen
    },
    get requests() {
      return requests
    },
  }
}
