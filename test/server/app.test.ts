import type { ServerResponse } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { harnessConfig, startApp, startServer } from '../support/gateway.ts'
import { call, RawClient } from '../support/http.ts'

it('a mistake in the server itself is answered, logged and counted like one in the gateway', async () => {
  const { url, lines } = await startApp(harnessConfig('http://127.0.0.1:1'), {
    change: (app) => app.addHook('onRequest', () => Promise.reject(new Error('oops'))),
  })
  const answer = await call(url, '/harness/ng/api/projects')
  expect(answer).toMatchObject({ status: 500, headers: { 'x-sluice-error': 'internal' } })
  expect(answer.body).not.toContain('oops')
  expect(lines).toMatchObject([{ outcome: 'internal', status: '500' }])
})

it('of pipelined requests that wait for their turn only so many are read at once, and each is answered', async () => {
  const held: ServerResponse[] = []
  const vendor = await startServer((_, response) => void held.push(response))
  const { url } = await startApp(harnessConfig(vendor, {}, { server: { headTimeout: '1s' } }), {})
  const client = await RawClient.connect(url)
  const post = (path: string): string =>
    `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nX-Pad: ${'a'.repeat(10_000)}\r\n\r\nbody`
  client.write(post('/harness/ng/api/projects'))
  await expect.poll(() => held.length).toBe(1)
  // More than the buffers of the system hold.
  for (let i = 0; i < 3_000; i++) client.write(post('/nobody'))
  let unread = Infinity
  for (let quiet = 0; quiet < 50; quiet++) {
    if (client.socket.writableLength < unread) quiet = 0
    unread = client.socket.writableLength
    await call(url, '/nobody')
  }
  expect(unread).toBeGreaterThan(0)
  // The head that is held back in its middle has all the time that it takes.
  await pause(3_000)
  held[0]!.end()
  await expect.poll(() => client.received.match(/HTTP\/1\.1 404 /g)?.length).toBe(3_000)
  client.socket.destroy()
})
