import { once } from 'node:events'
import { createServer as createH2Server, type ServerHttp2Stream } from 'node:http2'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { harnessConfig, startGateway } from '../support/gateway.ts'
import { call, RawClient } from '../support/http.ts'

const PATH = '/harness/ng/api/projects'
const FINAL = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone'
const QUICK = { retry: { retries: 5, baseDelay: '1ms', maxDelay: '1ms' } }

/** An upstream of bare sockets that answers every request, once it is whole, by `answer`. */
async function startRaw(
  answer: (socket: Socket) => void,
): Promise<{ url: string; heads: string[]; sockets: Set<Socket> }> {
  const heads: string[] = []
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    let received = ''
    socket.on('error', () => undefined)
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1')
      const [head, body] = received.split('\r\n\r\n', 2)
      const length = Number(/content-length: (\d+)/i.exec(head!)?.[1] ?? 0)
      if (body === undefined || body.length < length) return
      received = ''
      heads.push(head!)
      answer(socket)
    })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, heads, sockets }
}

describe('interim responses that nobody asked for', () => {
  it.each([
    ['100', 'HTTP/1.1 100 Continue\r\n\r\n'],
    ['100 twice', 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n'],
    ['100 with fields', 'HTTP/1.1 100 Continue\r\nDate: now\r\nContent-Length: 7\r\n\r\n'],
    ['100 without a reason', 'HTTP/1.1 100 \r\n\r\n'],
    ['102', 'HTTP/1.1 102 Processing\r\n\r\n'],
    ['103', 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'],
    ['199', 'HTTP/1.1 199 Whatever\r\n\r\n'],
    [
      'all kinds',
      'HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n',
    ],
  ])('are read past: %s', async (_, interim) => {
    const upstream = await startRaw((socket) => void socket.write(interim + FINAL))
    const gateway = await startGateway(harnessConfig(upstream.url, QUICK))
    for (const [method, body] of [
      ['GET'],
      ['PUT', 'some body'],
      ['POST', 'some body'],
      ['HEAD'],
      ['DELETE'],
    ] as const) {
      const answer = await call(gateway.url, PATH, { method, ...(body === undefined ? {} : { body }) })
      expect(`${method} ${answer.status} ${answer.body}`).toBe(`${method} 200 ${method === 'HEAD' ? '' : 'done'}`)
    }
    expect(upstream.heads.map((head) => head.split(' ', 1)[0])).toEqual(['GET', 'PUT', 'POST', 'HEAD', 'DELETE'])
  })

  it('are read past however they are cut into pieces, over a connection that is used again', async () => {
    const bytes = `HTTP/1.1 100 Continue\r\n\r\n${FINAL}`
    const upstream = await startRaw((socket) => {
      void (async () => {
        socket.setNoDelay(true)
        for (const byte of bytes) {
          socket.write(byte)
          await setImmediate()
        }
      })()
    })
    const gateway = await startGateway(harnessConfig(upstream.url, QUICK))
    for (let i = 0; i < 3; i++) expect((await call(gateway.url, PATH)).body).toBe('done')
    expect(upstream.heads).toHaveLength(3)
    expect(upstream.sockets.size).toBe(1)
  })

  it('100 comes while a body of unknown length is still on its way', async () => {
    const sockets: Socket[] = []
    const server = createServer((socket) => {
      sockets.push(socket)
      socket.on('error', () => undefined)
      socket.once('data', () => void socket.write('HTTP/1.1 100 Continue\r\n\r\n'))
      socket.on('data', (chunk) => void (chunk.toString().endsWith('0\r\n\r\n') && socket.write(FINAL)))
    })
    await once(server.listen(0, '127.0.0.1'), 'listening')
    onTestFinished(() => {
      for (const socket of sockets) socket.destroy()
      server.close()
    })
    const gateway = await startGateway(harnessConfig(`http://127.0.0.1:${(server.address() as AddressInfo).port}`))
    const client = await RawClient.connect(gateway.url)
    client.write(`POST ${PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n`)
    await expect.poll(() => sockets[0]?.bytesWritten).toBeGreaterThan(0)
    client.write('0\r\n\r\n')
    expect(await client.until(/done/)).toMatch(/^HTTP\/1\.1 200 OK/)
    client.socket.destroy()
  })

  it('are read past in HTTP/2', async () => {
    const server = createH2Server()
    server.on('stream', (stream: ServerHttp2Stream) => {
      stream.additionalHeaders({ ':status': 100 })
      stream.additionalHeaders({ ':status': 103, link: '</a>' })
      stream.respond({ ':status': 200 })
      stream.end('done')
    })
    await once(server.listen(0, '127.0.0.1'), 'listening')
    onTestFinished(() => void server.close())
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const gateway = await startGateway(harnessConfig(url, { ...QUICK, http2: true }))
    expect(await call(gateway.url, PATH, { method: 'PUT', body: 'x' })).toMatchObject({ status: 200, body: 'done' })
    expect(gateway.lines[0]).toMatchObject({ attempts: 1 })
  })

  it.each([
    ['100 that wants to close', 'HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n', 100],
    ['100 of HTTP/1.0', 'HTTP/1.0 100 Continue\r\n\r\n', 100],
    ['101 without an upgrade', 'HTTP/1.1 101 Switching Protocols\r\n\r\n', 101],
    ['101 to h2c', 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n\0\0', 101],
    ['101 to what', 'HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n', 101],
    ['103 and then the end', 'HTTP/1.1 103 Early Hints\r\n\r\n', 103],
  ])('let nothing be carried out twice where the call ends behind them: %s', async (_, interim, status) => {
    const upstream = await startRaw((socket) => void socket.end(interim))
    const gateway = await startGateway(harnessConfig(upstream.url, QUICK))
    for (const method of ['PUT', 'DELETE', 'POST']) {
      const answer = await call(gateway.url, PATH, { method, body: 'x', headers: { 'content-length': '1' } })
      expect(answer).toMatchObject({ status: 502, headers: { 'x-sluice-error': 'interrupted' } })
      const told =
        status === 101 ? 'no well-formed HTTP (INVALID_SWITCH)' : `after an interim response, ${status}, before`
      expect(answer.json().message).toContain(told)
    }
    expect(upstream.heads.map((head) => head.split(' ', 1)[0])).toEqual(['PUT', 'DELETE', 'POST'])
    // To read twice does no harm.
    await call(gateway.url, PATH)
    expect(upstream.heads).toHaveLength(3 + 6)
  })

  it('are too many where there are more than a hundred', async () => {
    const upstream = await startRaw((socket) => {
      socket.write('HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'.repeat(upstream.heads.length === 1 ? 100 : 101))
      socket.write(FINAL)
    })
    const gateway = await startGateway(harnessConfig(upstream.url, { retry: { retries: 0 } }))
    expect(await call(gateway.url, PATH)).toMatchObject({ status: 200, body: 'done' })
    const answer = await call(gateway.url, PATH)
    expect(answer).toMatchObject({ status: 502, headers: { 'x-sluice-error': 'interrupted' } })
    expect(answer.json().message).toContain('TOO_MANY_INTERIM_RESPONSES')
  })

  it('are left out while an earlier response of the connection goes on', async () => {
    const LARGE = `HTTP/1.1 103 Early Hints\r\nLink: </${'a'.repeat(12_000)}>\r\n\r\n`
    const upstream = await startRaw((socket) => {
      if (upstream.heads.length === 1) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf')
      else socket.write(LARGE.repeat(50) + FINAL)
    })
    const gateway = await startGateway(harnessConfig(upstream.url))
    const client = await RawClient.connect(gateway.url)
    client.write(`GET ${PATH} HTTP/1.1\r\nHost: x\r\n\r\n`)
    await client.until(/half/)
    client.write(`GET ${PATH} HTTP/1.1\r\nHost: x\r\n\r\n`)
    await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'delivered' }])
    for (const socket of upstream.sockets) socket.write('half')
    expect(await client.until(/done/)).not.toContain('HTTP/1.1 103')
    client.socket.destroy()
  })

  it('do not make an answer of a connection that breaks off behind them', async () => {
    const upstream = await startRaw((socket) => void socket.end('HTTP/1.1 100 Continue\r\n\r\n'))
    const gateway = await startGateway(harnessConfig(upstream.url, QUICK))
    const answer = await call(gateway.url, PATH, { method: 'POST', body: 'x' })
    expect(answer).toMatchObject({ status: 502, headers: { 'x-sluice-error': 'interrupted' } })
    expect(upstream.heads).toHaveLength(1)
  })
})
