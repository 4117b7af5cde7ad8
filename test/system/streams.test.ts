import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { expect, describe, it, onTestFinished } from 'vitest'
import { harnessConfig, startGateway, startServer } from '../support/gateway.ts'
import { open } from '../support/http.ts'
import { startProcess } from '../support/process.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { download, startStreamUpstream, upload } from '../support/stream-load.ts'

const PATH = '/harness/ng/api/file-store/big'
const MEBIBYTE = 1_048_576
/** `npm run bench:bodies` does it with 1 GB. */
const BYTES = 256 * MEBIBYTE
const GROWTH = 64 * MEBIBYTE

describe('server-sent events', () => {
  it('arrive one by one while the upstream holds the response open, however long there is none in between', async () => {
    const clock = new SimulatedClock()
    const answered = Promise.withResolvers<ServerResponse>()
    const url = await startServer((_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' })
      response.flushHeaders()
      answered.resolve(response)
    })
    const gateway = await startGateway(harnessConfig(url, { timeouts: { headers: '1s', total: '2s' } }), { clock })
    const headers = { accept: 'text/event-stream', 'accept-encoding': 'gzip', 'last-event-id': '41' }
    const incoming = await open(gateway.url, '/harness/ng/api/events', { headers })
    expect(incoming.headers).toMatchObject({ 'content-type': 'text/event-stream', 'cache-control': 'no-cache' })
    const response = await answered.promise
    for (const event of ['id: 42\ndata: one\n\n', ': comment\n\n', 'data: two\n\n']) {
      response.write(event)
      expect(String((await once(incoming, 'data'))[0])).toBe(event)
      // Neither the time to the headers nor that of the whole call is for the body.
      await clock.advance(60_000)
    }
    response.end()
    await once(incoming, 'end')
    await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'delivered', status: '200' }])
  })
})

describe('a body of any length', () => {
  it('passes in both directions without being held, at the speed of who receives it', async () => {
    const upstream = await startStreamUpstream()
    onTestFinished(() => upstream.stop())
    const process = await startProcess(harnessConfig(upstream.url))
    const gateway = { url: process.url, pid: process.child.pid! }
    // Code and buffers that every body needs.
    await upload(gateway, PATH, 64 * MEBIBYTE)
    await download(gateway, PATH, 64 * MEBIBYTE)
    for (const stream of [upload, download]) {
      const { bytes, rssBefore, rssPeak } = await stream(gateway, PATH, BYTES)
      expect(bytes).toBe(BYTES)
      expect({ stream: stream.name, growth: rssPeak - rssBefore }).toSatisfy(({ growth }) => growth < GROWTH)
    }
  })
})
