import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { connect, type Server, type Socket } from 'node:net'
import { expect, it, onTestFinished } from 'vitest'
import { createServer as createHttp2Server } from 'node:http2'
import { createServer } from '../../src/http/node-http.ts'
import { RequestBody } from '../../src/upstream/body.ts'
import { PREFACE, resetRequest } from '../support/http2-frames.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

it('is gone where its client left before anybody looked', async () => {
  const server = createServer()
  const client = await connected(server)
  client.write('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf')
  const [request, response] = (await once(server, 'request')) as [IncomingMessage, ServerResponse]
  request.on('error', () => undefined)
  client.destroy()
  await new Promise((resolve) => void request.on('close', resolve))
  await expectGone(request, response)
})

it('is gone where its client reset the stream of HTTP/2 before anybody looked', async () => {
  const server = createHttp2Server()
  const client = await connected(server)
  onTestFinished(() => void client.destroy())
  client.resume()
  client.write(PREFACE)
  client.write(resetRequest({ ':path': '/', 'content-length': '10' }))
  const [request, response] = (await once(server, 'request')) as unknown as [IncomingMessage, ServerResponse]
  await new Promise((resolve) => void request.on('close', resolve))
  await expectGone(request, response)
})

/** A client of that server. */
async function connected(server: Server): Promise<Socket> {
  onTestFinished(() => void server.close())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return connect((server.address() as { port: number }).port, '127.0.0.1')
}

async function expectGone(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const limits = { keepBytes: 1_000, maxBytes: 1_000, idleMs: 1_000, minBytesPerSecond: 0 }
  const clock = new SimulatedClock()
  const preparing = new RequestBody(request, response, { clock, mayRetry: true, ...limits }).prepare()
  const gone = expect(preparing).rejects.toThrow('the request body is gone')
  await clock.advance(1_000)
  await gone
}
