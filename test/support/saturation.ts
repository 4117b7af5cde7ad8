import { Agent, request } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { onTestFinished } from 'vitest'
import { startSandbox } from '../../src/sandbox/sandbox.ts'
import { systemClock } from '../../src/time/clock.ts'
import { ACCOUNT, harnessConfig } from './gateway.ts'
import { startProcess } from './process.ts'
import { Stillness } from './stillness.ts'

const READ = '/harness/ng/api/projects'
const REQUESTS = 300
const WINDOW_MS = 5_000
const LATENCY_MS = { min: 50, max: 800 }
/** So many that some wait at every gateway at any time: that is saturation. */
const CLIENTS = 200
/** Three gateways, Redis and the upstream, of which one stands still for so long, use less of the quota than they could. */
const STILL_MS = 100
/** Calls that found no quota wait for it this long; whoever takes longer has hung. */
const MAX_WAIT_MS = 30_000

export type Gateway = Awaited<ReturnType<typeof startProcess>>

export const MAX_ANSWER_MS = 2 * MAX_WAIT_MS

export interface Saturated {
  /** The most arrivals in one window, and what the upstream allows. */
  readonly worst: number
  readonly limit: number
  /** Upstream's own 429s. */
  readonly throttled: number
  readonly accepted: number
  /** How often each status came to clients; `broken` where a gateway died under the call. */
  readonly statuses: Readonly<Record<string, number>>
  /** Arrivals in a window, on average, of what `window / (window + mean latency)` would allow. */
  readonly utilisation: number
  readonly meanLatencyMs: number
  readonly slowestMs: number
  /** The longest time without any arrival. */
  readonly longestGapMs: number
}

/** Three gateway processes, each with more clients than there is quota for, for so many windows. */
export async function saturate(
  store: object,
  windows: number,
  during: (gateways: readonly Gateway[]) => Promise<void> = () => Promise.resolve(),
): Promise<Saturated> {
  const sandbox = await startSandbox({ limits: { read: { requests: REQUESTS, windowMs: WINDOW_MS } } })
  onTestFinished(() => sandbox.stop())
  sandbox.setFaults({ latencyMs: LATENCY_MS })
  const gateway = {
    ...harnessConfig(sandbox.url, {
      limits: { read: [{ requests: REQUESTS, window: `${WINDOW_MS}ms` }] },
      queue: { maxWait: `${MAX_WAIT_MS}ms`, maxWaiting: CLIENTS },
      retry: { retries: 0 },
    }),
    store: { kind: 'redis', ...store },
  }
  const gateways = await Promise.all(Array.from({ length: 3 }, () => startProcess(gateway)))
  using stillness = new Stillness(STILL_MS, systemClock.now, [
    ...gateways.map(({ child }) => child.pid!),
    ...(await pidsOfRedis(store)),
  ])
  const statuses: Record<string, number> = {}
  let slowestMs = 0
  let isOver = false
  const agent = new Agent({ keepAlive: true })
  const client = async ({ url }: Gateway): Promise<void> => {
    while (!isOver) {
      const before = performance.now()
      const status = await get(agent, url)
      statuses[status] = (statuses[status] ?? 0) + 1
      slowestMs = Math.max(slowestMs, performance.now() - before)
      if (status === 'broken') return
      if (status !== '200') await pause(100)
    }
  }
  const clients = gateways.flatMap((gateway) => Array.from({ length: CLIENTS }, () => client(gateway)))
  await Promise.all([pause(windows * WINDOW_MS), during(gateways)])
  isOver = true
  const upstream = await Promise.all(gateways.map(upstreamDuration))
  const arrivals = sandbox.seen().map(({ at }) => at)
  for (const gateway of gateways) gateway.kill('SIGKILL') // so that those who wait need not wait on
  await Promise.all(clients)
  agent.destroy()
  const counts = sandbox.counts().accounts[ACCOUNT]!.read!
  const meanLatencyMs = (1_000 * sumOf(upstream, 'seconds')) / sumOf(upstream, 'calls')
  return {
    worst: counts.worst,
    limit: REQUESTS,
    throttled: counts.throttled,
    accepted: counts.accepted,
    statuses,
    utilisation: utilisationOf(arrivals, meanLatencyMs, stillness),
    meanLatencyMs,
    slowestMs,
    longestGapMs: Math.max(...arrivals.slice(1).map((at, i) => at - arrivals[i]!)),
  }
}

export function describeSaturated(title: string, { statuses, ...figures }: Saturated): string {
  const { worst, limit, throttled, accepted, utilisation, meanLatencyMs, slowestMs, longestGapMs } = figures
  return [
    `${title}: at most ${worst} of ${limit} in a window, ${throttled} upstream 429s, ${accepted} calls,`,
    `${(100 * utilisation).toFixed(1)} % of window/(window + mean latency of ${meanLatencyMs.toFixed(0)} ms),`,
    `slowest answer ${(slowestMs / 1_000).toFixed(1)} s, longest time without a call ${longestGapMs.toFixed(0)} ms,`,
    `answers ${JSON.stringify(statuses)}`,
  ].join(' ')
}

/**
 * The time that it takes to spend the quota once, over all such stretches in which nothing stood still, or all if that is none,
 * against the shortest that the guarantee allows.
 */
function utilisationOf(arrivals: readonly number[], meanLatencyMs: number, stillness: Stillness): number {
  const all = arrivals.slice(REQUESTS).map((until, i) => ({ from: arrivals[i]!, until }))
  const undisturbed = all.filter(({ from, until }) => !stillness.met(from, until))
  const stretches = (undisturbed.length > 0 ? undisturbed : all).map(({ from, until }) => until - from)
  const meanMs = stretches.reduce((sum, ms) => sum + ms, 0) / stretches.length
  return (WINDOW_MS + meanLatencyMs) / meanMs
}

/** None where it is not known, or on another machine: there its number is of nobody, or of a process that hardly waits. */
async function pidsOfRedis(store: object): Promise<number[]> {
  if (!('url' in store)) return []
  const redis = new Redis(String(store.url))
  try {
    return [Number(/^process_id:(\d+)/m.exec(await redis.info('server'))![1])]
  } finally {
    redis.disconnect()
  }
}

async function upstreamDuration({ adminUrl }: Gateway): Promise<{ seconds: number; calls: number }> {
  const metrics = await fetch(`${adminUrl}/metrics`).then(
    (response) => response.text(),
    () => '', // it was killed
  )
  const value = (suffix: string): number =>
    Number(new RegExp(`^sluice_upstream_duration_seconds_${suffix}\\{[^}]*\\} ([0-9.]+)`, 'm').exec(metrics)?.[1] ?? 0)
  return { seconds: value('sum'), calls: value('count') }
}

function sumOf<K extends string>(all: readonly Record<K, number>[], key: K): number {
  return all.reduce((sum, one) => sum + one[key], 0)
}

function get(agent: Agent, base: string): Promise<string> {
  return new Promise((resolve) => {
    const outgoing = request(base + READ, { agent }, (response) => {
      const { statusCode = 0, headers } = response
      response.resume().once('close', () => resolve([statusCode, headers['x-sluice-error'] ?? []].flat().join(' ')))
    })
    outgoing.once('error', () => resolve('broken')).end()
  })
}
