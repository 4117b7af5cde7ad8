import { once } from 'node:events'
import { request } from 'node:http'
import { expect, it } from 'vitest'
import { startGateway, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'

/** The upstream sends the fields that stand in the query as JSON, in which `UP` is its own origin. */
async function startLinking(trustedProxies: readonly string[] = []) {
  const upstream = await startUpstream(({ url, headers }, response) => {
    const own = new URL(url, 'http://x').searchParams
    const fields = JSON.parse(own.get('fields') ?? '{}') as Record<string, string | string[]>
    for (const [name, value] of Object.entries(fields)) {
      const lines = [value].flat().map((line) => line.replaceAll('UP', `http://${headers.host}`))
      response.setHeader(name, lines.length === 1 ? lines[0]! : lines)
    }
    if (own.has('hints')) response.writeEarlyHints({ link: `<http://${headers.host}/style.css>; rel=preload` })
    response.setHeader('cache-control', 'max-age=60').end(`see http://${headers.host}/things`)
  })
  const account = { accounts: { a: {} }, limits: { read: [], write: [] } }
  const gateway = await startGateway({
    server: { port: 0, trustedProxies, hosts: ['gw.example', 'a.example', 'b.example', 'a"b'] },
    admin: { port: 0 },
    store: { kind: 'memory' },
    upstreams: {
      x: { url: upstream.url, ...account },
      based: { url: `${upstream.url}/api`, ...account },
      named: { url: upstream.url, hosts: ['named.example'], ...account },
      cached: {
        url: upstream.url,
        ...account,
        routes: [{ path: '/a', class: 'read', cache: true }],
      },
      kept: { url: upstream.url, ownLinks: 'keep', ...account },
    },
  })
  const shown = async (path: string, name: string, value: string | string[], headers = {}) => {
    const query = `?fields=${encodeURIComponent(JSON.stringify({ [name]: value }))}`
    const answer = await call(gateway.url, path + query, { headers })
    return answer.headers[name]?.toString().replaceAll(upstream.url, 'UP').replaceAll(gateway.url, 'GW')
  }
  return { upstream, gateway, shown }
}

it('lets links that lead to the upstream lead to the gateway, and others where they led', async () => {
  const { upstream, gateway, shown } = await startLinking()
  // [path of the call, what the upstream sends, what the client gets]
  const locations: [string, string, string][] = [
    ['/x/a', 'UP/things?page=2#top', 'GW/x/things?page=2#top'],
    ['/x/a', 'UP', 'GW/x'],
    ['/x/a', 'UP?page=2', 'GW/x?page=2'],
    ['/x/a', '/things/1', '/x/things/1'],
    ['/x/a', 'things/1', 'things/1'],
    ['/x/a', '?page=2', '?page=2'],
    ['/x/a', 'UP.evil.example/things', 'UP.evil.example/things'],
    ['/x/a', 'https://elsewhere.example/things', 'https://elsewhere.example/things'],
    ['/x/a', '//elsewhere.example/things', '//elsewhere.example/things'],
    ['/x/a', 'http://user@127.0.0.1/', 'http://user@127.0.0.1/'],
    ['/x/a', 'mailto:UP@example', 'mailto:UP@example'],
    ['/x/a', '', ''],
    ['/based/a', 'UP/api/things', 'GW/based/things'],
    ['/based/a', 'UP/api', 'GW/based'],
    ['/based/a', '/api/things', '/based/things'],
    // Nothing of the gateway leads there.
    ['/based/a', 'UP/other', 'UP/other'],
    ['/based/a', 'UP/apiary', 'UP/apiary'],
    ['/based/a', '/other', '/other'],
    ['/kept/a', 'UP/things', 'UP/things'],
  ]
  for (const [path, sent, got] of locations) {
    expect(await shown(path, 'location', sent), `${path} ${sent}`).toBe(got)
    expect(await shown(path, 'content-location', sent), `${path} ${sent}`).toBe(got)
  }
  const links: [string | string[], string][] = [
    ['<UP/x?page=2>; rel="next"', '<GW/x/x?page=2>; rel="next"'],
    [
      '<UP/x?page=2>; rel=next, <UP/x?page=9>; rel="last"; title="a, <UP/b>"',
      '<GW/x/x?page=2>; rel=next, <GW/x/x?page=9>; rel="last"; title="a, <UP/b>"',
    ],
    [
      ['<UP/1>; rel=prev', '<https://other.example/>; rel=help,</3>;rel=next'],
      '<GW/x/1>; rel=prev, <https://other.example/>; rel=help,</x/3>;rel=next',
    ],
    [String.raw`<UP/1>; title="\"<UP/2>"; rel=a`, String.raw`<GW/x/1>; title="\"<UP/2>"; rel=a`],
    // A quote that does not end.
    ['<UP/1>; title="a, <UP/2>', '<GW/x/1>; title="a, <UP/2>'],
    ['UP/1; rel=next', 'UP/1; rel=next'],
    [`${'<'.repeat(5_000)}UP/1`, `${'<'.repeat(5_000)}UP/1`],
  ]
  for (const [sent, got] of links) expect(await shown('/x/a', 'link', sent)).toBe(got)
  // By a name of its own, and by whatever name the client knows the gateway.
  const sent = 'UP/things'
  expect(await shown('/a', 'location', sent, { host: 'named.example:8443' })).toBe('http://named.example:8443/things')
  expect(await shown('/x/a', 'location', sent, { host: 'gw.example' })).toBe('http://gw.example/x/things')
  expect(await shown('/x/a', 'location', sent, { host: '[::1]:8080' })).toBe('http://[::1]:8080/x/things')
  // No other is said by somebody who is not trusted.
  const forwarded = { 'x-forwarded-host': 'evil.example', 'x-forwarded-proto': 'https', 'x-forwarded-prefix': '/evil' }
  expect(await shown('/x/a', 'location', sent, forwarded)).toBe('GW/x/things')
  // Other fields, and bodies, stay as they are.
  expect(await shown('/x/a', 'x-next', sent)).toBe('UP/things')
  expect((await call(gateway.url, '/x/a')).body).toBe(`see ${upstream.url}/things`)
  const hinted = request(`${gateway.url}/x/a?hints`).end()
  const [{ headers }] = (await once(hinted, 'information')) as [{ headers: Record<string, string> }]
  expect(headers['link']).toBe(`<${gateway.url}/x/style.css>; rel=preload`)
  hinted.destroy()
})

it('leads to the gateway as a trusted load balancer says that the client addressed it', async () => {
  const { shown } = await startLinking(['127.0.0.0/8'])
  const said: [object, string][] = [
    [{ 'x-forwarded-proto': 'https', 'x-forwarded-host': 'api.example' }, 'https://api.example/x/things'],
    [{ 'x-forwarded-host': 'evil.example, api.example:8443' }, 'http://api.example:8443/x/things'],
    [{ 'x-forwarded-prefix': '/sluice/' }, 'GW/sluice/x/things'],
    [
      { forwarded: 'for=1.1.1.1;host=evil.example, for=2.2.2.2;proto=https;host="api.example"' },
      'https://api.example/x/things',
    ],
    [{ 'x-forwarded-proto': 'gopher', 'x-forwarded-prefix': '//evil.example' }, 'GW/x/things'],
    [{ forwarded: 'host="api.example' }, 'GW/x/things'],
  ]
  for (const [headers, got] of said) expect(await shown('/x/a', 'location', 'UP/things', headers)).toBe(got)
})

it('gives each client its own links from the cache', async () => {
  const { shown, upstream } = await startLinking()
  for (const host of ['a.example', 'b.example', 'a.example']) {
    expect(await shown('/cached/a', 'link', '<UP/2>; rel=next', { host })).toBe(`<http://${host}/cached/2>; rel=next`)
  }
  expect(upstream.seen).toHaveLength(1)
})
