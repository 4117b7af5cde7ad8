import { connect } from 'node:net'
import Fastify from 'fastify'
import { expect, it, onTestFinished, vi } from 'vitest'
import type { AdminParts } from '../../../src/server/admin/management.ts'
import { adminTokens } from '../../../src/server/admin/log-in.ts'
import { pageRoutes } from '../../../src/server/admin/page.ts'
import { Sessions } from '../../../src/server/admin/sessions.ts'
import { Secret } from '../../../src/schema/secret.ts'
import { SimulatedClock } from '../../support/simulated-clock.ts'

it('a live page asks the quota store once for all that it shows', async () => {
  const asked: string[] = []
  const counted = (name: string) => async () => {
    asked.push(name)
    return []
  }
  const nothing = async () => []
  const status = { notReady: async () => undefined, degraded: nothing, queue: nothing, credentials: nothing }
  const parts = {
    status: { ...status, quota: counted('quota'), budgets: counted('budgets') },
    controls: { breakers: nothing, lastReload: () => undefined },
    requests: { ask: async () => ({ found: [], away: [] }) },
    management: { clock: new SimulatedClock(), config: () => ({ server: {} }), clients: { all: [] } },
  } as unknown as AdminParts
  const app = Fastify()
  onTestFinished(() => app.close())
  app.register(async (page) => pageRoutes(page, { tokens: {} } as Parameters<typeof pageRoutes>[1], parts))
  expect((await app.inject('/')).statusCode).toBe(200)
  expect(asked).toEqual(['quota', 'budgets'])
})

it('a live page that reads nothing when its session ends is told so once, when it reads on', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  onTestFinished(() => void vi.useRealTimers())
  const clock = new SimulatedClock()
  const admin = { token: new Secret('the token'), tokens: {} } as unknown as Parameters<typeof pageRoutes>[1]
  const nothing = async () => []
  // More than the buffers of a connection hold.
  const status = { notReady: async () => 'x'.repeat(20_000_000), degraded: nothing, quota: nothing, queue: nothing }
  const parts = {
    status: { ...status, credentials: nothing, budgets: nothing },
    controls: { breakers: nothing, lastReload: () => undefined },
    requests: { ask: async () => ({ found: [], away: [] }) },
    management: { clock, config: () => ({ server: {} }), clients: { all: [] } },
  } as unknown as AdminParts
  const app = Fastify({ forceCloseConnections: true })
  onTestFinished(() => app.close())
  const mistakes: Error[] = []
  const responses: { writableLength: number; writableEnded: boolean }[] = []
  app.addHook('onRequest', async (_, { raw }) => {
    raw.on('error', (error) => mistakes.push(error))
    responses.push(raw)
  })
  app.register(async (page) => pageRoutes(page, admin, parts))
  const { hostname, port } = new URL(await app.listen({ port: 0, host: '127.0.0.1' }))
  const [cookie] = new Sessions(adminTokens(admin), clock).begin('admin').split(';')
  const client = connect(Number(port), hostname)
  client.pause().write(`GET /events HTTP/1.1\r\nHost: x\r\nCookie: ${cookie}\r\n\r\n`)
  await expect.poll(() => responses.length).toBe(1)
  const [response] = responses
  vi.advanceTimersByTime(1_000)
  await expect.poll(() => response!.writableLength).toBeGreaterThan(1_000_000)
  await clock.advance(13 * 3_600_000)
  vi.advanceTimersByTime(3_000)
  expect(response!.writableEnded).toBe(true)
  let tail = ''
  await new Promise<void>((resolve) => {
    client.on('data', (chunk) => {
      tail = (tail + chunk.toString('latin1')).slice(-1_000)
      if (tail.endsWith('\r\n0\r\n\r\n')) resolve()
    })
    client.resume()
  })
  expect(tail.match(/event: signed-out/g)).toHaveLength(1)
  expect(mistakes).toEqual([])
})
