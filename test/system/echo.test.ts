import { describe, expect, it } from 'vitest'
import { newFolder, type Seen, startGateway, startUpstream } from '../support/gateway.ts'
import { call, open } from '../support/http.ts'

const SECRET = 'vendor-secret+of/the=account'
const bearer = { type: 'bearer', value: SECRET }

/** A gateway before an upstream that answers by `answer`. */
async function setUp(answer: Parameters<typeof startUpstream>[0], upstream: object = {}, credential: object = bearer) {
  const vendor = await startUpstream(answer)
  const gateway = await startGateway({
    server: { port: 0 },
    admin: { port: 0 },
    store: { dir: newFolder() },
    upstreams: { api: { url: vendor.url, accounts: { main: { credential } }, ...upstream } },
  })
  return { vendor, ...gateway }
}

function expectHidden(text: string): void {
  for (const form of [SECRET, encodeURIComponent(SECRET), Buffer.from(SECRET).toString('base64').slice(0, -4)])
    expect(text).not.toContain(form)
}

const sentTo = ({ headers }: Seen): string => headers.authorization!

describe('an upstream that repeats its credential', () => {
  it.each([200, 404, 500])(
    'tells clients nothing in headers, text and trailers, in a response with %i',
    async (status) => {
      const gateway = await setUp((seen, response) => {
        const sent = sentTo(seen)
        const headers = { 'content-type': 'text/html', 'x-echo': sent, trailer: 'x-end' }
        response.writeHead(status, `no ${SECRET.slice(0, 5)}`, headers)
        for (const byte of `you sent ${sent} or ${encodeURIComponent(sent)}`) response.write(byte)
        response.addTrailers({ 'x-end': Buffer.from(sent).toString('base64') })
        response.end()
      })
      const answer = await call(gateway.url, '/api/x', { headers: { 'x-sluice-retry': 'off' } })
      expect(answer.status).toBe(status)
      expect(answer.headers['x-echo']).toBe(`Bearer ${'*'.repeat(SECRET.length)}`)
      expect(answer.body).toMatch(/^you sent Bearer \*{28} or Bearer%20\*+$/)
      expect(answer.trailers['x-end']).toMatch(/\*{36}/)
      expectHidden(answer.rawHeaders.join() + answer.body + JSON.stringify(answer.trailers))
      expect(gateway.vendor.seen[0]!.headers.authorization).toBe(`Bearer ${SECRET}`)
      expect(await gateway.metrics()).toContain('sluice_credentials_scrubbed_total{upstream="api",account="main"} 1')
    },
  )

  it('is answered with a body of the length that it named', async () => {
    const gateway = await setUp((seen, response) => {
      const body = JSON.stringify(seen.headers)
      response
        .writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) })
        .end(body)
    })
    const answer = await call(gateway.url, '/api/x')
    expect(answer.body).toHaveLength(Number(answer.headers['content-length']))
    expect(answer.json().authorization).toBe(`Bearer ${'*'.repeat(SECRET.length)}`)
  })

  it('has nothing of it in the cache', async () => {
    const gateway = await setUp(
      (seen, response) => {
        response.writeHead(200, { 'cache-control': 'public, max-age=60', 'x-echo': sentTo(seen) }).end(sentTo(seen))
      },
      { limits: { read: [] }, routes: [{ path: '/*', class: 'read', cache: true }] },
    )
    const answers = [await call(gateway.url, '/api/x'), await call(gateway.url, '/api/x')]
    expect(gateway.vendor.seen).toHaveLength(1)
    for (const { body, headers } of answers)
      expect([body, headers['x-echo']]).toEqual(Array(2).fill(`Bearer ${'*'.repeat(28)}`))
  })

  it('tells nothing of a credential that went in the query, nor of a password', async () => {
    const inQuery = await setUp(
      ({ url }, response) => response.writeHead(302, { location: `http://elsewhere${url}` }).end(url),
      {},
      { type: 'query', parameter: 'key', value: SECRET },
    )
    const redirect = await call(inQuery.url, '/api/x?a=1')
    expect(redirect.headers.location).toMatch(/^http:\/\/elsewhere\/x\?a=1&key=\*+$/)
    expectHidden(redirect.body)
    const basic = await setUp(
      (seen, response) => {
        const pair = sentTo(seen).slice('Basic '.length)
        response.end(`${pair} is ${Buffer.from(pair, 'base64').toString()}`)
      },
      {},
      { type: 'basic', username: 'me', password: SECRET },
    )
    expect((await call(basic.url, '/api/x')).body).toMatch(/^bWU6\*+.?={0,2} is me:\*{28}$/)
  })

  it('repeats it to clients where that is configured', async () => {
    const echo = (seen: Seen, response: Parameters<NonNullable<Parameters<typeof startUpstream>[0]>>[1]): void => {
      response.end(sentTo(seen))
    }
    const open = await setUp(echo, { scrub: false })
    expect((await call(open.url, '/api/x')).body).toBe(`Bearer ${SECRET}`)
  })
})

it('passes every event on before the next one is sent, with credentials in them', async () => {
  let next = (): void => undefined
  const gateway = await setUp((seen, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    const send = (data: string): void => void response.write(`data: ${data}\n\n`)
    let count = 0
    next = () => (count++ < 3 ? send(`${count} ${sentTo(seen)}`) : void response.end())
    next()
  })
  const response = await open(gateway.url, '/api/events')
  const events: string[] = []
  // Each is asked for only once the one before has come: one that was held back would be waited for until the test's end.
  for await (const piece of response) {
    events.push(String(piece))
    next()
  }
  const hidden = '*'.repeat(SECRET.length)
  expect(events).toEqual([1, 2, 3].map((count) => `data: ${count} Bearer ${hidden}\n\n`))
})
