import { Agent, request } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import { expect, inject, it, onTestFinished } from 'vitest'
import { startSandbox } from '../../../src/sandbox/sandbox.ts'
import { ACCOUNT, harnessConfig, newFolder, TOKEN } from '../../support/gateway.ts'
import { startProcess } from '../../support/process.ts'

/** `SLUICE_PROOF=full` takes windows of five seconds; the suite shorter ones, and expects less of a busy machine. */
const isInFull = process.env['SLUICE_PROOF'] === 'full'
const WINDOW_MS = isInFull ? 5_000 : 3_000
const REQUESTS = isInFull ? 300 : 120
const SHARE = 0.4
const CLIENTS = 40
const PATH = '/ng/api/projects'
/** Windows before the other one comes, for which it stays, and which the first of these are not counted. */
const [ALONE, TOGETHER, LEARNING] = [1, isInFull ? 11 : 6, 3]

const agent = new Agent({ keepAlive: true })

/** The status, and the kind if it is the gateway's own refusal. */
function get(url: string, headers: Record<string, string> = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { agent, headers }, (response) => {
      const kind = response.headers['x-sluice-error']
      const status = [response.statusCode, kind].filter(Boolean).join(' ')
      response.resume().once('end', () => resolve(status))
    })
    outgoing.once('error', reject).end()
  })
}

it.each([
  ['three gateways that share a Redis', 3],
  ['one gateway with the embedded store', 1],
  // Where the machine stands still for a moment, many calls are in flight when the first is refused: once more, then.
])('%s leave to somebody else what he takes, and take it again when he stops', { retry: 2 }, async (_, count) => {
  const sandbox = await startSandbox({ limits: { read: { requests: REQUESTS, windowMs: WINDOW_MS } } })
  onTestFinished(() => sandbox.stop())
  sandbox.setFaults({ latencyMs: { min: 5, max: 60 } })
  const prefix = `second-${process.pid}-${performance.now()}`
  const store =
    count === 1
      ? { kind: 'memory', dir: newFolder() }
      : { kind: 'redis', url: inject('redisUrl'), prefix, commandTimeout: '2s' }
  const config = harnessConfig(sandbox.url, {
    limits: { read: [{ requests: REQUESTS, window: `${WINDOW_MS}ms` }] },
    queue: { maxWait: '30s', maxWaiting: CLIENTS * 2 },
    throttle: { pause: '200ms' },
  })
  const gateways = await Promise.all(Array.from({ length: count }, () => startProcess({ ...config, store })))
  const statuses: Record<string, number> = {}
  const others = { accepted: 0, refused: 0 }
  let isOver = false
  const client = async (url: string): Promise<void> => {
    while (!isOver) {
      const status = await get(`${url}/harness${PATH}`).catch(() => 'broken')
      if (!isOver) statuses[status] = (statuses[status] ?? 0) + 1
    }
  }
  const clients = gateways.flatMap(({ url }) => Array.from({ length: CLIENTS }, () => client(url)))
  const other = async (untilMs: number): Promise<void> => {
    const everyMs = WINDOW_MS / (REQUESTS * SHARE)
    const calls: Promise<void>[] = []
    // Not faster after it was late, on a busy machine: nobody could leave room for such a burst.
    for (let at = performance.now(); at < untilMs; at = Math.max(at + everyMs, performance.now())) {
      await pause(Math.max(0, at - performance.now()))
      const call = get(`${sandbox.url}${PATH}?accountIdentifier=${ACCOUNT}`, { 'x-api-key': TOKEN })
      calls.push(call.then((status) => void others[status === '429' ? 'refused' : 'accepted']++))
    }
    await Promise.all(calls)
  }
  /** Calls of the gateways so far. */
  const ours = () => {
    const { accepted = 0, throttled = 0 } = sandbox.counts().accounts[ACCOUNT]?.read ?? {}
    return { accepted: accepted - others.accepted, refused: throttled - others.refused }
  }
  const effective = async (): Promise<number> => {
    const response = await fetch(`${gateways[0]!.adminUrl}/v1/quota`)
    const { data } = (await response.json()) as { data: { class: string; effective: number }[] }
    return data.find((row) => row.class === 'read')!.effective
  }

  await pause(ALONE * WINDOW_MS)
  expect(ours().refused).toBe(0)
  await other(performance.now() + LEARNING * WINDOW_MS)
  const learned = { ours: ours(), others: { ...others } }
  await other(performance.now() + (TOGETHER - LEARNING) * WINDOW_MS)
  const end = ours()
  const stoppedAt = performance.now()
  while ((await effective()) < REQUESTS) await pause(WINDOW_MS / 20)
  const wholeAfter = (performance.now() - stoppedAt) / WINDOW_MS
  isOver = true
  const [accepted, refused] = [end.accepted - learned.ours.accepted, end.refused - learned.ours.refused]
  for (const gateway of gateways) gateway.kill('SIGKILL')
  await Promise.all(clients)
  const left = (TOGETHER - LEARNING) * REQUESTS - (others.accepted - learned.others.accepted)
  console.log(
    `${count} gateways: of ${accepted + refused} calls from the third window on ${refused} were refused upstream`,
    `(${((100 * refused) / (accepted + refused)).toFixed(2)} %), before that ${learned.ours.refused};`,
    `${((100 * accepted) / left).toFixed(0)} % of what the other left was used; whole again after ${wholeAfter.toFixed(1)} windows;`,
    `the other had ${others.accepted} and was refused ${others.refused}; clients saw ${JSON.stringify(statuses)}`,
  )
  expect(learned.ours.refused + refused).toBeGreaterThan(0)
  expect(refused / (accepted + refused)).toBeLessThan(isInFull ? 0.01 : 0.025)
  expect(wholeAfter).toBeLessThan(5)
  // Of the upstream's 429s they see none.
  expect(Object.keys(statuses)).toEqual(['200'])
})
