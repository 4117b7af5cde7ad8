import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo, LookupFunction } from 'node:net'
import { expect, it, onTestFinished } from 'vitest'
import { type ResponseHandler, Transport } from '../../src/upstream/transport.ts'

const GET = { method: 'GET', path: '/', headers: [], body: null, upgrade: null }
const IGNORING: ResponseHandler = {
  onRequestStart: () => undefined,
  onResponseStart: () => undefined,
  onResponseData: () => undefined,
  onResponseEnd: () => undefined,
  onResponseError: () => undefined,
}

it('has room for a request while another may be connected for it, those included that are being made', async () => {
  const server = createServer((_, response) => void response.end())
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const lookups: (() => void)[] = []
  const lookup: LookupFunction = (_, __, found) =>
    void lookups.push(() => found(null, [{ address: '127.0.0.1', family: 4 }]))
  const transport = new Transport({
    url: new URL(`http://upstream.test:${port}`),
    connections: 2,
    connectTimeoutMs: 60_000,
    tlsTimeoutMs: 60_000,
    idleTimeoutMs: 60_000,
    tls: {},
    http2: false,
    proxy: undefined,
    lookup,
  })
  onTestFinished(async () => {
    await transport.destroy()
    server.close()
  })
  expect(transport.hasRoom).toBe(true)
  transport.dispatch(GET, IGNORING)
  await expect.poll(() => lookups).toHaveLength(1)
  expect(transport.hasRoom).toBe(true)
  transport.dispatch(GET, IGNORING)
  await expect.poll(() => lookups).toHaveLength(2)
  expect(transport.hasRoom).toBe(false)
  for (const find of lookups) find()
  await expect.poll(() => transport.connections).toBe(2)
  await expect.poll(() => transport.hasRoom).toBe(true)
})
