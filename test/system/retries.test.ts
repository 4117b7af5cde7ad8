import { createServer } from 'node:http'
import { Readable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { call, RawClient } from '../support/http.ts'
import { harnessConfig, startGateway, startServer, startUpstream } from '../support/gateway.ts'
import { freePort } from '../support/find-redis.ts'
import { SimulatedClock, stepUntilDone } from '../support/simulated-clock.ts'

const QUICK = {
  retry: { retries: 3, baseDelay: '1ms', maxDelay: '5ms' },
  throttle: { pause: '5ms' },
  breaker: { failures: 100 },
}
const READ = '/harness/ng/api/projects'
const LIST = '/harness/ng/api/connectors/listV2'
const CREATE = '/harness/ng/api/projects'

/** An upstream that answers with these statuses in turn, the last one for ever. */
function statuses(...list: (number | [number, Record<string, string>])[]) {
  let index = 0
  return startUpstream((_, response) => {
    const [status, headers] = [list[Math.min(index++, list.length - 1)]!].flat() as [number, Record<string, string>?]
    response.writeHead(status, headers).end(`answer ${index}`)
  })
}

describe('a call that fails', () => {
  it.each([429, 500, 502, 503, 504])('with %i is retried if it only reads, and tells how often', async (status) => {
    const upstream = await statuses(status, status, 200)
    const gateway = await startGateway(harnessConfig(upstream.url, QUICK))
    const answer = await call(gateway.url, READ)
    expect(answer).toMatchObject({ status: 200, body: 'answer 3' })
    expect(answer.headers['x-sluice-attempts']).toBe('3')
    // Of a limit that the upstream seems not to have, less is used from then on.
    expect(answer.headers['x-ratelimit-remaining']).toBe(status === 429 ? '222' : '997')
    expect(gateway.lines[0]).toMatchObject({ attempts: 3, outcome: 'delivered' })
    expect(await gateway.metrics()).toContain(
      `sluice_attempts_total{upstream="harness",account="prod",class="read",reason="status_${status}"} 2 # {correlation_id="`,
    )
  })

  it('tells how long it slept between its attempts, if it did', async () => {
    const upstream = await statuses(503, 200)
    // Timers may be a millisecond early, and so one of less may take no time at all.
    const retry = { ...QUICK.retry, baseDelay: '10ms', maxDelay: '10ms' }
    const gateway = await startGateway(harnessConfig(upstream.url, { ...QUICK, retry }), { random: () => 0.5 })
    const retried = await call(gateway.url, READ)
    const [, backoff] = /, backoff;dur=(\d+\.\d)$/.exec(retried.headers['server-timing'] as string) ?? []
    expect(Number(backoff)).toBeGreaterThan(0)
    // The one is rounded to a tenth of a millisecond, the other to a hundredth.
    expect(Math.abs(gateway.lines[0]!.backoffMs - Number(backoff))).toBeLessThan(0.06)
    const once = await call(gateway.url, READ)
    expect(once.headers['server-timing']).not.toContain('backoff')
    expect(gateway.lines[1]).toMatchObject({ backoffMs: 0 })
  })

  it.each([400, 401, 404, 408, 501, 505])('with %i is not', async (status) => {
    const upstream = await statuses(status, 200)
    const gateway = await startGateway(harnessConfig(upstream.url, QUICK))
    const answer = await call(gateway.url, READ)
    expect(answer.status).toBe(status)
    expect(answer.headers['x-sluice-attempts']).toBeUndefined()
    expect(upstream.seen).toHaveLength(1)
  })

  it('ends with the upstream’s own last answer', async () => {
    const upstream = await statuses(503)
    const gateway = await startGateway(harnessConfig(upstream.url, QUICK))
    expect(await call(gateway.url, READ)).toMatchObject({ status: 503, body: 'answer 4' })
    expect(upstream.seen).toHaveLength(4)
  })

  it('is retried with its body, if that is small', async () => {
    const upstream = await statuses(503, 200, 503, 200)
    const gateway = await startGateway(harnessConfig(upstream.url, QUICK))
    const body = JSON.stringify({ filter: 'x'.repeat(200_000) })
    expect((await call(gateway.url, LIST, { method: 'POST', body })).status).toBe(200)
    const chunked = await call(gateway.url, LIST, {
      method: 'POST',
      body: Readable.from([body.slice(0, 10), body.slice(10)]),
    })
    expect(chunked.status).toBe(200)
    expect(upstream.seen.map((one) => one.body)).toEqual([body, body, body, body])
  })

  it('is not retried with a body that was too large to keep', async () => {
    const upstream = await statuses(503, 200)
    const gateway = await startGateway(
      harnessConfig(upstream.url, { ...QUICK, retry: { ...QUICK.retry, bodyLimit: 1_000 } }),
    )
    const body = 'x'.repeat(1_001)
    expect((await call(gateway.url, LIST, { method: 'POST', body })).status).toBe(503)
    expect(
      (await call(gateway.url, LIST, { method: 'POST', body: Readable.from(['x'.repeat(900), 'x'.repeat(101)]) }))
        .status,
    ).toBe(200)
    expect(upstream.seen.map((one) => one.body)).toEqual([body, body])
  })

  it('is not retried if it creates something and was sent', async () => {
    for (const status of [500, 502, 503]) {
      const upstream = await statuses(status, 200)
      const gateway = await startGateway(harnessConfig(upstream.url, QUICK))
      expect((await call(gateway.url, CREATE, { method: 'POST', body: '{}' })).status).toBe(status)
      expect(upstream.seen).toHaveLength(1)
    }
  })

  it('is retried after a reset, unless it creates something', async () => {
    let count = 0
    const url = await startServer((request, response) => {
      request.resume().on('end', () => (count++ % 2 === 0 ? request.socket.resetAndDestroy() : response.end('ok')))
    })
    const gateway = await startGateway(harnessConfig(url, QUICK))
    expect(await call(gateway.url, READ)).toMatchObject({ status: 200, body: 'ok' })
    expect(count).toBe(2)
    const created = await call(gateway.url, CREATE, { method: 'POST', body: '{}' })
    expect(created.headers['x-sluice-error']).toBe('interrupted')
    expect(count).toBe(3)
  })

  it('is retried whatever it does, if nothing of it was sent', async () => {
    const port = await freePort()
    const clock = new SimulatedClock()
    const gateway = await startGateway(
      harnessConfig(`http://127.0.0.1:${port}`, {
        retry: { retries: 20, baseDelay: '20ms', maxDelay: '20ms', budget: '100%' },
        breaker: { failures: 100 },
      }),
      { clock },
    )
    const calling = call(gateway.url, CREATE, { method: 'POST', body: 'x'.repeat(100_000) })
    const failed = async () => Number(/reason="unreachable"} (\d+)/.exec(await gateway.metrics())?.[1] ?? 0)
    while ((await failed()) < 2) {
      // For the next attempt.
      await expect.poll(() => clock.waits.some((ms) => ms <= 20)).toBe(true)
      await clock.advance(20)
    }
    let received = 0
    const server = createServer((request, response) =>
      request.on('data', (chunk: Buffer) => void (received += chunk.length)).on('end', () => response.end()),
    )
    server.listen(port, '127.0.0.1')
    expect((await stepUntilDone(clock, calling)).status).toBe(200)
    expect(received).toBe(100_000)
    server.close()
    // Not one of the attempts before was charged.
    expect(await gateway.metrics()).toContain(
      'sluice_quota_used{upstream="harness",account="prod",class="write",window="1m"} 1',
    )
  })

  it.each([
    ['in seconds', '7'],
    ['until a date', 'Thu, 01 Jan 2026 00:00:07 GMT'],
  ])('waits as long as the upstream says, %s', async (_, retryAfter) => {
    const clock = new SimulatedClock(Date.UTC(2026, 0, 1))
    // A date is by the clock of whoever sends it.
    const date = 'Thu, 01 Jan 2026 00:00:00 GMT'
    const upstream = await statuses([429, { 'retry-after': retryAfter, date }], 200)
    const gateway = await startGateway(harnessConfig(upstream.url, QUICK), { clock, random: () => 0 })
    const answer = call(gateway.url, READ)
    await expect.poll(() => clock.waits).toContain(7_000)
    await clock.advance(6_999)
    expect(upstream.seen).toHaveLength(1)
    await clock.advance(1)
    expect((await answer).status).toBe(200)
  })

  it('backs off where it is told to come back at once', async () => {
    const clock = new SimulatedClock()
    const upstream = await statuses([503, { 'retry-after': '0' }], 200)
    const retry = { retry: { baseDelay: '40s', maxDelay: '40s' } }
    const gateway = await startGateway(harnessConfig(upstream.url, retry), { clock, random: () => 0.5 })
    const answer = call(gateway.url, READ)
    await expect.poll(() => clock.waits.some((ms) => Math.abs(ms - 20_000) < 1)).toBe(true)
    expect(upstream.seen).toHaveLength(1)
    await clock.advance(20_001)
    expect(await answer).toMatchObject({ status: 200, headers: { 'x-sluice-attempts': '2' } })
  })

  it('answers with what the upstream said if there is no time for what it asks', async () => {
    const upstream = await statuses([429, { 'retry-after': '300' }], 200)
    const gateway = await startGateway(harnessConfig(upstream.url, QUICK))
    const answer = await call(gateway.url, READ)
    expect(answer).toMatchObject({ status: 429, body: 'answer 1', headers: { 'retry-after': '300' } })
  })

  it('is left alone if its client says so', async () => {
    const upstream = await statuses(503, 200)
    const gateway = await startGateway(harnessConfig(upstream.url, QUICK))
    expect((await call(gateway.url, READ, { headers: { 'x-sluice-retry': 'off' } })).status).toBe(503)
    expect(upstream.seen).toHaveLength(1)
  })

  it('is not retried beyond the budget', async () => {
    const upstream = await statuses(503)
    const gateway = await startGateway(harnessConfig(upstream.url, { ...QUICK, breaker: { failures: 1_000 } }))
    for (let i = 0; i < 30; i++) expect((await call(gateway.url, READ)).status).toBe(503)
    // Ten saved up, a fifth of thirty calls, and one a second for as long as this takes.
    expect(upstream.seen.length).toBeGreaterThanOrEqual(46 - 1)
    expect(upstream.seen.length).toBeLessThanOrEqual(52)
    expect(await gateway.metrics()).toMatch(
      /sluice_retry_budget_exhausted_total\{upstream="harness"\} \d+ # \{correlation_id=/,
    )
  })

  it('is retried by several gateways together within the budget of each, as the upstream counts', async () => {
    const upstream = await statuses(503)
    const config = () => harnessConfig(upstream.url, { ...QUICK, breaker: { failures: 1_000 } })
    // A clock that stands: nothing is added but for traffic.
    const options = { clock: new SimulatedClock(), random: () => 0 }
    const gateways = await Promise.all(Array.from({ length: 3 }, () => startGateway(config(), options)))
    const send = (i: number) => answered(options.clock, call(gateways[i % 3]!.url, READ))
    for (let i = 0; i < 90; i++) await send(i)
    // Ten for each, and a fifth of ninety, of which each may have a part of one left.
    const retries = upstream.seen.length - 90
    expect(retries).toBeLessThanOrEqual(3 * 10 + 18)
    expect(retries).toBeGreaterThanOrEqual(3 * 10 + 15)
  })

  it('is retried after the statuses that are configured, and no others', async () => {
    const retry = { ...QUICK.retry, statuses: [408, 503] }
    const upstream = await statuses(408, 503, 200, 500, 200)
    const gateway = await startGateway(harnessConfig(upstream.url, { ...QUICK, retry }))
    expect(await call(gateway.url, READ)).toMatchObject({ status: 200, body: 'answer 3' })
    expect(await call(gateway.url, READ)).toMatchObject({ status: 500, body: 'answer 4' })
  })

  it.each([
    ['honoured', 'some-key', 200],
    ['honoured', '', 503],
    ['honoured', undefined, 503],
    ['forwarded', 'some-key', 503],
  ])(
    'is retried, if it creates something, only where the upstream honours its Idempotency-Key: %s, %s',
    async (idempotencyKey, key, status) => {
      const upstream = await statuses(503, 200)
      const gateway = await startGateway(
        harnessConfig(upstream.url, { ...QUICK, retry: { ...QUICK.retry, idempotencyKey } }),
      )
      const headers: Record<string, string> = key === undefined ? {} : { 'idempotency-key': key }
      expect((await call(gateway.url, CREATE, { method: 'POST', body: '{}', headers })).status).toBe(status)
      expect(upstream.seen.map((seen) => [seen.body, seen.headers['idempotency-key']])).toEqual(
        upstream.seen.map(() => ['{}', key]),
      )
      expect(upstream.seen).toHaveLength(status === 200 ? 2 : 1)
    },
  )

  it('is not retried after a response whose head is too large, which is no failure for the breaker', async () => {
    const upstream = await startUpstream(({ url }, response) => {
      response.writeHead(200, { 'x-large': 'x'.repeat(url.includes('larger') ? 66_000 : 60_000) }).end()
    })
    const gateway = await startGateway(harnessConfig(upstream.url, { ...QUICK, breaker: { failures: 1 } }))
    const refused = await call(gateway.url, `${READ}?larger`)
    expect(refused).toMatchObject({ status: 502, headers: { 'x-sluice-error': 'interrupted' } })
    expect(refused.json().message).toContain('harness answered with a head of more than 65536 bytes')
    const client = await RawClient.connect(gateway.url)
    client.write(`GET ${READ} HTTP/1.1\r\nHost: x\r\n\r\n`)
    expect(await client.until(/\r\n\r\n/)).toMatch(/^HTTP\/1\.1 200 OK\r\n[^]*x{60000}/)
    client.socket.destroy()
    expect(upstream.seen).toHaveLength(2)
  })

  it('is not retried for a client that left meanwhile', async () => {
    const upstream = await statuses([503, { 'retry-after': '1' }], 200)
    const gateway = await startGateway(harnessConfig(upstream.url, QUICK))
    const client = await RawClient.connect(gateway.url)
    client.write(`GET ${READ} HTTP/1.1\r\nHost: x\r\n\r\n`)
    await expect.poll(() => upstream.seen.length).toBe(1)
    client.socket.destroy()
    await expect.poll(() => gateway.lines.length).toBe(1)
    expect(gateway.lines[0]).toMatchObject({ outcome: 'client_gone', attempts: 1 })
    expect(upstream.seen).toHaveLength(1)
  })
})

describe('a breaker', () => {
  it('opens after five failures, refuses with the time to come back, and closes after a successful probe', async () => {
    let isSick = true
    const clock = new SimulatedClock()
    const upstream = await startUpstream((_, response) => response.writeHead(isSick ? 500 : 200).end())
    const gateway = await startGateway(
      harnessConfig(upstream.url, { retry: { retries: 0 }, breaker: { failures: 5, reset: '600ms' } }),
      { clock },
    )
    for (let i = 0; i < 5; i++) expect((await call(gateway.url, READ)).status).toBe(500)
    const refused = await call(gateway.url, READ)
    expect(refused).toMatchObject({ status: 503 })
    expect(refused.headers).toMatchObject({ 'x-sluice-error': 'breaker_open', 'retry-after': '1' })
    expect(refused.json()).toMatchObject({ code: 'CIRCUIT_OPEN' })
    expect(upstream.seen).toHaveLength(5)
    expect(await gateway.metrics()).toContain('sluice_breaker_state{upstream="harness"} 2')
    isSick = false
    const statusAfter = async (ms: number) => {
      await clock.advance(ms)
      return (await call(gateway.url, READ)).status
    }
    await expect.poll(() => statusAfter(50)).toBe(200)
    expect(await gateway.metrics()).toContain('sluice_breaker_state{upstream="harness"} 0')
    expect((await fetch(`${gateway.adminUrl}/readyz`)).status).toBe(200)
  })

  it('ends the retries of a call as soon as it opens, with the upstream’s own answer', async () => {
    const upstream = await statuses(503)
    const gateway = await startGateway(
      harnessConfig(upstream.url, { ...QUICK, retry: { ...QUICK.retry, retries: 10 }, breaker: { failures: 5 } }),
    )
    for (let i = 0; i < 4; i++) await call(gateway.url, READ, { headers: { 'x-sluice-retry': 'off' } })
    expect(await call(gateway.url, READ)).toMatchObject({ status: 503, body: 'answer 5' })
    expect((await call(gateway.url, READ)).headers['x-sluice-error']).toBe('breaker_open')
    expect(upstream.seen).toHaveLength(5)
  })

  it('is not opened by the retries of one call', async () => {
    const upstream = await startUpstream((request, response) => {
      response.writeHead(request.url === '/ng/api/sick' ? 500 : 200).end()
    })
    const gateway = await startGateway(
      harnessConfig(upstream.url, { ...QUICK, retry: { ...QUICK.retry, retries: 10 }, breaker: { failures: 5 } }),
    )
    expect((await call(gateway.url, '/harness/ng/api/sick')).headers['x-sluice-attempts']).toBe('11')
    expect((await call(gateway.url, READ)).status).toBe(200)
  })

  it('does not count 4xx, nor clients that left', async () => {
    let isSilent = false
    const upstream = await startUpstream((_, response) => void (isSilent || response.writeHead(404).end()))
    const gateway = await startGateway(harnessConfig(upstream.url, { breaker: { failures: 2 } }))
    for (let i = 0; i < 4; i++) await call(gateway.url, READ)
    isSilent = true
    for (let i = 0; i < 4; i++) {
      const client = await RawClient.connect(gateway.url)
      client.write(`GET ${READ} HTTP/1.1\r\nHost: x\r\n\r\n`)
      await expect.poll(() => upstream.seen.length).toBe(5 + i)
      client.socket.destroy()
    }
    isSilent = false
    expect((await call(gateway.url, READ)).status).toBe(404)
    expect(await gateway.metrics()).toContain('sluice_breaker_state{upstream="harness"} 0')
  })
})

/** The answer, with delays of no time. */
async function answered<T>(clock: SimulatedClock, calling: Promise<T>): Promise<T> {
  let isOver = false
  const answer = calling.finally(() => void (isOver = true))
  while (!isOver) await clock.advance(0)
  return answer
}
