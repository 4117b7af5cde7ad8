import { randomBytes } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { caches, counting, startCached } from '../support/cached-gateway.ts'
import type { Seen } from '../support/gateway.ts'

const SECOND = 1_000
const FRESH = { 'cache-control': 'max-age=60', 'content-length': '8' }
type Kind = keyof typeof caches

describe.each(Object.keys(caches) as Kind[])('a cached route, kept in %s', (kind) => {
  it('answers again from what is kept, with its age, and says so', async () => {
    const gateway = await startCached(counting({ ...FRESH, 'x-field': 'kept', age: '5' }), { kind })
    const first = await gateway.read()
    expect(first.headers['cache-status']).toBe('sluice; fwd=uri-miss; stored')
    await gateway.clock.advance(20 * SECOND)
    const second = await gateway.read()
    expect(second).toMatchObject({ status: 200, body: 'answer 1' })
    expect(second.headers).toMatchObject({
      age: '25',
      date: first.headers.date,
      'x-field': 'kept',
      'content-length': '8',
      'cache-status': 'sluice; hit; ttl=35',
    })
    expect(gateway.upstream.seen).toHaveLength(1)
    expect(gateway.lines.map(({ cache, attempts, outcome }) => ({ cache, attempts, outcome }))).toEqual([
      { cache: 'miss', attempts: 1, outcome: 'delivered' },
      { cache: 'hit', attempts: 0, outcome: 'delivered' },
    ])
  })

  it('answers a client that offers another protocol, which is ignored', async () => {
    const gateway = await startCached(counting(FRESH), { kind })
    const offer = { connection: 'Upgrade, HTTP2-Settings', upgrade: 'h2c', 'http2-settings': 'AAMAAABk' }
    for (let i = 0; i < 2; i++) expect((await gateway.read(offer)).body).toBe('answer 1')
  })

  it('spends nothing on a fresh answer: no quota, not with the breaker open, and counts what it saved', async () => {
    const gateway = await startCached(counting(FRESH), {
      kind,
      upstream: { limits: { read: [{ requests: 1, window: '60s' }], write: [] }, queue: { maxWait: '0s' } },
    })
    await gateway.read()
    for (let i = 0; i < 3; i++) expect((await gateway.read()).body).toBe('answer 1')
    expect((await gateway.read({}, '/items/2')).headers['x-sluice-error']).toBe('quota_exhausted')
    const metrics = await gateway.metrics()
    expect(metrics).toMatch(/sluice_cache_total\{upstream="api",account="main",class="read",result="hit"\} 3/)
    expect(metrics).toMatch(/sluice_quota_saved_total\{upstream="api",account="main",class="read",client="[^"]*"\} 3/)
    expect(metrics).toMatch(/sluice_attempts_total\{[^}]*reason="first"\} 1 /)
  })

  it('asks whether a stale answer is still right, by its ETag and its last change', async () => {
    const changed = 'Thu, 01 Jan 1970 00:00:00 GMT'
    const gateway = await startCached(
      (seen, response, count) => {
        const isKnown = seen.headers['if-none-match'] === '"a"'
        const headers = {
          'cache-control': 'max-age=10',
          etag: '"a"',
          'last-modified': changed,
          'x-count': String(count),
        }
        return isKnown ? response.writeHead(304, headers).end() : response.writeHead(200, headers).end('body')
      },
      { kind },
    )
    await gateway.read()
    await gateway.clock.advance(11 * SECOND)
    const second = await gateway.read()
    expect(gateway.upstream.seen[1]!.headers).toMatchObject({ 'if-none-match': '"a"', 'if-modified-since': changed })
    expect(second).toMatchObject({ status: 200, body: 'body' })
    expect(second.headers).toMatchObject({
      'x-count': '2',
      'cache-status': 'sluice; fwd=stale; fwd-status=304; ttl=10; stored',
    })
    // It is fresh again, and a revalidation costs what it costs.
    expect((await gateway.read()).headers['cache-status']).toBe('sluice; hit; ttl=10')
    expect(await gateway.metrics()).toMatch(/sluice_attempts_total\{[^}]*reason="first"\} 2 /)
  })

  it('tells a client that has it already no more than that', async () => {
    const etag = '"a"'
    const gateway = await startCached(counting({ ...FRESH, etag, 'last-modified': 'Thu, 01 Jan 1970 00:00:10 GMT' }), {
      kind,
    })
    await gateway.read()
    const known = await gateway.read({ 'if-none-match': '"x", W/"a"' })
    expect(known).toMatchObject({ status: 304, body: '' })
    expect(known.headers).toMatchObject({ etag, 'cache-status': 'sluice; hit; ttl=60' })
    expect(known.headers['content-length']).toBeUndefined()
    expect((await gateway.read({ 'if-modified-since': 'Thu, 01 Jan 1970 00:00:10 GMT' })).status).toBe(304)
    expect((await gateway.read({ 'if-modified-since': 'Thu, 01 Jan 1970 00:00:09 GMT' })).status).toBe(200)
    // If-None-Match goes before it (RFC 9110 §13.2.2).
    const both = { 'if-none-match': '"b"', 'if-modified-since': 'Thu, 01 Jan 1970 00:00:10 GMT' }
    expect((await gateway.read(both)).status).toBe(200)
    expect(gateway.upstream.seen).toHaveLength(1)
  })

  it('are asked for whole when a 304 is about another version, and the log says that the call was sent again', async () => {
    const gateway = await startCached(
      (seen, response, count) => {
        if (count === 1) return response.writeHead(200, { etag: '"a"', 'cache-control': 'no-cache' }).end('first')
        return response
          .writeHead(seen.headers['if-none-match'] === undefined ? 200 : 304, { etag: '"b"' })
          .end('second')
      },
      { kind },
    )
    await gateway.read()
    expect((await gateway.read()).body).toBe('second')
    const ends = () => gateway.lines[1]?.tries?.map(({ status, end }) => [status, end])
    await expect.poll(ends).toEqual([
      [304, 'retried'],
      [200, 'delivered'],
    ])
    const metrics = await gateway.metrics()
    expect(metrics).toMatch(/sluice_attempts_total\{[^}]*reason="first"\} 2 /)
    expect(metrics).toMatch(/sluice_attempts_total\{[^}]*reason="status_304"\} 1 /)
  })

  it('are not answered from before a 304 that was about another version, although its own answer is not kept', async () => {
    const gateway = await startCached(
      (seen, response, count) => {
        if (count === 1)
          return response.writeHead(200, { etag: '"a"', 'cache-control': 'max-age=1, stale-if-error=600' }).end('first')
        if (count > 3) return response.writeHead(500).end()
        return seen.headers['if-none-match'] === undefined
          ? response.writeHead(200, { etag: '"b"', 'cache-control': 'no-store' }).end('second')
          : response.writeHead(304, { etag: '"b"' }).end()
      },
      { kind },
    )
    await gateway.read()
    await gateway.clock.advance(2_000)
    expect((await gateway.read()).body).toBe('second')
    expect((await gateway.read()).status).toBe(500)
  })

  it('answers the client’s own question once a stale answer was confirmed', async () => {
    const gateway = await startCached(
      (seen, response) =>
        response.writeHead(seen.headers['if-none-match'] === '"a"' ? 304 : 200, { etag: '"a"' }).end(),
      { kind },
    )
    await gateway.read()
    expect((await gateway.read({ 'if-none-match': '"a"' })).status).toBe(304)
    expect((await gateway.read({ 'if-none-match': '"old"' })).status).toBe(200)
    expect(gateway.upstream.seen.map(({ headers }) => headers['if-none-match'])).toEqual([undefined, '"a"', '"a"'])
  })

  it('keeps answers apart that depend on further fields of the request', async () => {
    const gateway = await startCached(
      ({ headers }, response, count) =>
        response
          .setHeader('vary', ['Accept', 'Accept-Language'])
          .writeHead(200, { 'cache-control': 'max-age=60' })
          .end(`${headers.accept} ${headers['accept-language']} ${count}`),
      { kind },
    )
    const bodyOf = async (accept: string, language: string) =>
      (await gateway.read({ accept, 'accept-language': language })).body
    expect(await bodyOf('a/b', 'de')).toBe('a/b de 1')
    expect(await bodyOf('a/b', 'en')).toBe('a/b en 2')
    expect(await bodyOf('c/d', 'de')).toBe('c/d de 3')
    expect(await bodyOf('a/b', 'de')).toBe('a/b de 1')
    expect(await bodyOf('c/d', 'de')).toBe('c/d de 3')
    const unknown = await gateway.read({ accept: 'e/f' })
    expect(unknown.headers['cache-status']).toBe('sluice; fwd=vary-miss; stored')
  })

  it('answers a HEAD with the head of what is kept for GET, and keeps none of its own', async () => {
    const gateway = await startCached(counting(FRESH), { kind })
    expect((await gateway.read({}, '/items/1', { method: 'HEAD' })).headers['cache-status']).toBe(
      'sluice; fwd=uri-miss',
    )
    expect((await gateway.read()).body).toBe('answer 2')
    const head = await gateway.read({}, '/items/1', { method: 'HEAD' })
    expect(head).toMatchObject({ status: 200, body: '' })
    expect(head.headers).toMatchObject({ 'content-length': '8', 'cache-status': 'sluice; hit; ttl=60' })
    expect(gateway.upstream.seen).toHaveLength(2)
  })

  it.each([
    ['another ETag', { etag: '"b"' }, false],
    ['another Last-Modified', { 'last-modified': 'Tue, 02 Jan 2024 00:00:00 GMT' }, false],
    ['another length', { 'content-length': '9' }, false],
    ['another length, in another coding', { 'content-length': '9', 'content-encoding': 'gzip' }, true],
    ['nothing else', {}, true],
  ])('is given on after a HEAD only if that tells of the same version: %s', async (_, changed, isGiven) => {
    const fields = {
      ...FRESH,
      etag: '"a"',
      'last-modified': 'Mon, 01 Jan 2024 00:00:00 GMT',
      'content-length': '4',
    }
    const gateway = await startCached(
      ({ method }, response) =>
        method === 'HEAD'
          ? response.writeHead(200, { ...fields, ...changed }).end()
          : response.writeHead(200, fields).end('item'),
      { kind },
    )
    await gateway.read()
    const head = await gateway.read({ 'cache-control': 'no-cache' }, '/items/1', { method: 'HEAD' })
    expect(head.status).toBe(200)
    expect((await gateway.read()).headers['cache-status']).toMatch(isGiven ? /; hit/ : /fwd=uri-miss/)
  })

  it('ends with a write what is kept of its path, in every form of writing it', async () => {
    const gateway = await startCached(
      ({ method }, response, count) =>
        response.writeHead(method === 'DELETE' ? 404 : 200, FRESH).end(`answer ${count}`),
      { kind },
    )
    const paths = ['/items/1', '/items/1?page=2', '/items//1']
    const bodies = () => Promise.all(paths.map(async (path) => (await gateway.read({}, path)).body))
    for (const path of paths) await gateway.read({}, path)
    const kept = await bodies()
    expect(kept).toEqual(['answer 1', 'answer 2', 'answer 3'])
    await gateway.read({ 'x-sluice-max-wait': '0' }, '/items/1', { method: 'DELETE' })
    expect(await bodies()).toEqual(kept)
    await gateway.read({}, '/items/1/', { method: 'PUT', body: 'new' })
    expect((await bodies()).toSorted()).toEqual(['answer 6', 'answer 7', 'answer 8'])
  })

  it('gives nothing to those that ask after a write of what was asked for before it', async () => {
    const held: (() => void)[] = []
    const gateway = await startCached(
      ({ method }, response, count) => {
        const answer = (): void => void response.writeHead(200, FRESH).end(`answer ${count}`)
        if (method === 'GET' && count === 1) held.push(answer)
        else answer()
      },
      { kind },
    )
    const before = gateway.read()
    await expect.poll(() => held).toHaveLength(1)
    await gateway.read({}, '/items/1', { method: 'PUT', body: 'new' })
    const after = gateway.read()
    await expect.poll(() => gateway.upstream.seen).toHaveLength(3)
    expect((await after).body).toBe('answer 3')
    held[0]!()
    expect((await before).body).toBe('answer 1')
    expect((await gateway.read()).body).toBe('answer 3')
  })

  it('ends what is kept where a write may have been done though it failed', async () => {
    const gateway = await startCached(
      ({ method }, response, count) => {
        if (method === 'GET') return response.writeHead(200, FRESH).end(`answer ${count}`)
        return response.destroy()
      },
      { kind },
    )
    await gateway.read()
    expect((await gateway.read({}, '/items/1', { method: 'POST' })).status).toBe(502)
    expect((await gateway.read()).body).toBe('answer 3')
  })

  it('ends what is kept where an earlier attempt of a write may have been carried out', async () => {
    for (const last of ['404', 'refused']) {
      const gateway = await startCached(
        ({ method }, response, count) => {
          if (method === 'GET') return response.writeHead(200, FRESH).end(`answer ${count}`)
          return count === 2 ? response.destroy() : response.writeHead(404).end()
        },
        {
          kind,
          upstream: {
            retry: { retries: 1, baseDelay: '1ms', maxDelay: '1ms' },
            // There is no quota for the second attempt.
            ...(last === 'refused' && { limits: { read: [], write: [{ requests: 1, window: '60s' }] } }),
          },
        },
      )
      await gateway.read()
      const deleted = gateway.read({}, '/items/1', { method: 'DELETE' })
      await expect.poll(() => gateway.upstream.seen).toHaveLength(2)
      let isOver = false
      const over = (): void => void (isOver = true)
      deleted.then(over, over)
      await expect.poll(async () => (await gateway.clock.advance(1), isOver)).toBe(true)
      expect((await deleted).status).toBe(last === '404' ? 404 : 429)
      const again = await gateway.read()
      expect(again.headers['cache-status'], last).toMatch(/fwd=uri-miss/)
    }
  })

  it('takes a write to a path of slashes, and what its answer names', async () => {
    const gateway = await startCached((_, response) => response.writeHead(201, { location: '/items/1' }).end(), {
      kind,
    })
    expect((await gateway.read({}, '//', { method: 'POST' })).status).toBe(201)
  })

  it('is not asked for what is wanted from the cache only', async () => {
    const gateway = await startCached((_, response) => response.end('whole'), { kind })
    for (const more of [{}, { range: 'bytes=0-1' }]) {
      const answer = await gateway.read({ 'cache-control': 'only-if-cached', ...more })
      expect(answer.status).toBe(504)
    }
    expect(gateway.upstream.seen).toHaveLength(0)
  })

  it('keeps a long packed answer of which a credential may have to be taken out', async () => {
    const packed = gzipSync(JSON.stringify(randomBytes(200_000).toString('hex')))
    const fields = { 'content-type': 'application/json', 'content-encoding': 'gzip', 'content-length': packed.length }
    const gateway = await startCached(
      (_, response) => response.writeHead(200, { 'cache-control': 'max-age=60', ...fields }).end(packed),
      {
        kind,
        upstream: { accounts: { main: { credential: { header: 'x-api-key', value: 'vendor-key' } } } },
        rest: { cache: { store: kind === 'memory' ? 'memory' : 'redis', maxEntryBytes: 1_000_000 } },
      },
    )
    for (let i = 0; i < 2; i++) expect((await gateway.read({ 'accept-encoding': 'gzip' })).status).toBe(200)
    expect(gateway.upstream.seen).toHaveLength(1)
  })

  it('forgets the older answer where the newer one is too long', async () => {
    for (const length of [{ 'content-length': '5000' }, {}]) {
      const gateway = await startCached(
        (_, response, count) => {
          if (count === 1) return response.writeHead(200, { 'cache-control': 'max-age=60' }).end('old')
          return response.writeHead(200, { 'cache-control': 'max-age=60', ...length }).end('x'.repeat(5_000))
        },
        { kind, rest: { cache: { store: kind === 'memory' ? 'memory' : 'redis', maxEntryBytes: 1_024 } } },
      )
      await gateway.read()
      await gateway.read({ 'cache-control': 'no-cache' })
      expect((await gateway.read()).body).not.toBe('old')
    }
  })

  it('ends what is kept at the places that a write names, at the same upstream only', async () => {
    let location = ''
    const gateway = await startCached(
      ({ method }, response, count) =>
        response.writeHead(200, method === 'POST' ? { location } : FRESH).end(`answer ${count}`),
      { kind },
    )
    await gateway.read()
    location = 'http://elsewhere.example/items/1'
    await gateway.read({}, '/items', { method: 'POST' })
    expect((await gateway.read()).body).toBe('answer 1')
    location = '/items/1?new'
    await gateway.read({}, '/items', { method: 'POST' })
    expect((await gateway.read()).body).toBe('answer 4')
  })

  it('keeps a body byte for byte, and none that is too long or did not come whole', async () => {
    const bytes = Buffer.from(Array.from({ length: 3_000 }, (_, i) => i % 256))
    const answers: Record<string, (seen: Seen, response: ServerResponse) => unknown> = {
      '/items/whole': (_, response) => response.writeHead(200, { 'cache-control': 'max-age=60' }).end(bytes),
      '/items/long': (_, response) =>
        response.writeHead(200, { 'cache-control': 'max-age=60' }).end(Buffer.alloc(5_000, 'x')),
      '/items/declared': (_, response) =>
        response.writeHead(200, { 'cache-control': 'max-age=60', 'content-length': '5000' }).end('x'.repeat(5_000)),
      '/items/broken': (_, response) => {
        response.writeHead(200, { 'cache-control': 'max-age=60', 'content-length': '3000' })
        response.write(bytes.subarray(0, 1_000), () => response.destroy())
      },
    }
    const gateway = await startCached((seen, response) => answers[seen.url]!(seen, response), {
      kind,
      rest: { cache: { store: kind === 'memory' ? 'memory' : 'redis', maxEntryBytes: 4_096 } },
    })
    for (let i = 0; i < 2; i++) {
      const answer = await fetch(`${gateway.url}/api/items/whole`)
      expect(Buffer.from(await answer.arrayBuffer()).equals(bytes)).toBe(true)
    }
    for (const path of ['/items/long', '/items/declared']) {
      for (let i = 0; i < 2; i++) expect((await gateway.read({}, path)).body).toHaveLength(5_000)
    }
    for (let i = 0; i < 2; i++) await expect(gateway.read({}, '/items/broken')).rejects.toThrow('aborted')
    expect(gateway.upstream.seen.map(({ url }) => url.slice('/items/'.length))).toEqual([
      'whole',
      ...['long', 'long', 'declared', 'declared', 'broken', 'broken'],
    ])
  })
})
