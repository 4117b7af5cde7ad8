import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import { connect } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { expect, it, onTestFinished } from 'vitest'
import { closeWithServer } from '../../src/server/connections.ts'
import { addHttp2 } from '../../src/server/http2.ts'
import { connectStuck } from '../support/stuck-client.ts'

const IDLE_MS = 500
/** More than lies between two programs. */
const MUCH = Buffer.alloc(30_000_000)

/** A server whose connections may be idle for a moment, and the responses that it has still to write. */
async function startServer() {
  const responses: ServerResponse[] = []
  const server = createServer((_, response) => void responses.push(response))
  const fail = (): void => undefined
  addHttp2(server, { maxHeaderBytes: 16_384, idleMs: IDLE_MS, headMs: 10_000, onConnect: fail, onProtocolError: fail })
  closeWithServer(server)
  await once(server.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const connections = () => new Promise((resolve) => server.getConnections((_, count) => resolve(count)))
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, responses, connections }
}

it.each([0, 1, 3])(
  'ends a connection that is idle, and of which the client takes not even the end, nor %i short answers',
  async (short) => {
    const { url, responses, connections } = await startServer()
    const { session } = await connectStuck(url)
    const stream = session.request().on('error', () => undefined)
    for (let i = 0; i < short; i++) session.request().on('error', () => undefined)
    await expect.poll(() => responses.length).toBe(1 + short)
    responses[0]!.writeHead(200, [])
    responses[0]!.write(MUCH)
    await once(stream, 'data')
    for (const response of responses.slice(1)) response.writeHead(204, []).end()
    responses[0]!.destroy()
    await expect.poll(connections).toBe(0)
  },
)

it('says goodbye on a connection that is idle, and waits for the call on it', async () => {
  const { url, responses, connections } = await startServer()
  const session = connect(url)
  const stream = session.request()
  await expect.poll(() => responses.length).toBe(1)
  expect((await once(session, 'goaway'))[0]).toBe(0)
  // For longer than it took to say goodbye.
  await new Promise((resolve) => void setTimeout(resolve, 3 * IDLE_MS))
  responses[0]!.writeHead(200, [])
  responses[0]!.end('whole')
  expect((await stream.toArray()).join('')).toBe('whole')
  await expect.poll(connections).toBe(0)
})

it('lets a client that is idle take the end of a response for as long as the response says', async () => {
  const { url, responses, connections } = await startServer()
  const session = connect(url).on('error', () => undefined)
  const stream = session.request()
  await expect.poll(() => responses.length).toBe(1)
  responses[0]!.writeHead(200, [])
  // More than the client's window.
  responses[0]!.end(Buffer.alloc(200_000))
  responses[0]!.setTimeout(10 * IDLE_MS)
  await once(session, 'goaway')
  await new Promise((resolve) => void setTimeout(resolve, 3 * IDLE_MS))
  expect(Buffer.concat(await stream.toArray())).toHaveLength(200_000)
  await expect.poll(connections).toBe(0)
})
