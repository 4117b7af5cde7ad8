import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { presets } from '../../../src/config/presets/index.ts'
import { startGateway, stores } from '../../support/gateway.ts'
import { call } from '../../support/http.ts'
import { seededRandom } from '../../support/seeded-random.ts'
import { startTokenVendor } from '../../support/token-vendor.ts'

/** A shorter one would want more calls a second than a busy machine makes. */
const WINDOW_MS = 20_000
/** Output tokens in a window; a call has about 40. */
const LIMIT = 16_000
const CALLS = LIMIT / 40
/** In windows from the start. What is measured is the share of the limit that was used in the window before each moment. */
const [MEASURED_FROM, MEASURED_TO] = [2.2, 3]
/** What a call takes on a machine that has nothing else to do. */
const USUAL_LATENCY_MS = 150
/** So many calls wait at each gateway, at least. */
const WAITING = 6

interface PresetLimit {
  readonly name?: string
  requests: number
  window: string
  readonly cost?: { readonly reserve: { most: number } }
}

/** The limits of the preset, of which output tokens are the scarce one, with another window. */
function limitsInTurn(): object[] {
  const limits = structuredClone(presets['anthropic']!.config.limits['messages']) as PresetLimit[]
  for (const limit of limits) {
    limit.window = `${WINDOW_MS / 1_000}s`
    if (limit.name !== 'output-tokens') continue
    limit.requests = LIMIT
    limit.cost!.reserve.most = 500
  }
  return limits
}

it('three gateways use a limit of tokens to 95 % and more, streams and all, and are never refused', async () => {
  const vendor = await startTokenVendor('anthropic', {
    limits: { requests: 1_000, 'input-tokens': 2_000_000, 'output-tokens': LIMIT },
    windowMs: WINDOW_MS,
    streamMs: 100,
  })
  const store = stores.Redis()
  const upstream = {
    preset: 'anthropic',
    url: vendor.url,
    accounts: { main: { credential: { value: 'secret' } } },
    limits: { messages: limitsInTurn() },
    queue: { maxWait: '60s' },
  }
  const config = { server: { port: 0 }, admin: { port: 0 }, store, upstreams: { it: upstream } }
  const gateways = await Promise.all(Array.from({ length: 3 }, () => startGateway(config)))
  const random = seededRandom(1)
  const notServed: string[] = []
  const inFlightMs: number[] = []
  let isOver = false
  const ask = async (gateway: number): Promise<void> => {
    const messages = [{ role: 'user', content: `say ${20 + Math.floor(random() * 41)}` }]
    const body = JSON.stringify({ model: 'model', stream: random() < 0.7, max_tokens: 4_096, messages })
    const headers = { 'content-type': 'application/json', 'anthropic-version': '2023-06-01' }
    const sentAt = performance.now()
    const answer = await call(gateways[gateway]!.url, '/it/v1/messages', { method: 'POST', headers, body })
    const [, waitedMs = 0] = /queue;dur=([\d.]+)/.exec(String(answer.headers['server-timing'])) ?? []
    inFlightMs.push(performance.now() - sentAt - Number(waitedMs))
    if (answer.status !== 200 && !isOver) notServed.push(`${answer.status} ${answer.body}`)
  }
  const askOn = async (gateway: number): Promise<void> => {
    while (!isOver) await ask(gateway)
  }
  // Calls come evenly in the first window, so that they do in the next ones. From then on more wait than may go. Each gateway has to
  // see a hundred calls until it knows what 99 in 100 cost, and reserves 500 for each until then.
  const calls: Promise<void>[] = []
  const total: { at: number; tokens: number }[] = []
  const startedAt = performance.now()
  for (let n = 0; performance.now() - startedAt < MEASURED_TO * WINDOW_MS; n++) {
    if (n < CALLS) calls.push(ask(n % 3))
    if (n === CALLS) for (let i = 0; i < 3 * WAITING; i++) calls.push(askOn(i % 3))
    total.push({ at: performance.now(), tokens: vendor.taken['output-tokens'] ?? 0 })
    await sleep(WINDOW_MS / CALLS)
  }
  isOver = true
  const shares = total.flatMap(({ at, tokens }) => {
    const before = total.findLast((earlier) => earlier.at <= at - WINDOW_MS)
    return before === undefined || at < startedAt + MEASURED_FROM * WINDOW_MS ? [] : (tokens - before.tokens) / LIMIT
  })
  const used = mean(shares)
  const latencyMs = mean(inFlightMs)
  console.log(
    `three gateways: ${(100 * used).toFixed(1)} % of the tokens used in ${shares.length} windows, by calls of ${latencyMs.toFixed(0)} ms;`,
    `${vendor.refused} of ${vendor.seen.length} calls refused`,
  )
  expect(vendor.refused).toBe(0)
  expect(notServed).toEqual([])
  // A call counts until it is over. On a busy machine that is later, and so much less can be used.
  const usable = Math.min(1, (WINDOW_MS + USUAL_LATENCY_MS) / (WINDOW_MS + latencyMs))
  expect(used / usable).toBeGreaterThan(0.95)
  expect(used).toBeLessThanOrEqual(1.01)
  await Promise.all([...gateways.map((gateway) => gateway.stop()), Promise.allSettled(calls)])
})

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}
