import { gzipSync } from 'node:zlib'
import { Readable } from 'node:stream'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { parseConfig } from '../../src/config/load.ts'
import { request, type ServerResponse } from 'node:http'
import { newFolder, startGateway, startUpstream, stores, type Seen, type TestGateway } from '../support/gateway.ts'
import { call } from '../support/http.ts'

const JSON_TYPE = { 'content-type': 'application/json' }
const LIMIT = 1_000
const NOW = { headers: { 'x-sluice-max-wait': '0' } }

type Respond = (seen: Seen, response: ServerResponse) => unknown

async function start(
  cost: object,
  respond: Respond,
  { store = { dir: newFolder() }, ...rest }: { store?: object; counts?: object } = {},
) {
  const upstream = await startUpstream(respond)
  const limits = { tokens: [{ requests: LIMIT, window: '60s', cost, ...rest }] }
  const it = { url: upstream.url, accounts: { main: {} }, limits, routes: [{ path: '/*', class: 'tokens' }] }
  const config = { server: { port: 0 }, admin: { port: 0 }, store, upstreams: { it } }
  return { upstream, config, gateway: await startGateway(config) }
}

async function used(gateway: TestGateway): Promise<number> {
  const text = await gateway.metrics()
  return Number(/^sluice_quota_used\{[^}]*class="tokens"[^}]*\} (\S+)/m.exec(text)?.[1])
}

/** A call that costs what it says in its body, of which all is read. */
function ask(gateway: TestGateway, body: object = {}, options: object = {}) {
  return call(gateway.url, '/it/chat', { method: 'POST', body: JSON.stringify(body), ...options })
}

const usage = (input: number, output: number) => JSON.stringify({ text: 'hi', usage: { input, output } })
const tokens = {
  values: { input: { body: '/usage/input' }, output: { body: '/usage/output' } },
  formula: 'input + 4 * output',
}

describe.each(Object.entries(stores))('a limit that is priced by the answer, with %s', (_, store) => {
  it('reserves for a call until its answer is whole, and gives back the rest at once to who waits', async () => {
    let finish = (): void => undefined
    const { gateway } = await start(
      { response: tokens, reserve: 800 },
      ({ body }, response) => {
        response.writeHead(200, JSON_TYPE)
        response.write(usage(100, 25))
        if (body === '{"slow":true}') finish = () => response.end()
        else response.end()
      },
      { store: store() },
    )
    const first = ask(gateway, { slow: true })
    await expect.poll(() => used(gateway)).toBe(800)
    expect((await ask(gateway, {}, NOW)).headers['x-sluice-error']).toBe('quota_exhausted')
    const waiting = ask(gateway)
    await expect.poll(() => gateway.metrics()).toMatch(/^sluice_queue_depth\{[^}]*\} 1$/m)
    finish()
    expect((await first).body).toBe(usage(100, 25))
    expect((await waiting).status).toBe(200)
  })
})

describe('the price of an answer', () => {
  const stream = (events: readonly string[]): Respond => {
    return (_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      for (const event of events) response.write(`data: ${event}\n\n`)
      response.end()
    }
  }

  it.each<[string, object, Respond, number]>([
    ['of JSON', tokens, (_, response) => response.writeHead(200, JSON_TYPE).end(usage(10, 5)), 30],
    [
      'of JSON in gzip',
      tokens,
      (_, response) =>
        response.writeHead(200, { ...JSON_TYPE, 'content-encoding': 'gzip' }).end(gzipSync(usage(10, 5))),
      30,
    ],
    ['of a stream of events', tokens, stream([usage(1, 1), usage(10, 5), '[DONE]']), 30],
    [
      'of a header',
      { values: { cost: { header: 'X-Cost' } } },
      (_, response) => response.writeHead(200, { 'x-cost': '12.2' }).end(),
      13,
    ],
    [
      'of a trailer',
      { values: { cost: { header: 'x-cost' } } },
      (_, response) => {
        response.writeHead(200, { trailer: 'x-cost' }).write('x')
        response.addTrailers({ 'x-cost': '44' })
        response.end()
      },
      44,
    ],
    [
      'of several places',
      { values: { all: { body: ['/usage/total', '/usage/input'] }, more: { body: '/more', default: 2 } } },
      (_, response) => response.writeHead(200, JSON_TYPE).end(usage(10, 5)),
      12,
    ],
    [
      'that it lacks stays what was reserved',
      tokens,
      (_, response) => response.writeHead(200, JSON_TYPE).end('{}'),
      400,
    ],
    ['of an error, too', tokens, (_, response) => response.writeHead(400, JSON_TYPE).end('{"error":1}'), 400],
    ['that is more than was reserved is a debt', tokens, (_, response) => response.end(usage(10, 200)), 810],
  ])('%s', async (_, response, respond, price) => {
    const { gateway } = await start({ response, reserve: 400 }, respond)
    await ask(gateway, {}, { headers: { 'accept-encoding': 'gzip' } })
    await expect.poll(() => used(gateway)).toBe(price)
    // And so much its client has spent.
    await expect
      .poll(() => gateway.metrics())
      .toMatch(new RegExp(`^sluice_quota_charged_total\\{[^}]*\\} ${price}(\\s|$)`, 'm'))
  })

  it('stays what was reserved where the answer breaks off, or while nobody reads it to its end', async () => {
    const { gateway } = await start({ response: tokens, reserve: 300 }, async ({ body }, response) => {
      response.writeHead(200, { ...JSON_TYPE, 'content-length': 500 }).write(usage(1, 1))
      await sleep(20)
      if (body === '{"break":true}') response.destroy()
    })
    await ask(gateway, { break: true }).catch(() => undefined)
    const leaving = new AbortController()
    const init = { method: 'POST', body: '{}', signal: leaving.signal }
    const response = await fetch(`${gateway.url}/it/chat`, init)
    await response.body!.getReader().read()
    leaving.abort()
    await expect.poll(() => used(gateway)).toBe(600)
  })

  describe('whose client leaves', () => {
    /** Leaves a call before or after its head, and waits until the gateway knows; returns the upstream's side of it. */
    const leave = async (when: 'before' | 'after', cost: object) => {
      const seen = Promise.withResolvers<ServerResponse>()
      const { gateway } = await start({ response: tokens, reserve: 300, ...cost }, (_, response) => {
        if (when === 'after') response.writeHead(200, JSON_TYPE).write('{"text":')
        seen.resolve(response)
      })
      const leaving = request(`${gateway.url}/it/chat`, { method: 'POST', agent: false }).on('error', () => undefined)
      const headed = once(leaving, 'response')
      leaving.end('{}')
      const response = await seen.promise
      if (when === 'after') await headed
      else headed.catch(() => undefined)
      leaving.destroy()
      await expect.poll(() => gateway.metrics()).toMatch(/^sluice_client_connections 0$/m)
      return { gateway, response }
    }
    const closed = async (response: ServerResponse) => {
      if (!response.destroyed) await once(response, 'close')
    }

    it.each(['before', 'after'] as const)('%s its head is learned all the same', async (when) => {
      const { gateway, response } = await leave(when, {})
      expect(await used(gateway)).toBe(300)
      response.end(when === 'before' ? usage(10, 5) : '"", "usage": { "input": 10, "output": 5 } }')
      await expect.poll(() => used(gateway)).toBe(30)
      await expect
        .poll(() => gateway.metrics())
        .toMatch(/^sluice_requests_total\{[^}]*outcome="client_gone"[^}]*\} 1(\s|$)/m)
    })

    it.each([
      ['before', '0s'],
      ['after', '0s'],
      ['before', '50ms'],
      ['after', '50ms'],
    ] as const)('%s its head is not waited for longer than `finish` says (%s)', async (when, finish) => {
      const { gateway, response } = await leave(when, { finish })
      await closed(response)
      await expect.poll(() => used(gateway)).toBe(300)
    })

    it('is not waited for by a gateway that stops', async () => {
      const { gateway, response } = await leave('after', { finish: '1h' })
      const stopped = gateway.stop()
      await closed(response)
      await stopped
    })

    it('is not looked for in an answer without an end', async () => {
      const { gateway, response } = await leave('after', {})
      const piece = Buffer.alloc(1_048_576, ' ')
      const onwards = (): void => {
        while (!response.destroyed && response.write(piece));
      }
      response.on('drain', onwards)
      onwards()
      await closed(response)
      await expect.poll(() => used(gateway)).toBe(300)
    })

    it('is known where the head has told it', async () => {
      const { gateway } = await start(
        { response: { values: { cost: { header: 'x-cost' } } }, reserve: 300 },
        (_, response) => response.writeHead(200, { 'x-cost': '12' }).write('x'),
      )
      const leaving = new AbortController()
      const { body } = await fetch(`${gateway.url}/it/chat`, { signal: leaving.signal })
      await body!.getReader().read()
      leaving.abort()
      await expect.poll(() => used(gateway)).toBe(12)
    })
  })

  describe('of an answer that the client does not get is known from its head', () => {
    /** Answers cost 5 units each, besides the last one, which costs 7; 300 are reserved. */
    const startHeaded = async (more: object, respond: Respond) => {
      const { url } = await startUpstream(respond)
      const cost = { response: { values: { cost: { header: 'x-cost' } } }, reserve: 300 }
      const limits = { tokens: [{ requests: LIMIT, window: '60s', cost }] }
      const routes = [{ path: '/*', class: 'tokens' }]
      const it = { url, accounts: { main: {} }, limits, routes, ...more }
      const store = { dir: newFolder() }
      return startGateway({ server: { port: 0 }, admin: { port: 0 }, store, upstreams: { it } })
    }

    it('where the call is repeated', async () => {
      let count = 0
      const retry = { baseDelay: '1ms', maxDelay: '1ms' }
      const gateway = await startHeaded({ retry }, (_, response) => {
        const isFirst = ++count === 1
        response.writeHead(isFirst ? 503 : 200, { 'x-cost': isFirst ? '5' : '7' }).end('body')
      })
      expect((await call(gateway.url, '/it/x')).headers['x-sluice-attempts']).toBe('2')
      await expect.poll(() => used(gateway)).toBe(12)
    })

    it('where the cache answers', async () => {
      let count = 0
      const routes = [{ path: '/*', class: 'tokens', cache: true }]
      const gateway = await startHeaded({ routes }, (_, response) => {
        const isFirst = ++count === 1
        response.writeHead(isFirst ? 200 : 304, { etag: '"a"', 'x-cost': isFirst ? '7' : '5' }).end()
      })
      await call(gateway.url, '/it/x')
      expect((await call(gateway.url, '/it/x')).headers['cache-status']).toContain('fwd-status=304')
      await expect.poll(() => used(gateway)).toBe(12)
    })

    it('where another attempt, beside it, goes on', async () => {
      const held: ServerResponse[] = []
      const gateway = await startHeaded({ hedge: { after: '1ms' } }, (_, response) => held.push(response))
      const answer = call(gateway.url, '/it/x')
      await expect.poll(() => held.length).toBe(2)
      held[1]!.writeHead(503, { 'x-cost': '5' }).end('body')
      await expect.poll(() => used(gateway)).toBe(305)
      held[0]!.writeHead(200, { 'x-cost': '7' }).end('body')
      expect((await answer).status).toBe(200)
      await expect.poll(() => used(gateway)).toBe(12)
    })
  })

  it('is not charged for an answer that the vendor does not count', async () => {
    const { gateway } = await start(
      { response: tokens, reserve: 400 },
      ({ body }, response) => response.writeHead((JSON.parse(body) as { status: number }).status).end(),
      { counts: { except: [304, '4xx'] } },
    )
    for (const status of [304, 400, 429, 503]) await ask(gateway, { status }, { headers: { 'x-sluice-retry': 'off' } })
    expect(await used(gateway)).toBe(400)
  })

  it.each<[object, number]>([
    [{ max_tokens: 100 }, 120],
    [{ max_tokens: 5_000 }, 900],
    [{ messages: ['max_tokens'] }, 224],
    [{ max_tokens: 'many' }, 224],
  ])('is reserved by what the request %o says', async (body, reserved) => {
    const reserve = {
      values: { most: { body: '/max_tokens', default: 200 } },
      formula: 'most + 20 + 0 * bytes',
      most: 900,
    }
    const { gateway } = await start({ response: tokens, reserve }, (_, response) => response.end('{}'))
    await ask(gateway, body)
    await expect.poll(() => used(gateway)).toBe(reserved)
  })

  it('is reserved by the bytes of the request, and by the most where these are not kept', async () => {
    const reserve = { formula: '10 + bytes / 2', most: 333 }
    const { gateway } = await start({ response: tokens, reserve }, (_, response) => response.end('{}'))
    await ask(gateway, { a: 1 }, { body: '1234567890' })
    await expect.poll(() => used(gateway)).toBe(15)
    await ask(gateway, {}, { body: Readable.from(['x'.repeat(5), 'y']) })
    await expect.poll(() => used(gateway)).toBe(15 + 333)
  })

  it('is learned, by route and client', async () => {
    const reserve = { missRate: '20%', most: 40 }
    const { gateway } = await start({ response: tokens, reserve }, ({ url }, response) => {
      if (url.endsWith('/late')) response.writeHead(200).write('{')
      else response.end(usage(2, 0))
    })
    for (let n = 0; n < 12; n++) await ask(gateway)
    await expect.poll(() => used(gateway)).toBe(24)
    const controller = new AbortController()
    await fetch(`${gateway.url}/it/late`, { signal: controller.signal })
    await expect.poll(() => used(gateway)).toBe(24 + 2)
    controller.abort()
  })

  it('is not charged for a conditional request to GitHub that is answered 304', async () => {
    const upstream = await startUpstream((_, response) => response.writeHead(304).end())
    const github = { preset: 'github', url: upstream.url, accounts: { main: { credential: { value: 'x' } } } }
    const store = { dir: newFolder() }
    const gateway = await startGateway({ server: { port: 0 }, admin: { port: 0 }, store, upstreams: { github } })
    for (let n = 0; n < 3; n++) {
      expect((await call(gateway.url, '/github/user', { headers: { 'if-none-match': '"a"' } })).status).toBe(304)
    }
    const text = await gateway.metrics()
    const counts = [...text.matchAll(/^sluice_quota_used\{[^}]*class="rest"[^}]*\} (\S+)/gm)].map(([, count]) => count)
    expect(new Set(counts)).toEqual(new Set(['0', '3']))
  })
})

describe('the configuration of prices', () => {
  const problem = (limit: string): string => {
    const text = `upstreams:
  it:
    url: https://x.example
    accounts: { main: {} }
    routes: [{ path: /*, class: read }]
    limits: { read: [${limit}] }`
    try {
      parseConfig(text, { source: 'c' })
    } catch (error) {
      return (error as Error).message
    }
    return ''
  }
  const priced = (response: string, reserve: string, rest = '') =>
    `{ requests: 100, window: 60s, cost: { ${response === '' ? '' : `response: ${response}, `}reserve: ${reserve} } ${rest} }`

  it.each<[string, string, string?]>([
    ['{ values: { a: { header: x-cost } } }', '100'],
    [
      '{ values: { a: { body: [/a, /b/0] }, b: { body: /c, default: 0 } }, formula: a / 2 + b }',
      '{ missRate: 1%, most: 9 }',
    ],
    ['{ values: { a: { body: /a } } }', '{ values: { m: { body: /max } }, most: 50 }'],
    ['{ values: { a: { body: /a } } }', '{ formula: bytes / 4, most: 50 }'],
    ['', '{ values: { m: { body: /max } }, formula: "max(m, bytes / 4)", most: 50 }'],
    ['', '{ formula: bytes, most: 50 }', ', scope: [/model, client]'],
  ])('can be %s with %s', (response, reserve, rest = '') => {
    expect(problem(priced(response, reserve, rest))).toBe('')
  })

  it.each([
    ['{ values: {} }', '1', '', 'values: must not be an empty mapping'],
    ['{ values: { a: {} } }', '1', '', 'values.a: needs either header or body'],
    ['{ values: { a: { header: x, body: /a } } }', '1', '', 'values.a: needs either header or body'],
    ['{ values: { a: { body: a } } }', '1', '', 'limits.read[0].cost'],
    ['{ values: { a: { body: /a } }, formula: a + b }', '1', '', 'formula: character 5: no value is named "b"'],
    [
      '{ values: { a: { body: /a } } }',
      '101',
      '',
      'no call could be sent: 101 units are reserved for each, and the limit allows 100 per 1m',
    ],
    ['{ values: { a: { body: /a } } }', '{ missRate: 1%, most: 101 }', '', 'no call could be sent'],
    ['{ values: { a: { body: /a } } }', '{ missRate: 60%, most: 10 }', '', 'missRate: must be from 0.2% to 50%'],
    ['{ values: { a: { body: /a } } }', '{ most: 10 }', '', 'reserve: needs values or a formula'],
    ['{ values: { a: { body: /a } } }', '{ formula: size, most: 10 }', '', 'no value is named "size"; there are bytes'],
    ['{ values: { a: { body: /a } } }', '5', ', pace: even', 'pace does not go with a cost by the answer'],
    ['', '5', '', 'without a response it has to be `{ values, formula, most }` of the request'],
    ['', '{ missRate: 1%, most: 9 }', '', 'without a response it has to be'],
    ['', '{ formula: bytes, most: 9 }', ', scope: model', 'a JSON pointer such as /model'],
    ['{ values: { a: { body: /a } } }', '5', ', counts: { except: [7xx] }', 'a status from 200 to 599'],
  ])('can not be %s with %s%s', (response, reserve, rest, message) => {
    expect(problem(priced(response, reserve, rest))).toContain(message)
  })
})
