import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, it, onTestFinished } from 'vitest'
import { connectorOf } from '../../src/upstream/connect.ts'

it.each([
  ['2001:db8::1', '[2001:db8::1]:443'],
  ['192.0.2.1', '192.0.2.1:443'],
  ['vendor.example', 'vendor.example:443'],
])('asks a proxy for a tunnel to %s by the authority %s', async (hostname, authority) => {
  const proxy = createServer().listen(0, '127.0.0.1')
  onTestFinished(() => void proxy.close())
  await once(proxy, 'listening')
  const asked = once(proxy, 'connect')
  const connect = connectorOf({
    connectTimeoutMs: 10_000,
    tlsTimeoutMs: 10_000,
    tcp: {},
    tls: {},
    proxy: () => new URL(`http://127.0.0.1:${(proxy.address() as AddressInfo).port}`),
  })
  const failed = new Promise((resolve) =>
    connect({ hostname, protocol: 'https:', port: '443' }, (...result) => resolve(result[0])),
  )
  const [{ url, headers }, socket] = await asked
  expect([url, headers.host]).toEqual([authority, authority])
  socket.end('HTTP/1.1 502 Bad Gateway\r\n\r\n')
  expect(await failed).toBeInstanceOf(Error)
})
