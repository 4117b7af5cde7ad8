import { describe, expect, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { startCached } from '../support/cached-gateway.ts'
import type { ServerResponse } from 'node:http'

const SECOND = 1_000
const WHOLE = { 'cache-control': 'max-age=10', 'content-length': '5' }

/** An upstream that answers once, and then behaves otherwise. */
function onceThen(then: (response: ServerResponse) => unknown, headers: Record<string, string> = WHOLE) {
  return (_: unknown, response: ServerResponse, count: number): unknown =>
    count === 1 ? response.writeHead(200, headers).end('first') : then(response)
}

const answering =
  (status: number, headers: Record<string, string> = {}) =>
  (response: ServerResponse): unknown =>
    response.writeHead(status, headers).end('error')

describe('what is not fresh any more stands in', () => {
  it.each([500, 502, 503, 504])('for a %i, once no retry is left', async (status) => {
    const gateway = await startCached(onceThen(answering(status)), {
      upstream: { retry: { retries: 1, baseDelay: '1ms', maxDelay: '1ms' } },
    })
    await gateway.read()
    await gateway.clock.advance(15 * SECOND)
    const reading = gateway.read()
    await expect.poll(() => gateway.upstream.seen).toHaveLength(2)
    await expect.poll(async () => (await gateway.clock.advance(1), gateway.upstream.seen)).toHaveLength(3)
    const answer = await reading
    expect(answer).toMatchObject({ status: 200, body: 'first' })
    expect(answer.headers['cache-status']).toMatch(
      new RegExp(`^sluice; fwd=stale; fwd-status=${status}; ttl=-\\d; detail=stale-if-error$`),
    )
    expect(gateway.lines.at(-1)).toMatchObject({ cache: 'stale', outcome: 'delivered', attempts: 2, status: '200' })
  })

  it('for a connection that breaks', async () => {
    const gateway = await startCached(onceThen((response) => response.destroy()))
    await gateway.read()
    await gateway.clock.advance(15 * SECOND)
    const answer = await gateway.read()
    expect(answer).toMatchObject({ status: 200, body: 'first' })
    expect(answer.headers['cache-status']).toBe('sluice; fwd=stale; ttl=-5; detail=interrupted')
    expect(answer.headers.age).toBe('15')
  })

  it('for an upstream that does not answer in time', async () => {
    const gateway = await startCached(
      onceThen(() => undefined),
      { upstream: { timeouts: { headers: '3s' } } },
    )
    await gateway.read()
    await gateway.clock.advance(15 * SECOND)
    const reading = gateway.read()
    await expect.poll(() => gateway.upstream.seen).toHaveLength(2)
    await gateway.clock.advance(3 * SECOND)
    expect((await reading).headers['cache-status']).toBe('sluice; fwd=stale; ttl=-8; detail=timeout')
  })

  it('for an open breaker, without asking', async () => {
    const gateway = await startCached(onceThen(answering(503)), { upstream: { breaker: { failures: 1 } } })
    await gateway.read()
    await gateway.clock.advance(15 * SECOND)
    await gateway.read()
    const answer = await gateway.read()
    expect(answer).toMatchObject({ status: 200, body: 'first' })
    expect(answer.headers['cache-status']).toBe('sluice; hit; ttl=-5; detail=breaker_open')
    expect((await gateway.read({}, '/items/other')).headers['x-sluice-error']).toBe('breaker_open')
    expect(gateway.upstream.seen).toHaveLength(2)
  })

  it('for a 429 and for a quota that is used up only where that is wished', async () => {
    const limits = { read: [{ requests: 2, window: '60s' }], write: [] }
    for (const isWished of [true, false]) {
      const gateway = await startCached(onceThen(answering(429)), {
        cache: isWished ? { staleOn: ['throttled'] } : {},
        upstream: { limits, queue: { maxWait: '0s' } },
      })
      await gateway.read()
      await gateway.clock.advance(15 * SECOND)
      const throttled = await gateway.read()
      const refused = await gateway.read()
      if (isWished) {
        expect(throttled).toMatchObject({ status: 200, body: 'first' })
        expect(throttled.headers['cache-status']).toContain('fwd-status=429')
        expect(refused).toMatchObject({ status: 200, body: 'first' })
        expect(refused.headers['cache-status']).toContain('detail=quota_exhausted')
      } else {
        expect(throttled).toMatchObject({ status: 429, body: 'error' })
        expect(refused.headers['x-sluice-error']).toBe('quota_exhausted')
      }
    }
  })

  it('only for as long as is configured, or as the answer itself says', async () => {
    const cases = [
      { cache: { staleIfError: '20s' }, control: 'max-age=10', lasts: 30 },
      { cache: { staleIfError: '20s' }, control: 'max-age=10, stale-if-error=5', lasts: 15 },
      { cache: {}, control: 'max-age=10', lasts: 310 },
    ]
    for (const { cache, control, lasts } of cases) {
      const gateway = await startCached(onceThen(answering(503), { 'cache-control': control }), {
        cache,
        upstream: { breaker: { failures: 100 } },
      })
      await gateway.read()
      await gateway.clock.advance((lasts - 0.1) * SECOND)
      expect((await gateway.read()).status, control).toBe(200)
      await gateway.clock.advance(0.2 * SECOND)
      expect((await gateway.read()).status, control).toBe(503)
    }
  })

  it.each(['must-revalidate', 'proxy-revalidate', 'no-cache', 's-maxage=10'])('never against %s', async (directive) => {
    const control = { 'cache-control': `max-age=10, ${directive}`, etag: '"a"' }
    const gateway = await startCached(onceThen(answering(503), control))
    await gateway.read()
    await gateway.clock.advance(15 * SECOND)
    expect((await gateway.read()).status).toBe(503)
    expect((await gateway.read({ 'cache-control': 'max-stale=100' })).status).toBe(503)
  })

  it('not for errors that say something about the call', async () => {
    for (const status of [400, 404, 501]) {
      const gateway = await startCached(onceThen(answering(status)))
      await gateway.read()
      await gateway.clock.advance(15 * SECOND)
      expect((await gateway.read()).status).toBe(status)
    }
  })
})

describe('what is given while it is asked for anew', () => {
  const WINDOW = { 'cache-control': 'max-age=10, stale-while-revalidate=20', etag: '"a"' }

  it('is asked for once, and the next reads get the new one', async () => {
    const gateway = await startCached((_, response, count) => response.writeHead(200, WINDOW).end(`answer ${count}`))
    await gateway.read()
    await gateway.clock.advance(15 * SECOND)
    const [first, second] = await Promise.all([gateway.read(), gateway.read()])
    for (const answer of [first, second]) {
      expect(answer.body).toBe('answer 1')
      expect(answer.headers['cache-status']).toBe('sluice; hit; ttl=-5')
    }
    await expect.poll(async () => (await gateway.read()).body).toBe('answer 2')
    expect(gateway.upstream.seen).toHaveLength(2)
    expect(gateway.upstream.seen[1]!.headers['if-none-match']).toBe('"a"')
  })

  it('is asked for by the next GET, and not by a HEAD, whose answer can not be kept', async () => {
    const gateway = await startCached((_, response, count) => response.writeHead(200, WINDOW).end(`answer ${count}`))
    await gateway.read()
    await gateway.clock.advance(15 * SECOND)
    expect((await gateway.read({}, '/items/1', { method: 'HEAD' })).headers['cache-status']).toBe('sluice; hit; ttl=-5')
    expect((await gateway.read()).body).toBe('answer 1')
    await expect.poll(async () => (await gateway.read()).body).toBe('answer 2')
    expect(gateway.upstream.seen.map(({ method }) => method)).toEqual(['GET', 'GET'])
  })

  it('is asked for without the time that a client has, who does not wait for it', async () => {
    let asked: ServerResponse | undefined
    const gateway = await startCached(onceThen((response) => void (asked = response), WINDOW))
    await gateway.read()
    await gateway.clock.advance(15 * SECOND)
    expect(await gateway.read({ 'x-sluice-timeout': '300ms' })).toMatchObject({ status: 200, body: 'first' })
    await expect.poll(() => asked).toBeDefined()
    await gateway.clock.advance(SECOND)
    asked!.writeHead(200, WINDOW).end('second')
    await expect.poll(async () => (await gateway.read()).body).toBe('second')
  })

  it('waits for an answer behind the window', async () => {
    const gateway = await startCached((_, response, count) => response.writeHead(200, WINDOW).end(`answer ${count}`))
    await gateway.read()
    await gateway.clock.advance(31 * SECOND)
    expect((await gateway.read()).body).toBe('answer 2')
  })

  it('takes no quota from calls that wait for some', async () => {
    const gateway = await startCached((_, response, count) => response.writeHead(200, WINDOW).end(`answer ${count}`), {
      upstream: { limits: { read: [{ requests: 1, window: '60s' }], write: [] } },
    })
    await gateway.read()
    await gateway.clock.advance(15 * SECOND)
    for (let i = 0; i < 3; i++) expect((await gateway.read()).body).toBe('answer 1')
    expect(gateway.upstream.seen).toHaveLength(1)
    expect(await gateway.metrics()).toMatch(/sluice_queue_depth\{[^}]*\} 0/)
  })

  it('keeps no turn for a refresh that is refused, which nobody makes again', async () => {
    const gateway = await startCached((_, response, count) => response.writeHead(200, WINDOW).end(`answer ${count}`), {
      upstream: { limits: { read: [{ requests: 2, window: '60s' }], write: [] }, queue: { maxWait: '100s' } },
      rest: { clients: { a: { keys: [hashKey('slk_a')] }, b: { keys: [hashKey('slk_b')] } } },
    })
    const [a, b] = [{ 'x-sluice-key': 'slk_a' }, { 'x-sluice-key': 'slk_b' }]
    await gateway.read(a)
    await gateway.read(a, '/items/2')
    const waiting = gateway.read(b, '/items/3')
    await expect.poll(() => gateway.metrics()).toMatch(/sluice_queue_depth\{[^}]*\} 1/)
    await gateway.clock.advance(15 * SECOND)
    for (let i = 0; i < 5; i++) expect((await gateway.read(a)).body).toBe('answer 1')
    await gateway.clock.advance(50 * SECOND)
    expect((await waiting).body).toBe('answer 3')
    // The second call of the window is there for whoever comes.
    expect((await gateway.read({ ...b, 'x-sluice-max-wait': '0' }, '/items/4')).status).toBe(200)
  })

  it('leaves a turn that was kept to the next call of the client', async () => {
    const lasting = { 'cache-control': 'max-age=10, stale-while-revalidate=200' }
    const gateway = await startCached((_, response, count) => response.writeHead(200, lasting).end(`answer ${count}`), {
      upstream: { limits: { read: [{ requests: 2, window: '60s' }], write: [] }, queue: { maxWait: '100s' } },
      rest: { clients: { a: { keys: [hashKey('slk_a')] }, b: { keys: [hashKey('slk_b')] } } },
    })
    const [a, b] = [{ 'x-sluice-key': 'slk_a' }, { 'x-sluice-key': 'slk_b' }]
    await gateway.read(a)
    await gateway.read(b, '/items/2')
    const waiting = gateway.read(b, '/items/3')
    await expect.poll(() => gateway.metrics()).toMatch(/sluice_queue_depth\{[^}]*\} 1/)
    const { status, headers } = await gateway.read({ ...a, 'x-sluice-max-wait': '0' }, '/items/4')
    expect(status).toBe(429)
    await gateway.clock.advance(Number(headers['retry-after']) * SECOND)
    await waiting
    expect((await gateway.read(a)).body).toBe('answer 1')
    await expect.poll(() => gateway.metrics()).toMatch(/sluice_quota_denied_total\{[^}]*client="a"[^}]*\} 2/)
    expect((await gateway.read({ ...a, 'x-sluice-max-wait': '0' }, '/items/4')).status).toBe(200)
  })

  it('takes interim responses of its upstream', async () => {
    const gateway = await startCached((_, response, count) => {
      if (count > 1) response.writeEarlyHints({ link: '</style.css>; rel=preload' })
      return response.writeHead(200, WINDOW).end(`answer ${count}`)
    })
    await gateway.read()
    await gateway.clock.advance(15 * SECOND)
    expect((await gateway.read()).body).toBe('answer 1')
    await expect.poll(async () => (await gateway.read()).body).toBe('answer 2')
    expect(gateway.upstream.seen).toHaveLength(2)
  })

  it('leaves nothing behind when its upstream fails', async () => {
    const gateway = await startCached(onceThen((response) => response.destroy(), WINDOW))
    await gateway.read()
    await gateway.clock.advance(15 * SECOND)
    expect((await gateway.read()).body).toBe('first')
    await expect.poll(() => gateway.upstream.seen).toHaveLength(2)
    await expect.poll(() => gateway.metrics()).toMatch(/sluice_in_flight\{[^}]*\} 0/)
    expect((await gateway.read()).body).toBe('first')
    await expect.poll(() => gateway.upstream.seen).toHaveLength(3)
  })
})
