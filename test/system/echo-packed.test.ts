import type { IncomingMessage, ServerResponse } from 'node:http'
import {
  brotliCompressSync,
  createBrotliCompress,
  createDeflateRaw,
  createGzip,
  createZstdCompress,
  deflateRawSync,
  deflateSync,
  gzipSync,
  zstdCompressSync,
} from 'node:zlib'
import type { Transform } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { newFolder, type Seen, startGateway, startUpstream } from '../support/gateway.ts'
import { open } from '../support/http.ts'

const SECRET = 'vendor-secret+of/the=account'
const HIDDEN = '*'.repeat(SECRET.length)
const ECHO = `{"sent":"${SECRET}"}`
const SCRUBBED = `{"sent":"${HIDDEN}"}`

const PACK: Record<string, (body: string) => Buffer> = {
  gzip: (body) => gzipSync(body),
  'x-gzip': (body) => gzipSync(body),
  deflate: (body) => deflateSync(body),
  // The same without the header of zlib, as some servers send it.
  Deflate: (body) => deflateRawSync(body),
  br: (body) => brotliCompressSync(body),
  zstd: (body) => zstdCompressSync(body),
  'gzip, br': (body) => brotliCompressSync(gzipSync(body)),
}

interface Sent {
  readonly status?: number
  readonly headers?: Record<string, string>
  readonly pieces?: readonly (string | Buffer)[]
  /** The connection breaks behind the pieces. */
  readonly breaks?: boolean
}

/** Of one gateway for all tests here: what the upstream sends next. */
let next: Sent | ((seen: Seen, response: ServerResponse) => void)
let gateway: Awaited<ReturnType<typeof startGateway>>
let url: string

/** Text that packs badly, so that what is sent is about as long. */
function text(bytes: number): string {
  let state = 1
  let made = ''
  while (made.length < bytes) made += (state = (state * 48_271) % 2_147_483_647).toString(36)
  return made
}

async function start(upstream: object = {}): Promise<void> {
  const vendor = await startUpstream((seen, response) => {
    if (typeof next === 'function') return next(seen, response)
    const { status = 200, headers, pieces = [], breaks = false } = next
    response.writeHead(status, { 'content-type': 'application/json', ...headers })
    for (const piece of pieces) response.write(piece)
    if (breaks) setImmediate(() => response.destroy())
    else response.end()
  })
  gateway = await startGateway({
    server: { port: 0 },
    admin: { port: 0 },
    store: { dir: newFolder() },
    upstreams: {
      api: { url: vendor.url, accounts: { main: { credential: { type: 'bearer', value: SECRET } } }, ...upstream },
    },
  })
  url = gateway.url
}

interface Got {
  readonly status: number | undefined
  readonly headers: IncomingMessage['headers']
  readonly body: Buffer
  readonly isWhole: boolean
}

async function get(sent: typeof next, method = 'GET', more: Record<string, string> = {}): Promise<Got> {
  next = sent
  const pieces: Buffer[] = []
  let response: IncomingMessage | undefined
  try {
    response = await open(url, '/api/x', { method, headers: { 'x-sluice-retry': 'off', ...more } })
    for await (const piece of response) pieces.push(piece as Buffer)
  } catch {
    // It was broken off.
  }
  const { statusCode: status, headers = {}, complete: isWhole = false } = response ?? {}
  return { status, headers, body: Buffer.concat(pieces), isWhole }
}

function sent(coding: string, body: Buffer, headers: Record<string, string> = {}): Sent {
  const length = { 'content-encoding': coding, 'content-length': String(body.length) }
  return { headers: { ...length, ...headers }, pieces: [body] }
}

describe('an upstream that packs its answers', () => {
  it.each(Object.keys(PACK))('tells clients nothing of its credential, packed by %s', async (coding) => {
    await start()
    const packed = PACK[coding]!(ECHO)
    const digests = { 'content-md5': 'x', digest: 'x', 'content-digest': 'x', 'repr-digest': 'x' }
    const fields = { ...digests, etag: '"e"', 'cache-control': 'no-transform', vary: 'accept-encoding' }
    const short = await get(sent(coding, packed, fields))
    expect(short.body.toString()).toBe(SCRUBBED)
    // The fields are those of what is passed on.
    expect(short.headers).toMatchObject({
      'content-length': String(SCRUBBED.length),
      etag: 'W/"e-sluice"',
      vary: 'accept-encoding',
      'content-type': 'application/json',
    })
    for (const name of ['content-encoding', ...Object.keys(digests)]) expect(short.headers).not.toHaveProperty(name)

    const clean = PACK[coding]!('{"sent":"nothing"}')
    const untouched = await get(sent(coding, clean, fields))
    expect(untouched.body).toEqual(clean)
    expect(untouched.headers).toMatchObject({
      ...fields,
      'content-encoding': coding,
      'content-length': String(clean.length),
    })

    // Too long to be held: it goes on unpacked. The credential lies where pieces of it meet.
    const long = text(150_000)
    const packedLong = PACK[coding]!(`${long}${SECRET}${long}`)
    const bytes = await get({ headers: { 'content-encoding': coding }, pieces: [packedLong] })
    expect(bytes.body.toString()).toBe(`${long}${HIDDEN}${long}`)
    expect(bytes.isWhole).toBe(true)
    const declared = await get(sent(coding, packedLong, { etag: '"long"' }))
    expect(declared.body.toString()).toBe(`${long}${HIDDEN}${long}`)
    for (const name of ['content-encoding', 'content-length']) expect(declared.headers).not.toHaveProperty(name)

    // Nothing that is packed by half tells it: the rest is what breaks.
    const half = await get({
      headers: { 'content-encoding': coding },
      pieces: [PACK[coding]!(`${ECHO}${long}`).subarray(0, 30_000)],
    })
    expect(half.body.toString()).not.toContain(SECRET)
    expect(half.isWhole).toBe(false)
    const broken = await get({ headers: { 'content-encoding': coding }, pieces: [packed], breaks: true })
    expect(broken.body.toString()).not.toContain(SECRET)
    expect(broken.isWhole).toBe(false)
    const counted = /sluice_credentials_scrubbed_total\{[^}]*\} (\d+)/.exec(await gateway.metrics())
    expect(Number(counted![1])).toBeGreaterThanOrEqual(3)
  })

  it('answers what has no body, or is a part of one, as it was sent', async () => {
    await start()
    const packed = gzipSync(ECHO)
    const head = { 'content-encoding': 'gzip', 'content-length': '100000', etag: '"e"' }
    expect((await get({ headers: head }, 'HEAD')).headers).toMatchObject(head)
    const notModified = await get({ status: 304, headers: { 'content-encoding': 'gzip', etag: '"e"' } })
    expect(notModified).toMatchObject({ status: 304, headers: { 'content-encoding': 'gzip', etag: '"e"' } })
    expect((await get({ status: 204, headers: { 'content-encoding': 'gzip' } })).status).toBe(204)
    const empty = await get({ headers: { 'content-encoding': 'gzip', 'content-length': '0' } })
    expect(empty).toMatchObject({ status: 200, headers: { 'content-encoding': 'gzip' }, isWhole: true })
    const ofMiddle = { 'content-range': `bytes 5-9/${packed.length}`, 'content-encoding': 'gzip' }
    const part = await get({ status: 206, headers: ofMiddle, pieces: [packed.subarray(5, 10)] })
    expect(part).toMatchObject({ status: 206, headers: ofMiddle, body: packed.subarray(5, 10) })
    // A range may be all of it.
    const ofAll = { 'content-range': `bytes 0-${packed.length - 1}/${packed.length}`, 'content-encoding': 'gzip' }
    const all = await get({ status: 206, headers: ofAll, pieces: [packed] })
    expect([all.status, all.body.toString(), all.headers['content-range']]).toEqual([200, SCRUBBED, undefined])
    // What is no text is passed on as it is, packed or not; so is a coding that nobody knows here.
    const image = sent('gzip', packed, { 'content-type': 'image/png' })
    expect((await get(image)).body).toEqual(packed)
    expect((await get(sent('compress', packed))).body).toEqual(packed)
  })

  it('knows the tag of a long answer again, in the conditions of a client and of the cache', async () => {
    await start({ limits: { read: [], write: [] }, routes: [{ path: '/x', class: 'read', cache: true }] })
    const packed = gzipSync(text(150_000))
    const asked: (string | undefined)[] = []
    // As RFC 9110 §13.1 has it: If-Match compares strongly, If-None-Match weakly.
    const vendor: typeof next = ({ headers }, response) => {
      const [match, noneMatch] = [headers['if-match'], headers['if-none-match']]
      asked.push(match ?? noneMatch)
      const fields = { 'content-encoding': 'gzip', 'content-type': 'text/plain', etag: '"v1"' }
      if (match !== undefined) response.writeHead(match.split(', ').includes('"v1"') ? 200 : 412).end()
      else if (noneMatch?.replace(/^W\//, '') === '"v1"') response.writeHead(304, { etag: '"v1"' }).end()
      else response.writeHead(200, { ...fields, 'cache-control': 'public, no-cache' }).end(packed)
    }
    const { status, headers, body } = await get(vendor)
    expect([status, headers.etag, body.length]).toEqual([200, 'W/"v1-sluice"', text(150_000).length])
    expect((await get(vendor, 'PUT', { 'if-match': headers.etag! })).status).toBe(200)
    expect((await get(vendor, 'PUT', { 'if-match': 'W/"mine"' })).status).toBe(412)
    // The PUTs have ended what the cache had. It reads the first of these anew, and asks about it for the second.
    for (let i = 0; i < 2; i++) {
      const kept = await get(vendor)
      expect([kept.status, kept.headers.etag, kept.body.length]).toEqual([200, 'W/"v1-sluice"', body.length])
    }
    const known = await get(vendor, 'GET', { 'if-none-match': headers.etag! })
    expect(known.status).toBe(304)
    expect(asked).toEqual([undefined, '"v1"', 'W/"mine"', undefined, '"v1"', '"v1"'])
  })

  it('may lie about it: a body that is not packed is scrubbed as it is, and one with something behind it, too', async () => {
    await start()
    const plain = await get(sent('gzip', Buffer.from(ECHO)))
    expect(plain.body.toString()).toBe(SCRUBBED)
    expect(plain.headers).not.toHaveProperty('content-encoding')
    for (const coding of ['utf-8', 'none', 'gzip, x-own']) {
      const unknown = await get(sent(coding, Buffer.from(ECHO)))
      expect([unknown.body.toString(), unknown.headers['content-encoding']]).toEqual([SCRUBBED, coding])
    }
    const behind = await get(sent('gzip', Buffer.concat([gzipSync('{}'), Buffer.from(SECRET)])))
    expect(behind.body.toString()).not.toContain(SECRET)
    const wrong = Buffer.concat([gzipSync(ECHO).subarray(0, -8), Buffer.alloc(8)])
    const broken = await get(sent('gzip', wrong))
    expect(broken.body.toString()).not.toContain(SECRET)
    expect(broken.isWhole).toBe(false)
  })

  it('is broken off where a little unpacks to more than anybody can want', async () => {
    await start()
    const bomb = brotliCompressSync(Buffer.alloc(80 * 1_048_576, 32), { params: { 1: 1 } })
    const got = await get(sent('br', bomb))
    expect(got.isWhole).toBe(false)
    expect(got.body.length).toBeLessThanOrEqual(64 * 1_048_576)
  })

  it('is not unpacked where scrubbing is off', async () => {
    await start({ scrub: false })
    const packed = gzipSync(ECHO)
    expect((await get(sent('gzip', packed))).body).toEqual(packed)
  })
})

const STREAMS: Record<string, () => Transform & { flush(done: () => void): void }> = {
  gzip: () => createGzip(),
  deflate: () => createDeflateRaw(),
  br: () => createBrotliCompress(),
  zstd: () => createZstdCompress(),
}

it.each(Object.keys(STREAMS))('passes every event on before the next is sent, packed by %s', async (coding) => {
  await start()
  const packer = STREAMS[coding]!()
  let count = 0
  const send = (): void => {
    if (count++ === 3) return void packer.end()
    packer.write(`data: ${count} ${SECRET}\n\n`)
    packer.flush(() => undefined)
  }
  next = (_, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream', 'content-encoding': coding })
    packer.pipe(response)
    send()
  }
  const events: string[] = []
  // Each is asked for only once the one before has come: one that was held back would be waited for until the test's end.
  for await (const piece of await open(url, '/api/x')) {
    events.push(String(piece))
    send()
  }
  expect(events).toEqual([1, 2, 3].map((n) => `data: ${n} ${HIDDEN}\n\n`))
})
