import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { startGateway, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { hasSmallDisks, SmallDisk } from '../support/small-disk.ts'

const NOW = { headers: { 'x-sluice-max-wait': '0' } }

describe.skipIf(!hasSmallDisks)('a gateway whose disk is full', () => {
  async function start(store: object) {
    const disk = new SmallDisk()
    const upstream = await startUpstream()
    const limits = { read: [{ requests: 100, window: '1h' }] }
    const gateway = await startGateway({
      server: { port: 0 },
      admin: { port: 0 },
      store: { dir: join(disk.path, 'store'), ...store },
      upstreams: { api: { url: upstream.url, accounts: { main: {} }, limits } },
    })
    const readiness = async (): Promise<{ status: number; json: unknown }> => {
      const { status, body } = await call(gateway.adminUrl, '/readyz')
      return { status, json: JSON.parse(body) }
    }
    return { disk, upstream, gateway, readiness }
  }

  it('serves up to the limit and no more, says why it is degraded, and is well again once there is room', async () => {
    const { disk, upstream, gateway, readiness } = await start({})
    await call(gateway.url, '/api/x', NOW)
    disk.fill()
    const statuses: number[] = []
    for (let i = 0; i < 110; i++) statuses.push((await call(gateway.url, '/api/x', NOW)).status)
    expect(statuses.filter((status) => status === 200)).toHaveLength(99)
    expect(statuses.filter((status) => status === 429)).toHaveLength(11)
    expect(upstream.seen).toHaveLength(100)
    const degraded = expect.stringMatching(/can not be written to disk \(ENOSPC/) as string
    expect(await readiness()).toEqual({ status: 200, json: { status: 'ready', degraded } })
    expect(await gateway.metrics()).toContain('\nsluice_store_degraded 1')
    disk.free()
    await expect.poll(readiness).toEqual({ status: 200, json: { status: 'ready' } })
    expect(await gateway.metrics()).toContain('\nsluice_store_degraded 0')
  })

  it('refuses calls with onOutage: closed, and is not ready, until there is room', async () => {
    const { disk, gateway, readiness } = await start({ onOutage: 'closed' })
    await call(gateway.url, '/api/x', NOW)
    disk.fill()
    const statuses: number[] = []
    for (let i = 0; i < 20; i++) statuses.push((await call(gateway.url, '/api/x', NOW)).status)
    expect(statuses.at(-1)).toBe(503)
    expect(await readiness()).toMatchObject({ status: 503 })
    disk.free()
    await expect.poll(async () => (await readiness()).status).toBe(200)
    expect((await call(gateway.url, '/api/x', NOW)).status).toBe(200)
  })
})
