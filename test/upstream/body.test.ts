import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { expect, it, onTestFinished } from 'vitest'
import { createServer } from '../../src/http/node-http.ts'
import { RequestBody } from '../../src/upstream/body.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

it('is gone where its client left before anybody looked', async () => {
  const server = createServer()
  onTestFinished(() => void server.close())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = connect((server.address() as { port: number }).port, '127.0.0.1')
  client.write('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf')
  const [request, response] = (await once(server, 'request')) as [IncomingMessage, ServerResponse]
  request.on('error', () => undefined)
  client.destroy()
  await new Promise((resolve) => void request.on('close', resolve))
  const limits = { keepBytes: 1_000, maxBytes: 1_000, idleMs: 1_000, minBytesPerSecond: 0 }
  const body = new RequestBody(request, response, { clock: new SimulatedClock(), mayRetry: true, ...limits })
  await expect(body.prepare()).rejects.toThrow('the request body is gone')
})
