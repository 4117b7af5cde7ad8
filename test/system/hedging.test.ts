import type { ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import { ACCOUNT, harnessConfig, startGateway, startServer } from '../support/gateway.ts'
import { call, type CallOptions, RawClient } from '../support/http.ts'
import { storyOf } from '../support/requests.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const READ = '/harness/ng/api/projects'
const AFTER = 200

interface Pending {
  readonly response: ServerResponse
  isClosed: boolean
}

/** A gateway that sends calls once more after 200 ms, in front of an upstream that answers when it is told to. */
async function setUp(rest: object = {}) {
  const clock = new SimulatedClock()
  const pending: Pending[] = []
  const url = await startServer((request, response) => {
    const one = { response, isClosed: false }
    response.on('close', () => (one.isClosed = !response.writableFinished))
    request.resume()
    pending.push(one)
  })
  const config = harnessConfig(url, { hedge: { after: `${AFTER}ms` }, retry: { retries: 0 }, ...rest })
  const gateway = await startGateway(config, { clock, random: () => 0 })
  const arrive = (calls: number) => expect.poll(() => pending.length).toBe(calls)
  /** Sends a call that is late. */
  const late = async (options: CallOptions = {}, path = READ) => {
    const { length } = pending
    const answer = call(gateway.url, path, options)
    await arrive(length + 1)
    await clock.advance(AFTER)
    return { answer }
  }
  return { clock, pending, gateway, arrive, late }
}

describe('a read that is late', () => {
  it('gives back the credential of a pool as often as it used it', async () => {
    const credentials = ['a', 'b'].map((name) => ({ name, type: 'bearer', value: `token-of-${name}` }))
    const { pending, gateway, arrive, late } = await setUp({ accounts: { prod: { id: ACCOUNT, credentials } } })
    const { answer } = await late()
    await arrive(2)
    pending[1]!.response.end('second')
    expect((await answer).status).toBe(200)
    // If one of them were still in use the other would be chosen each time.
    for (let i = 0; i < 4; i++) {
      const next = call(gateway.url, READ)
      await arrive(3 + i)
      pending[2 + i]!.response.end('ok')
      await next
    }
    const tokens = pending.slice(2).map(({ response }) => response.req.headers.authorization)
    expect(new Set(tokens).size).toBe(2)
  })

  it('has its attempts in the order of their numbers in its story, whichever ended first', async () => {
    const { pending, gateway, arrive, late } = await setUp()
    const { answer } = await late({ headers: { 'x-correlation-id': 'late' } })
    await arrive(2)
    pending[1]!.response.end('second')
    await answer
    const { tries } = await storyOf(gateway.adminUrl, 'late')
    expect(tries.map(({ number, startedMs, end }) => [number, startedMs, end])).toEqual([
      [1, 0, 'superseded'],
      [2, AFTER, 'delivered'],
    ])
  })

  it('is sent once more, and answered by the second if that is first; the other is cancelled', async () => {
    const { pending, gateway, arrive, late } = await setUp()
    const { answer } = await late()
    await arrive(2)
    pending[1]!.response.end('second')
    expect(await answer).toMatchObject({ status: 200, body: 'second', headers: { 'x-sluice-attempts': '2' } })
    await expect.poll(() => pending[0]!.isClosed).toBe(true)
    const metrics = await gateway.metrics()
    expect(metrics).toMatch(/sluice_attempts_total\{[^}]*reason="hedge"\} 1/)
    // Both are charged, and neither is in flight any more.
    expect(metrics).toContain('sluice_quota_used{upstream="harness",account="prod",class="read",window="1m"} 2')
    expect(metrics).toMatch(/sluice_in_flight\{[^}]*class="read"\} 0/)
    expect(gateway.lines).toMatchObject([{ attempts: 2, upstreamMs: AFTER, gatewayMs: 0, outcome: 'delivered' }])
  })

  it('is answered by the first if that is still first, and the second is cancelled', async () => {
    const { pending, arrive, late } = await setUp()
    const { answer } = await late()
    await arrive(2)
    pending[0]!.response.end('first')
    expect((await answer).body).toBe('first')
    await expect.poll(() => pending[1]!.isClosed).toBe(true)
  })

  it.each([
    ['fails', (one: Pending) => one.response.writeHead(503).end('sick')],
    ['breaks', (one: Pending) => one.response.destroy()],
  ])('is answered by the other if one %s, whichever it is', async (_, fail) => {
    for (const [failing, good] of [
      [0, 1],
      [1, 0],
    ] as const) {
      const { pending, gateway, arrive, late } = await setUp()
      const { answer } = await late()
      await arrive(2)
      fail(pending[failing]!)
      // The other is answered only when this one has been heard of.
      await expect.poll(() => gateway.metrics()).toMatch(/sluice_in_flight\{[^}]*class="read"\} 1/)
      pending[good]!.response.end('good')
      expect(await answer).toMatchObject({ status: 200, body: 'good' })
      expect(gateway.lines).toHaveLength(1)
    }
  })

  it('fails like any other if both do', async () => {
    const { pending, arrive, late } = await setUp()
    const { answer } = await late()
    await arrive(2)
    for (const { response } of pending) response.writeHead(503).end('sick')
    expect(await answer).toMatchObject({ status: 503, body: 'sick' })
  })

  it('ends upstream both times if its client leaves', async () => {
    const { clock, pending, gateway, arrive } = await setUp()
    const client = await RawClient.connect(gateway.url)
    client.write(`GET ${READ} HTTP/1.1\r\nHost: x\r\n\r\n`)
    await arrive(1)
    await clock.advance(AFTER)
    await arrive(2)
    client.socket.destroy()
    await expect.poll(() => pending.every(({ isClosed }) => isClosed)).toBe(true)
    expect(gateway.lines).toMatchObject([{ outcome: 'client_gone', upstreamMs: AFTER }])
    expect(await gateway.metrics()).toMatch(/sluice_in_flight\{[^}]*class="read"\} 0/)
  })
})

describe('a call is not sent a second time', () => {
  it('if it was answered in time', async () => {
    const { clock, pending, gateway, arrive } = await setUp()
    const answer = call(gateway.url, READ)
    await arrive(1)
    await clock.advance(AFTER - 1)
    pending[0]!.response.end()
    await answer
    await clock.advance(AFTER)
    expect(pending).toHaveLength(1)
  })

  it.each<[string, object, CallOptions, string?]>([
    ['changes something', {}, { method: 'PUT' }],
    ['only reads, but by a POST', {}, { method: 'POST', body: '{}' }, '/harness/ng/api/connectors/listV2'],
    ['may not be retried', {}, { headers: { 'x-sluice-retry': 'off' } }],
    ['finds no quota for it', { limits: { read: [{ requests: 1, window: '1h' }] } }, {}],
    ['finds no place in flight for it', { concurrency: { read: 1 } }, {}],
    ['finds no connection for it', { connections: 1 }, {}],
    ['is one where that is not configured', { hedge: undefined }, {}],
  ])('if it %s', async (_, rest, options, path) => {
    const { pending, gateway, late } = await setUp(rest)
    const { answer } = await late(options, path)
    pending[0]!.response.end('first')
    expect((await answer).body).toBe('first')
    expect(pending).toHaveLength(1)
    expect(await gateway.metrics()).not.toContain('reason="hedge"')
  })

  it('if it was not sent once, because other calls have all connections', async () => {
    const { clock, pending, gateway, arrive } = await setUp({ connections: 1 })
    const first = call(gateway.url, READ, { method: 'PUT' })
    await arrive(1)
    const waiting = Array.from({ length: 3 }, () => call(gateway.url, READ))
    await expect.poll(() => gateway.metrics()).toMatch(/sluice_in_flight\{[^}]*class="read"\} 3/)
    await clock.advance(AFTER)
    const metrics = await gateway.metrics()
    expect(metrics).not.toContain('reason="hedge"')
    expect(metrics).toMatch(/sluice_in_flight\{[^}]*class="read"\} 3/)
    for (let i = 0; i < 4; i++) {
      await arrive(i + 1)
      pending[i]!.response.end()
    }
    for (const answer of [first, ...waiting]) expect((await answer).status).toBe(200)
    expect(pending).toHaveLength(4)
  })

  it('if the retry budget is spent', async () => {
    const { pending, gateway, arrive, late } = await setUp({ retry: { retries: 0, budget: '0%' } })
    for (let i = 0; i < 10; i++) {
      const { answer } = await late()
      await arrive(2 * i + 2)
      pending[2 * i]!.response.end()
      await answer
    }
    const { answer } = await late()
    // Within the time that has passed two more were saved up.
    await arrive(22)
    pending[20]!.response.end()
    await answer
    for (let i = 0; i < 3; i++) {
      const { length } = pending
      const { answer } = await late()
      pending[length]!.response.end()
      await answer
    }
    expect(await gateway.metrics()).toMatch(/sluice_retry_budget_exhausted_total\{upstream="harness"\} [1-3]/)
  })
})
