import { once } from 'node:events'
import { type IncomingMessage, type ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import { harnessConfig, startApp, startGateway, startServer, startUpstream } from '../support/gateway.ts'
import { type Ledger, StoreUnavailableError } from '../../src/ledger/ledger.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { call, RawClient } from '../support/http.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const READ = '/harness/ng/api/projects'
const CREATE = '/harness/ng/api/projects'
const NOW = { 'x-sluice-max-wait': '0' }
const SECOND = 1_000
const IDLE_MS = 300 * SECOND

it('keeps no more than 128 MiB of request bodies: what is beyond streams and is not sent again', async () => {
  const MIB = 1_048_576
  const held: [IncomingMessage, ServerResponse][] = []
  const url = await startServer((...exchange) => void held.push(exchange))
  const gateway = await startGateway(harnessConfig(url, { retry: { bodyLimit: 200 * MIB, baseDelay: '1ms' } }))
  const path = '/harness/ng/api/connectors/listV2'
  const begin = async (bytes: number, sent: number): Promise<RawClient> => {
    const client = await RawClient.connect(gateway.url)
    client.write(`POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: ${bytes}\r\n\r\n`)
    client.socket.write(Buffer.alloc(sent, 'a'))
    return client
  }
  /** The upstream reads the body of so manieth call, and answers. */
  const answer = async (at: number, status: number): Promise<number> => {
    await expect.poll(() => held.length).toBe(at)
    const [request, response] = held.at(-1)!
    let bytes = 0
    for await (const piece of request) bytes += (piece as Buffer).length
    response.writeHead(status).end()
    return bytes
  }
  const all = await begin(150 * MIB, 140 * MIB)
  // It is not whole, and goes upstream.
  await expect.poll(() => held.length).toBe(1)
  const next = await begin(60 * MIB, 60 * MIB)
  const first = held[0]!
  expect(await answer(2, 503)).toBe(60 * MIB)
  expect(await next.until(/\r\n\r\n/)).toMatch(/^HTTP\/1\.1 503 /)
  expect(next.received).not.toMatch(/X-Sluice-Attempts/i)
  all.socket.write(Buffer.alloc(10 * MIB, 'a'))
  held.push(first)
  expect(await answer(3, 200)).toBe(150 * MIB)
  expect(await all.until(/\r\n\r\n/)).toMatch(/^HTTP\/1\.1 200 /)
  // All is given back, also of clients that have left.
  const left = await begin(100 * MIB, 90 * MIB)
  left.socket.end()
  await left.closed()
  const kept = await begin(100 * MIB, 100 * MIB)
  expect(await answer(4, 503)).toBe(100 * MIB)
  expect(await answer(5, 200)).toBe(100 * MIB)
  expect(await kept.until(/\r\n\r\n/)).toMatch(/^HTTP\/1\.1 200 [^]*X-Sluice-Attempts: 2\r\n/i)
  for (const { socket } of [all, next, left, kept]) socket.destroy()
})

describe('a client that is slow to send its body', () => {
  it('is charged, and takes a place, only when all of a small one is there', async () => {
    const clock = new SimulatedClock()
    const upstream = await startUpstream()
    const gateway = await startGateway(
      harnessConfig(upstream.url, { limits: { write: [{ requests: 1, window: '10s' }] }, concurrency: { write: 1 } }),
      { clock },
    )
    const slow = await RawClient.connect(gateway.url)
    slow.write(`POST ${CREATE} HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nX-Sluice-Max-Wait: 0\r\n\r\nabc`)
    await expect.poll(() => clock.waits).toContain(IDLE_MS)
    await clock.advance(60 * SECOND)
    expect((await call(gateway.url, CREATE, { method: 'POST', body: 'abcdef', headers: NOW })).status).toBe(200)
    slow.write('def')
    expect(await slow.until(/RATE_LIMIT_EXCEEDED/)).toMatch(/^HTTP\/1\.1 429/)
    expect(upstream.seen).toHaveLength(1)
    slow.socket.destroy()
  })

  it('is not asked for a long one, nor for one of unknown length, before its turn has come', async () => {
    const clock = new SimulatedClock()
    const upstream = await startUpstream()
    const gateway = await startGateway(
      harnessConfig(upstream.url, {
        limits: { write: [{ requests: 1, window: '10s' }] },
        queue: { maxWait: '60s' },
      }),
      { clock },
    )
    for (const [framing, body] of [
      ['Content-Length: 2000000', 'x'.repeat(2_000_000)],
      ['Transfer-Encoding: chunked', '3\r\nabc\r\n0\r\n\r\n'],
    ] as const) {
      await call(gateway.url, CREATE, { method: 'POST' })
      const client = await RawClient.connect(gateway.url)
      client.write(`PUT ${CREATE}/x HTTP/1.1\r\nHost: x\r\n${framing}\r\nExpect: 100-continue\r\n\r\n`)
      await expect.poll(() => gateway.metrics()).toMatch(/sluice_queue_depth\{[^}]*class="write"\} 1/)
      expect(client.received).toBe('')
      await clock.advance(11 * SECOND)
      await client.until(/100 Continue/)
      client.write(body)
      expect(await client.until(/200 OK/)).toContain('200 OK')
      client.socket.destroy()
      await clock.advance(11 * SECOND)
    }
  })

  it('does not make the upstream late, which has its own time once the body is there', async () => {
    const clock = new SimulatedClock()
    let request: IncomingMessage | undefined
    let response: ServerResponse | undefined
    let received = ''
    const url = await startServer((...exchange) => {
      ;[request, response] = exchange
      request.on('data', (chunk: Buffer) => void (received += chunk.toString()))
    })
    const gateway = await startGateway(harnessConfig(url, { timeouts: { headers: '60s' }, breaker: { failures: 1 } }), {
      clock,
    })
    const client = await RawClient.connect(gateway.url)
    client.write(`POST ${CREATE} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n`)
    await expect.poll(() => received).toBe('abc')
    await clock.advance(200 * SECOND)
    client.write('3\r\ndef\r\n0\r\n\r\n')
    await once(request!, 'end')
    await clock.advance(59 * SECOND)
    response!.end('made')
    expect(await client.until(/made/)).toMatch(/^HTTP\/1\.1 200/)
    expect(await gateway.metrics()).toContain('sluice_breaker_state{upstream="harness"} 0')
    client.socket.destroy()
  })

  it('does not excuse an upstream that has all of the body and does not answer', async () => {
    const clock = new SimulatedClock()
    let request: IncomingMessage | undefined
    const url = await startServer((incoming) => void (request = incoming.resume()))
    const gateway = await startGateway(harnessConfig(url, { timeouts: { headers: '60s' } }), { clock })
    const client = await RawClient.connect(gateway.url)
    client.write(`POST ${CREATE} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n`)
    await expect.poll(() => request !== undefined).toBe(true)
    await clock.advance(200 * SECOND)
    client.write('0\r\n\r\n')
    await once(request!, 'end')
    await clock.advance(60 * SECOND)
    expect(await client.until(/UPSTREAM_TIMEOUT/)).toMatch(/^HTTP\/1\.1 504/)
    client.socket.destroy()
  })
})

it('a call waits in all no longer than it may, however often it is retried', async () => {
  const clock = new SimulatedClock()
  let count = 0
  const upstream = await startUpstream((_, response) => response.writeHead(++count === 2 ? 503 : 200).end())
  const limits = { read: [{ requests: 1, window: '10s' }] }
  const gateway = await startGateway(harnessConfig(upstream.url, { limits, queue: { maxWait: '15s' } }), {
    clock,
    random: () => 0,
  })
  await call(gateway.url, READ)
  const answer = call(gateway.url, READ)
  await expect.poll(() => gateway.metrics()).toMatch(/sluice_queue_depth\{[^}]*class="read"\} 1/)
  await clock.advance(11 * SECOND)
  // The retry would have its turn ten seconds later: of the fifteen, ten are gone.
  await expect.poll(() => stepped(clock, () => gateway.lines.length)).toBe(2)
  expect((await answer).headers['x-sluice-error']).toBe('quota_exhausted')
  expect(upstream.seen).toHaveLength(2)
})

it('a call for which no place in flight came free is told so, and not counted as denied by the quota', async () => {
  const clock = new SimulatedClock()
  const upstream = await startUpstream(() => undefined)
  const limits = { read: [{ requests: 2, window: '10s' }] }
  const gateway = await startGateway(harnessConfig(upstream.url, { limits, concurrency: { read: 1 } }), { clock })
  const first = await RawClient.connect(gateway.url)
  first.write(`GET ${READ} HTTP/1.1\r\nHost: x\r\n\r\n`)
  await expect.poll(() => upstream.seen.length).toBe(1)
  const refused = await call(gateway.url, READ, { headers: NOW })
  expect(refused).toMatchObject({ status: 429, headers: { 'x-sluice-error': 'quota_exhausted', 'retry-after': '1' } })
  expect(refused.json().message).toContain('in flight')
  expect(await gateway.metrics()).not.toContain('sluice_quota_denied_total{')
  first.socket.destroy()
})

describe('time that others take is not counted as the gateway’s', () => {
  it('that of an upstream whose client has left', async () => {
    const clock = new SimulatedClock()
    let isReached = false
    const url = await startServer(() => void (isReached = true))
    const gateway = await startGateway(harnessConfig(url), { clock })
    const client = await RawClient.connect(gateway.url)
    client.write(`GET ${READ} HTTP/1.1\r\nHost: x\r\n\r\n`)
    await expect.poll(() => isReached).toBe(true)
    await clock.advance(20 * SECOND)
    client.socket.destroy()
    await expect.poll(() => gateway.lines).toHaveLength(1)
    expect(gateway.lines[0]).toMatchObject({ outcome: 'client_gone', upstreamMs: 20 * SECOND, gatewayMs: 0 })
    // It would have taken longer; how much, nobody knows.
    expect(await gateway.metrics()).toMatch(/sluice_upstream_duration_seconds_count\{[^}]*\} 0/)
  })

  it.each([
    ['collected', 'Content-Length: 6\r\n\r\nabc'],
    ['streamed', 'Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n'],
  ])('that of a client whose body did not come: %s', async (_, rest) => {
    const clock = new SimulatedClock()
    const url = await startServer((request) => void request.resume())
    const gateway = await startGateway(harnessConfig(url), { clock })
    const client = await RawClient.connect(gateway.url)
    client.write(`POST ${CREATE} HTTP/1.1\r\nHost: x\r\n${rest}`)
    await expect.poll(() => clock.waits).toContain(IDLE_MS)
    await clock.advance(IDLE_MS)
    await client.until(/INVALID_REQUEST/)
    expect(gateway.lines).toMatchObject([{ outcome: 'invalid_request', durationMs: IDLE_MS, gatewayMs: 0 }])
    client.socket.destroy()
  })

  it('that of a store that did not answer', async () => {
    const clock = new SimulatedClock()
    const silent: Ledger = Object.assign(Object.create(new MemoryLedger(clock)) as Ledger, {
      charge: () =>
        new Promise((_, reject) => void clock.schedule(2 * SECOND, () => reject(new StoreUnavailableError('silent')))),
    })
    const { url, lines } = await startApp(harnessConfig('http://127.0.0.1:1'), { clock, ledger: silent })
    const answer = call(url, READ)
    await expect.poll(() => clock.waits).toContain(2 * SECOND)
    await clock.advance(2 * SECOND)
    expect((await answer).headers['x-sluice-error']).toBe('store_unavailable')
    expect(lines).toMatchObject([{ waitMs: 2 * SECOND, gatewayMs: 0 }])
  })
})

/** Lets what is due wake up before it looks. */
async function stepped<T>(clock: SimulatedClock, look: () => T): Promise<T> {
  await clock.advance(0)
  return look()
}
