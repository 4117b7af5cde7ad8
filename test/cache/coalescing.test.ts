import type { ServerResponse } from 'node:http'
import { describe, expect, it, vi } from 'vitest'
import { caches, type CachedGateway, MAX_WAIT_MS, startCached } from '../support/cached-gateway.ts'
import type { Seen } from '../support/gateway.ts'
import { type Answer, RawClient } from '../support/http.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const SECOND = 1_000
const FRESH = { 'cache-control': 'max-age=60' }
type Kind = keyof typeof caches

/** An upstream that answers when it is told to, in the order in which it was asked. */
class Held {
  readonly waiting: ServerResponse[] = []

  readonly answer = (_: Seen, response: ServerResponse): void => void this.waiting.push(response)

  async asked(times: number): Promise<void> {
    await expect.poll(() => this.waiting).toHaveLength(times)
  }
}

/** Keeps an answer that has become stale since. */
async function keepStale(gateway: CachedGateway, held: Held, fields: Record<string, string>): Promise<void> {
  const first = gateway.read()
  await held.asked(1)
  held.waiting[0]!.writeHead(200, fields).end('kept')
  await first
  await gateway.clock.advance(70 * SECOND)
  held.waiting.length = 0
}

/** So many reads at once, of which the first is under way upstream before the others come. */
async function together(gateway: CachedGateway, held: Held, count: number, path = '/items/1') {
  const first = gateway.read({}, path)
  await held.asked(1)
  const others = Array.from({ length: count - 1 }, () => gateway.read({}, path))
  await expect.poll(() => joined(gateway)).toBe(count - 1)
  return [first, ...others]
}

/** A gateway that sends one read at a time, while one is under way. */
async function startBusy() {
  const held = new Held()
  const gateway = await startCached(held.answer, { upstream: { concurrency: { read: 1 } } })
  const busy = gateway.read({}, '/items/busy')
  await held.asked(1)
  return { held, gateway, busy }
}

/** Once the place is free, one of them is sent, and all get its answer. */
async function expectOneForAll(
  reads: readonly Promise<Answer>[],
  { held, gateway, busy }: Awaited<ReturnType<typeof startBusy>>,
): Promise<void> {
  held.waiting[0]!.end()
  await busy
  await held.asked(2)
  held.waiting[1]!.writeHead(200, FRESH).end('for all')
  expect((await Promise.all(reads)).map(({ body }) => body)).toEqual(reads.map(() => 'for all'))
  expect(gateway.upstream.seen).toHaveLength(2)
}

/** Calls that have come and have neither been answered nor sent: they wait for another. */
async function joined(gateway: CachedGateway): Promise<number> {
  return gateway.clock.waits.filter((ms) => ms === MAX_WAIT_MS).length
}

describe.each(Object.keys(caches) as Kind[])('identical reads in flight, with answers kept in %s', (kind) => {
  it('are one call upstream, and one charge', async () => {
    const held = new Held()
    const gateway = await startCached(held.answer, { kind })
    const reads = await together(gateway, held, 20)
    held.waiting[0]!.writeHead(200, FRESH).end('once')
    const answers = await Promise.all(reads)
    expect(new Set(answers.map(({ body }) => body))).toEqual(new Set(['once']))
    const statuses = answers.map(({ headers }) => headers['cache-status'])
    expect(statuses[0]).toBe('sluice; fwd=uri-miss; stored')
    expect(new Set(statuses.slice(1))).toEqual(new Set(['sluice; fwd=uri-miss; ttl=60; collapsed']))
    expect(gateway.upstream.seen).toHaveLength(1)
    const metrics = await gateway.metrics()
    expect(metrics).toMatch(/sluice_cache_total\{[^}]*result="collapsed"\} 19/)
    expect(metrics).toMatch(/sluice_attempts_total\{[^}]*reason="first"\} 1 /)
    if (kind === 'memory') expect(metrics).toMatch(/sluice_quota_saved_total\{[^}]*\} 19/)
  })

  it('go on by themselves when the first one fails', async () => {
    const held = new Held()
    const gateway = await startCached(held.answer, { kind, upstream: { breaker: { failures: 100 } } })
    const reads = await together(gateway, held, 4)
    held.waiting[0]!.destroy()
    await held.asked(4)
    for (const response of held.waiting.slice(1)) response.writeHead(200, FRESH).end('by itself')
    const [first, ...others] = await Promise.all(reads)
    expect(first!.headers['x-sluice-error']).toBe('interrupted')
    expect(others.map(({ body }) => body)).toEqual(Array.from({ length: 3 }, () => 'by itself'))
  })

  it('go on by themselves when the answer is not for others, and the next ones do not wait', async () => {
    const held = new Held()
    const gateway = await startCached(held.answer, { kind })
    const reads = await together(gateway, held, 3)
    held.waiting[0]!.writeHead(200, { 'cache-control': 'no-store' })
    held.waiting[0]!.write('own')
    // At its head, not only at its end.
    await held.asked(3)
    const more = gateway.read()
    const another = gateway.read()
    await held.asked(5)
    for (const response of held.waiting) response.end('own')
    await Promise.all([...reads, more, another])
    // After a while it is tried again.
    await gateway.clock.advance(61 * SECOND)
    held.waiting.length = 0
    const later = await together(gateway, held, 3)
    held.waiting[0]!.writeHead(200, FRESH).end('for all')
    expect((await Promise.all(later)).map(({ body }) => body)).toEqual(['for all', 'for all', 'for all'])
  })

  it('go on by themselves when the answer turns out too long, which its own client gets whole', async () => {
    const held = new Held()
    const gateway = await startCached(held.answer, {
      kind,
      rest: { cache: { store: kind === 'memory' ? 'memory' : 'redis', maxEntryBytes: 1_024 } },
    })
    const reads = await together(gateway, held, 3)
    held.waiting[0]!.writeHead(200, FRESH).end('x'.repeat(5_000))
    await held.asked(3)
    for (const response of held.waiting.slice(1)) response.writeHead(200, FRESH).end('y'.repeat(5_000))
    const answers = await Promise.all(reads)
    expect(answers.map(({ body }) => body.length)).toEqual([5_000, 5_000, 5_000])
  })

  it('go on when the client of the first one leaves, before the head as in the body', async () => {
    for (const leavesInBody of [false, true]) {
      const held = new Held()
      const gateway = await startCached(held.answer, { kind })
      const leaver = await RawClient.connect(gateway.url)
      leaver.write('GET /api/items/1 HTTP/1.1\r\nHost: x\r\n\r\n')
      await held.asked(1)
      const others = [gateway.read(), gateway.read()]
      await expect.poll(() => joined(gateway)).toBe(2)
      if (leavesInBody) {
        held.waiting[0]!.writeHead(200, { ...FRESH, 'content-length': '8' }).write('half')
        await leaver.until(/half/)
      }
      leaver.socket.destroy()
      await expect.poll(() => clientConnections(gateway)).toBe(2)
      expect(held.waiting[0]!.destroyed).toBe(false)
      if (leavesInBody) held.waiting[0]!.end('half')
      else held.waiting[0]!.writeHead(200, { ...FRESH, 'content-length': '8' }).end('halfhalf')
      for (const { status, body } of await Promise.all(others))
        expect({ status, body }).toEqual({ status: 200, body: 'halfhalf' })
      expect(held.waiting).toHaveLength(1)
      await expect
        .poll(() => gateway.lines.map(({ outcome }) => outcome).toSorted())
        .toEqual(['client_gone', 'delivered', 'delivered'])
      await expect.poll(() => gateway.metrics()).toMatch(/sluice_in_flight\{[^}]*\} 0/)
    }
  })

  it('end a call upstream for which nobody waits any more', async () => {
    const held = new Held()
    const gateway = await startCached(held.answer, { kind })
    const clients = await Promise.all([RawClient.connect(gateway.url), RawClient.connect(gateway.url)])
    clients[0].write('GET /api/items/1 HTTP/1.1\r\nHost: x\r\n\r\n')
    await held.asked(1)
    clients[1].write('GET /api/items/1 HTTP/1.1\r\nHost: x\r\n\r\n')
    await expect.poll(() => joined(gateway)).toBe(1)
    for (const client of clients.toReversed()) client.socket.destroy()
    await expect.poll(() => held.waiting[0]!.destroyed).toBe(true)
    await expect.poll(() => gateway.metrics()).toMatch(/sluice_in_flight\{[^}]*\} 0/)
  })

  it('do not wait for one that depends on other fields of the request', async () => {
    const held = new Held()
    const gateway = await startCached(held.answer, { kind })
    const german = gateway.read({ 'accept-language': 'de' })
    await held.asked(1)
    const english = gateway.read({ 'accept-language': 'en' })
    await expect.poll(() => joined(gateway)).toBe(1)
    held.waiting[0]!.writeHead(200, { ...FRESH, vary: 'Accept-Language' }).end('deutsch')
    await held.asked(2)
    held.waiting[1]!.writeHead(200, { ...FRESH, vary: 'Accept-Language' }).end('english')
    expect([(await german).body, (await english).body]).toEqual(['deutsch', 'english'])
  })

  it('do not wait where the client wants an answer that was made for it', async () => {
    const held = new Held()
    const gateway = await startCached(held.answer, { kind })
    const reads = [gateway.read()]
    await held.asked(1)
    reads.push(gateway.read({ 'cache-control': 'no-cache' }))
    await held.asked(2)
    for (const response of held.waiting) response.writeHead(200, FRESH).end('own')
    await Promise.all(reads)
  })

  it('share what a 304 confirms', async () => {
    const held = new Held()
    const gateway = await startCached(held.answer, { kind })
    await keepStale(gateway, held, { ...FRESH, etag: '"a"' })
    const reads = await together(gateway, held, 5)
    held.waiting[0]!.writeHead(304, { ...FRESH, etag: '"a"' }).end()
    const answers = await Promise.all(reads)
    expect(answers.map(({ body }) => body)).toEqual(['kept', 'kept', 'kept', 'kept', 'kept'])
    expect(gateway.upstream.seen).toHaveLength(2)
  })

  it('do not share what a 304 makes one client’s own, and that client gets it with a true age', async () => {
    const held = new Held()
    const gateway = await startCached(held.answer, { kind, cache: { scope: 'account' } })
    await keepStale(gateway, held, { ...FRESH, etag: '"a"' })
    const reads = await together(gateway, held, 3)
    held.waiting[0]!.writeHead(304, { ...FRESH, etag: '"a"', 'set-cookie': 'session=own' }).end()
    await held.asked(3)
    for (const response of held.waiting.slice(1)) response.writeHead(200, FRESH).end('by itself')
    const [own, ...others] = await Promise.all(reads)
    expect(own).toMatchObject({ status: 200, body: 'kept', headers: { 'set-cookie': ['session=own'], age: '0' } })
    for (const other of others) {
      expect(other.body).toBe('by itself')
      expect(other.headers['set-cookie']).toBeUndefined()
    }
  })

  it('are one call also where all of them come at once, and nothing is known of the resource', async () => {
    const held = new Held()
    const gateway = await startCached(held.answer, { kind })
    const client = await RawClient.connect(gateway.url)
    // In one packet.
    client.write('GET /api/items/1 HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(5))
    await held.asked(1)
    await expect.poll(() => joined(gateway)).toBe(4)
    held.waiting[0]!.writeHead(200, FRESH).end('once')
    await client.until(/(?:once[^]*){5}/)
    expect(gateway.upstream.seen).toHaveLength(1)
  })

  it('share what stands in for an error, so that a failing upstream is asked once', async () => {
    const held = new Held()
    const gateway = await startCached(held.answer, { kind })
    await keepStale(gateway, held, FRESH)
    const reads = await together(gateway, held, 5)
    held.waiting[0]!.writeHead(503).end()
    for (const { status, body } of await Promise.all(reads))
      expect({ status, body }).toEqual({ status: 200, body: 'kept' })
    expect(gateway.upstream.seen).toHaveLength(2)
  })
})

describe('a read that waits for another', () => {
  it('does not wait for longer than it may take in all', async () => {
    const held = new Held()
    const gateway = await startCached(held.answer)
    const slow = gateway.read()
    await held.asked(1)
    const hurried = gateway.read({ 'x-sluice-timeout': '2s' })
    await expect.poll(() => joined(gateway)).toBe(1)
    await gateway.clock.advance(2 * SECOND)
    expect((await hurried).headers['x-sluice-error']).toBe('timeout')
    held.waiting[0]!.writeHead(200, FRESH).end('late')
    expect((await slow).body).toBe('late')
  })

  it('has one of those that wait take the place of a client that leaves the queue', async () => {
    const set = await startBusy()
    const { gateway } = set
    const leaver = await RawClient.connect(gateway.url)
    leaver.write('GET /api/items/1 HTTP/1.1\r\nHost: x\r\n\r\n')
    await expect.poll(() => gateway.metrics()).toMatch(/sluice_queue_depth\{[^}]*\} 1/)
    const others = Array.from({ length: 5 }, () => gateway.read())
    // The one in the queue has a timer like theirs.
    await expect.poll(() => joined(gateway)).toBe(6)
    leaver.socket.destroy()
    await expect.poll(() => gateway.lines.map(({ outcome }) => outcome)).toContain('client_gone')
    await expectOneForAll(others, set)
  })

  it('waits no longer than it may, however many clients leave before it', async () => {
    const { held, gateway, busy } = await startBusy()
    const leavers: RawClient[] = []
    for (let i = 0; i < 3; i++) {
      const leaver = await RawClient.connect(gateway.url)
      leaver.write('GET /api/items/1 HTTP/1.1\r\nHost: x\r\n\r\n')
      leavers.push(leaver)
      await expect.poll(() => joined(gateway)).toBe(i + 1)
    }
    let refusal: unknown
    const impatient = gateway.read({ 'x-sluice-max-wait': '5000ms' }).then(({ headers }) => {
      refusal = headers['x-sluice-error']
    })
    await expect.poll(() => gateway.clock.waits.filter((ms) => ms === 5 * SECOND)).toHaveLength(2)
    for (const [i, leaver] of leavers.slice(0, 2).entries()) {
      await gateway.clock.advance(2 * SECOND)
      leaver.socket.destroy()
      await expect.poll(() => gateway.lines).toHaveLength(i + 1)
    }
    await gateway.clock.advance(SECOND)
    // Where it joins another read only now, its time is over at once.
    const refused = async () => (await gateway.clock.advance(0), refusal)
    await expect.poll(refused).toBe('quota_exhausted')
    await impatient
    leavers[2]!.socket.destroy()
    held.waiting[0]!.end()
    await busy
  })

  it('is refused at once, with all others, when the first one is', async () => {
    const clock = new SimulatedClock()
    const gateway = await startCached((_, response) => response.end(), {
      kind: 'Redis',
      upstream: { limits: { read: [{ requests: 1, window: '1h' }] } },
      clock,
    })
    await gateway.read({}, '/items/other')
    const schedule = vi.spyOn(clock, 'schedule')
    const answers = await Promise.all(Array.from({ length: 30 }, () => gateway.read()))
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 429))
    // Each has waited for another at most once.
    expect(schedule.mock.calls.filter(([ms]) => ms === MAX_WAIT_MS).length).toBeLessThan(30)
  })

  it('waits on for one of its kind where the first one had less patience', async () => {
    const set = await startBusy()
    const { gateway } = set
    const impatient = gateway.read({ 'x-sluice-max-wait': '300ms' })
    await expect.poll(() => gateway.clock.waits).toContain(300)
    const others = Array.from({ length: 8 }, () => gateway.read())
    await expect.poll(() => joined(gateway)).toBe(8)
    await gateway.clock.advance(300)
    expect((await impatient).status).toBe(429)
    await expectOneForAll(others, set)
  })

  it('waits on for one of its kind where the first one was sent, and had less time in all', async () => {
    const held = new Held()
    const gateway = await startCached(held.answer)
    const hurried = gateway.read({ 'x-sluice-timeout': '300ms' })
    await held.asked(1)
    const others = Array.from({ length: 8 }, () => gateway.read())
    await expect.poll(() => joined(gateway)).toBe(8)
    await gateway.clock.advance(300)
    expect((await hurried).headers['x-sluice-error']).toBe('timeout')
    await held.asked(2)
    held.waiting[1]!.writeHead(200, FRESH).end('for all')
    expect((await Promise.all(others)).map(({ body }) => body)).toEqual(others.map(() => 'for all'))
    expect(gateway.upstream.seen).toHaveLength(2)
  })

  it('goes on by itself behind one that was sent, if it has a time of its own, so that it spends no other’s', async () => {
    const held = new Held()
    const gateway = await startCached(held.answer)
    const hurried = gateway.read({ 'x-sluice-timeout': '300ms' })
    await held.asked(1)
    const others = [gateway.read({ 'x-sluice-timeout': '500ms' }), gateway.read()]
    await expect.poll(() => joined(gateway)).toBe(2)
    await gateway.clock.advance(300)
    expect((await hurried).headers['x-sluice-error']).toBe('timeout')
    await held.asked(3)
    for (const response of held.waiting.slice(1)) response.writeHead(200, FRESH).end('each')
    expect((await Promise.all(others)).map(({ body }) => body)).toEqual(['each', 'each'])
  })

  it('goes on by itself, with all others, when the first one was sent and broke off before its time was over', async () => {
    const held = new Held()
    const gateway = await startCached(held.answer, { upstream: { retry: { retries: 0 } } })
    const hurried = gateway.read({ 'x-sluice-timeout': '5s' })
    await held.asked(1)
    const others = Array.from({ length: 8 }, () => gateway.read())
    await expect.poll(() => joined(gateway)).toBe(8)
    held.waiting[0]!.destroy()
    await held.asked(9)
    for (const response of held.waiting.slice(1)) response.destroy()
    expect((await Promise.all([hurried, ...others])).map(({ status }) => status)).toEqual(Array(9).fill(502))
  })

  it('goes on by itself, with all others, when the first one is answered, whatever time that had', async () => {
    const held = new Held()
    const gateway = await startCached(held.answer)
    const hurried = gateway.read({ 'x-sluice-timeout': '300ms', 'x-sluice-max-wait': '0' })
    await held.asked(1)
    const others = Array.from({ length: 8 }, () => gateway.read())
    await expect.poll(() => joined(gateway)).toBe(8)
    held.waiting[0]!.writeHead(404).end()
    await held.asked(9)
    for (const response of held.waiting.slice(1)) response.writeHead(404).end()
    expect((await Promise.all([hurried, ...others])).map(({ status }) => status)).toEqual(Array(9).fill(404))
  })

  it('goes on by itself when the other is still in the queue after the time that it may wait', async () => {
    const held = new Held()
    const gateway = await startCached(held.answer, {
      upstream: { concurrency: { read: 1 }, queue: { maxWait: '10s' } },
    })
    const busy = gateway.read({}, '/items/busy')
    await held.asked(1)
    const queued = gateway.read()
    await expect.poll(() => gateway.metrics()).toMatch(/sluice_queue_depth\{[^}]*\} 1/)
    const impatient = gateway.read({ 'x-sluice-max-wait': '1s' })
    await expect.poll(() => gateway.clock.waits).toContain(SECOND)
    await gateway.clock.advance(SECOND)
    expect((await impatient).headers['x-sluice-error']).toBe('quota_exhausted')
    held.waiting[0]!.end()
    await busy
    await held.asked(2)
    held.waiting[1]!.end()
    expect((await queued).status).toBe(200)
  })

  it('does not wait for a client that takes its answer slowly', async () => {
    const held = new Held()
    const gateway = await startCached(held.answer, { rest: { cache: { maxBytes: 1e8, maxEntryBytes: 5e7 } } })
    const slow = await RawClient.connect(gateway.url)
    slow.socket.pause()
    slow.write('GET /api/items/1 HTTP/1.1\r\nHost: x\r\n\r\n')
    await held.asked(1)
    const body = Buffer.alloc(2e7, 'x')
    held.waiting[0]!.writeHead(200, { ...FRESH, 'content-length': String(body.length) }).end(body)
    // The gateway has stopped reading.
    await expect.poll(() => gateway.clock.waits).toContain(300 * SECOND)
    const other = gateway.read()
    await held.asked(2)
    held.waiting[1]!.writeHead(200, FRESH).end('own')
    expect((await other).body).toBe('own')
    slow.socket.destroy()
  })
})

async function clientConnections(gateway: CachedGateway): Promise<number> {
  // That of the question is one of the admin port.
  return Number(/^sluice_client_connections (\d+)/m.exec(await gateway.metrics())?.[1])
}
