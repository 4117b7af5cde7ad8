import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { expect, it, onTestFinished } from 'vitest'
import { startSandbox } from '../../../src/sandbox/sandbox.ts'
import type { QuotaRow } from '../../../src/server/admin/status.ts'
import { ACCOUNT, harnessConfig } from '../../support/gateway.ts'
import { startProcess } from '../../support/process.ts'
import { describeTopology, startStandalone, until } from '../../support/redis-topologies.ts'

const READ = '/harness/ng/api/projects'
const REQUESTS = 60
/** What the reserve leaves to each of two regions that can't reach home. */
const RESERVE = 9
const WINDOW_MS = 3_000

type Gateway = Awaited<ReturnType<typeof startProcess>>

/** The line between one region and home. */
async function startLine(port: number): Promise<{ port: number; cut(): void; mend(): void }> {
  const open = new Set<Socket>()
  let isCut = false
  const server = createServer((near) => {
    if (isCut) return void near.destroy()
    const far = connect(port, '127.0.0.1')
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      open.add(one)
      one.on('error', () => other.destroy())
      one.on('close', () => {
        open.delete(one)
        other.destroy()
      })
      one.pipe(other)
    }
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => {
    for (const socket of open) socket.destroy()
    server.close()
  })
  return {
    port: (server.address() as AddressInfo).port,
    cut() {
      isCut = true
      for (const socket of open) socket.destroy()
    },
    mend: () => void (isCut = false),
  }
}

async function shareOf({ adminUrl }: Gateway): Promise<QuotaRow> {
  const rows = (await (await fetch(`${adminUrl}/v1/quota`)).json()) as { quotas?: QuotaRow[] } | QuotaRow[]
  const all = Array.isArray(rows) ? rows : Object.values(rows).find((one) => Array.isArray(one))!
  return all.find((row) => row.class === 'read')!
}

async function isAtLeast(gateway: Gateway, share: number): Promise<boolean> {
  return ((await shareOf(gateway)).share ?? 0) >= share
}

describeTopology('two regions with one quota', () => {
  it('never exceed it, whoever is cut off or dies, and each gets what it needs', async () => {
    const sandbox = await startSandbox({ limits: { read: { requests: REQUESTS, windowMs: WINDOW_MS } } })
    onTestFinished(() => sandbox.stop())
    sandbox.setFaults({ latencyMs: { min: 5, max: 200 } })
    const [eu, us, home] = await Promise.all([startStandalone(), startStandalone(), startStandalone()])
    onTestFinished(async () => void (await Promise.all([eu, us, home].map((redis) => redis.stop()))))
    const line = await startLine(home.port)
    const start = (name: string, port: number, homePort: number): Promise<Gateway> =>
      startProcess({
        ...harnessConfig(sandbox.url, {
          limits: { read: [{ requests: REQUESTS, window: `${WINDOW_MS}ms` }] },
          queue: { maxWait: '2s' },
          retry: { retries: 0 },
          timeouts: { headers: '2s' },
        }),
        store: {
          kind: 'redis',
          url: `redis://127.0.0.1:${port}`,
          commandTimeout: '2s',
          regions: {
            name,
            weights: { eu: 1, us: 1 },
            home: { url: `redis://127.0.0.1:${homePort}` },
            lease: '3s',
            longestCall: '2s',
          },
        },
      })
    const gateways = { eu: await start('eu', eu.port, line.port), us: await start('us', us.port, home.port) }
    const wanted = { eu: true, us: false }
    let isOver = false
    const client = async (region: 'eu' | 'us'): Promise<void> => {
      while (!isOver) {
        const answer = wanted[region] ? await fetch(gateways[region].url + READ).catch(() => undefined) : undefined
        await answer?.arrayBuffer()
        // Who is refused at once would keep the processor from all others.
        if (answer?.status !== 200) await pause(50)
      }
    }
    const clients = (['eu', 'us'] as const).flatMap((region) => Array.from({ length: 40 }, () => client(region)))

    // Only one region wants something: it gets all that is not reserved for the other.
    await until(() => isAtLeast(gateways.eu, REQUESTS - RESERVE))
    wanted.us = true
    await until(() => isAtLeast(gateways.us, REQUESTS / 2 - 2))

    line.cut()
    await until(async () => (await shareOf(gateways.eu)).share === RESERVE)
    await until(async () => {
      const ready = (await (await fetch(`${gateways.eu.adminUrl}/readyz`)).json()) as { degraded?: string }
      return ready.degraded === 'home can not be reached, so region eu has its reserve only'
    })
    // What the region had is free for the other one when its calls have left the window.
    await until(() => isAtLeast(gateways.us, REQUESTS - RESERVE))
    gateways.eu.kill('SIGKILL')
    gateways.eu = await start('eu', eu.port, line.port)
    line.mend()
    await until(() => isAtLeast(gateways.eu, REQUESTS / 2 - 2))

    // Home forgets everything.
    await home.kill()
    await home.start()
    await us.kill()
    await us.start()
    await until(() => isAtLeast(gateways.eu, REQUESTS / 2 - 2))
    await until(() => isAtLeast(gateways.us, REQUESTS / 2 - 2))

    isOver = true
    await Promise.all(clients)
    const { worst, throttled } = sandbox.counts().accounts[ACCOUNT]!.read!
    expect({ isKept: worst <= REQUESTS, throttled }).toEqual({ isKept: true, throttled: 0 })
    const metrics = await (await fetch(`${gateways.eu.adminUrl}/metrics`)).text()
    expect(metrics).toMatch(
      /^sluice_quota_region_share\{upstream="[^"]+",account="[^"]+",class="read",window="[^"]+"\} \d+$/m,
    )
    expect(metrics).toMatch(
      /^sluice_quota_region_stranded\{upstream="[^"]+",account="[^"]+",class="read",window="[^"]+"\} \d+$/m,
    )
  })
})
