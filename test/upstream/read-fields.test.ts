import { createServer, type AddressInfo, type Socket } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
// @ts-expect-error: it has no types
import util from 'undici/lib/core/util.js'
import type { Fields } from '../../src/http/fields.ts'
import { readFields } from '../../src/upstream/read-fields.ts'
import { Transport } from '../../src/upstream/transport.ts'
import { seededRandom } from '../support/seeded-random.ts'

const parseHeaders = (util as { parseHeaders(raw: readonly Buffer[]): Fields }).parseHeaders

const NAMES = 'date Date DATE content-type Set-Cookie set-cookie constructor __proto__ toString length x'.split(' ')
const VALUES = ['', 'a', 'text/html; charset=utf-8', 'caf\xe9 \xff', ' ', 'k=v; Path=/; HttpOnly', '0']

describe('the fields of a response', () => {
  it('are those that undici reads, wherever their names and values lie in memory', () => {
    const random = seededRandom(7)
    const oneOf = <T>(all: readonly T[]): T => all[Math.floor(random() * all.length)]!
    for (let round = 0; round < 2_000; round++) {
      const lines = Array.from({ length: Math.floor(random() * 12) }, () => [oneOf(NAMES), oneOf(VALUES)] as const)
      const texts = lines.flat()
      const head = Buffer.from(texts.join('..'), 'latin1')
      let at = 0
      const raw = texts.map((text) => {
        const piece = head.subarray(at, at + text.length)
        at += text.length + 2
        // As if the head had come in two pieces here.
        return random() < 0.1 ? Buffer.from(piece) : piece
      })
      const fields = readFields(raw)
      expect(fields).toEqual(parseHeaders(raw))
      expect(Object.keys(fields)).toEqual(Object.keys(parseHeaders(raw)))
    }
  })

  it.each(['in one piece', 'byte by byte'])('come through %s, one of them named Length', async (how) => {
    const head =
      'HTTP/1.1 200 OK\r\nLength: 3\r\nSet-Cookie: a=1\r\nX-A: caf\xe9\r\nset-cookie: b=2\r\nContent-Length: 2\r\n\r\nok'
    const fields = await fieldsOf(head, how === 'byte by byte' ? 1 : head.length)
    const cookies = ['a=1', 'b=2']
    expect(fields).toEqual({ length: '3', 'set-cookie': cookies, 'x-a': 'caf\xe9', 'content-length': '2' })
    const without = await fieldsOf(head.replace('Length: 3\r\n', ''), how === 'byte by byte' ? 1 : head.length)
    expect(without).toEqual({ 'set-cookie': cookies, 'x-a': 'caf\xe9', 'content-length': '2' })
  })
})

/** The fields of a response whose server sends it in pieces of so many bytes. */
async function fieldsOf(text: string, pieceBytes: number): Promise<Fields> {
  const bytes = Buffer.from(text, 'latin1')
  const send = async (socket: Socket): Promise<void> => {
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      socket.write(bytes.subarray(at, at + pieceBytes))
      await new Promise(setImmediate)
    }
  }
  const server = createServer({ noDelay: true }, (socket) => void socket.once('data', () => void send(socket)))
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const transport = new Transport({
    url: new URL(`http://127.0.0.1:${port}`),
    connections: 1,
    connectTimeoutMs: 5_000,
    tlsTimeoutMs: 5_000,
    idleTimeoutMs: 60_000,
    tls: {},
    http2: false,
    proxy: undefined,
  })
  onTestFinished(async () => {
    await transport.close()
    server.close()
  })
  return new Promise((resolve, reject) => {
    let fields: Fields = {}
    transport.dispatch(
      { method: 'GET', path: '/', headers: [], body: null, upgrade: null },
      {
        onRequestStart: () => undefined,
        onResponseStart: (...[, , found]) => void (fields = found),
        onResponseData: () => undefined,
        onResponseEnd: () => resolve(fields),
        onResponseError: (_, error) => reject(error),
      },
    )
  })
}
