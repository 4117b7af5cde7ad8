import { Agent, request } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import { onTestFinished } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { startSandbox } from '../../src/sandbox/sandbox.ts'
import { harnessConfig } from './gateway.ts'
import { startProcess } from './process.ts'

const READ = '/harness/ng/api/projects'
const REQUESTS = 150
/** So long that a busy machine can use the quota up, or it would be no quota that is contended for. */
const WINDOW_MS = 2_000
const MAX_WAIT_MS = 30_000
export const WEIGHTS = { a: 1, b: 1, c: 2, d: 4, greedy: 1 } as const
const SUM = 9
const WARM_UP_MS = 6_000

export interface Contended {
  /** By client, its part of what was answered, against its due. */
  readonly parts: Readonly<Record<string, number>>
  readonly answered: number
  /** Calls that the upstream accepted and refused, and the most of them in one window. */
  readonly throttled: number
  readonly worst: number
  readonly limit: number
  readonly slowestMs: number
  readonly statuses: Readonly<Record<string, number>>
}

/**
 * Three gateway processes, and five clients that each want more than their due: four at one gateway each, and one at all of
 * them with as many callers as all others together. The latest so many windows are counted. Until these are good enough it goes on,
 * for three times as many at most: on a busy machine a gateway may have stood still in one, and its clients had no part of that.
 */
export async function contend(
  store: object,
  windows: number,
  isEnough: (parts: Contended['parts']) => boolean,
): Promise<Contended> {
  const sandbox = await startSandbox({ limits: { read: { requests: REQUESTS, windowMs: WINDOW_MS } } })
  onTestFinished(() => sandbox.stop())
  const clients = Object.entries(WEIGHTS).map(([name, weight]) => [name, { keys: [hashKey(name)], weight }])
  const config = {
    ...harnessConfig(sandbox.url, {
      limits: { read: [{ requests: REQUESTS, window: `${WINDOW_MS}ms` }] },
      queue: { maxWait: `${MAX_WAIT_MS}ms`, maxWaiting: 1_000 },
      retry: { retries: 0 },
    }),
    clients: Object.fromEntries(clients),
    store: { kind: 'redis', ...store },
  }
  const gateways = await Promise.all([0, 1, 2].map(() => startProcess(config)))
  const agent = new Agent({ keepAlive: true })
  const answers: { client: string; at: number }[] = []
  const statuses: Record<string, number> = {}
  let slowestMs = 0
  let isOver = false
  const caller = async (client: string, { url }: { url: string }): Promise<void> => {
    while (!isOver) {
      const before = performance.now()
      const status = await get(agent, url, client)
      if (isOver) return
      const at = performance.now()
      statuses[status] = (statuses[status] ?? 0) + 1
      slowestMs = Math.max(slowestMs, at - before)
      if (status === '200') answers.push({ client, at })
      else await pause(50)
    }
  }
  const callers: Promise<void>[] = []
  for (const [i, [client, weight]] of Object.entries(WEIGHTS).entries()) {
    const own = client === 'greedy' ? gateways : [gateways[i % 3]!]
    for (const gateway of own) for (let n = 0; n < 30 * weight; n++) callers.push(caller(client, gateway))
  }
  await pause(WARM_UP_MS)
  const counted = (): readonly { client: string }[] => {
    const from = performance.now() - windows * WINDOW_MS
    return answers.filter(({ at }) => at >= from)
  }
  const partsNow = (): Contended['parts'] => {
    const all = counted()
    const partOf = (client: string, weight: number): number =>
      all.filter((answer) => answer.client === client).length / all.length / (weight / SUM)
    return Object.fromEntries(Object.entries(WEIGHTS).map(([client, weight]) => [client, partOf(client, weight)]))
  }
  await pause(windows * WINDOW_MS)
  let parts = partsNow()
  for (let more = 2 * windows; more > 0 && !isEnough(parts); more--) {
    await pause(WINDOW_MS)
    parts = partsNow()
  }
  const answered = counted().length
  isOver = true
  for (const gateway of gateways) gateway.kill('SIGKILL') // so that those who wait need not wait on
  await Promise.all(callers)
  agent.destroy()
  const { worst, throttled } = Object.values(sandbox.counts().accounts)[0]!.read!
  return { parts, answered, throttled, worst, limit: REQUESTS, slowestMs, statuses }
}

export function describeContended({ parts, answered, throttled, worst, limit, slowestMs }: Contended): string {
  const shares = Object.entries(parts).map(([client, part]) => `${client} ${(100 * part).toFixed(1)} %`)
  return [
    `three gateways, ${answered} calls of five clients, against their due: ${shares.join(', ')};`,
    `at most ${worst} of ${limit} in a window, ${throttled} upstream 429s, slowest answer ${Math.round(slowestMs)} ms`,
  ].join(' ')
}

function get(agent: Agent, base: string, key: string): Promise<string> {
  return new Promise((resolve) => {
    const outgoing = request(base + READ, { agent, headers: { 'x-sluice-key': key } }, (response) => {
      response.resume().once('close', () => resolve(String(response.statusCode)))
    })
    outgoing.once('error', () => resolve('broken')).end()
  })
}
