import { describe, expect, it } from 'vitest'
import { CLIENT_FIELDS, type Hop, requestHeaders, responseHeaders, TRACE_FIELDS } from '../../src/upstream/headers.ts'

const hop = {
  host: 'gateway:8080',
  peerAddress: '10.0.0.9',
  isSecure: false,
  correlationId: 'id-1',
  droppedNames: new Set(['x-sluice-key', 'authorization', 'x-api-key']),
  forward: [],
} satisfies Hop

/** Only what is not added by every hop. */
function passedOn(raw: string[]): string[] {
  const added = requestHeaders([], hop).length
  return requestHeaders(raw, hop).slice(0, -added)
}

describe('the fields of a request', () => {
  it('go on as they were sent: names, values, order and repetition', () => {
    const raw = ['Accept', 'a/b', 'X-Custom', 'One', 'x-custom', 'Two', 'If-None-Match', '"x"']
    expect(passedOn(raw)).toEqual(raw)
  })

  it('say that the gateway forwards, and under which id, but not for whom', () => {
    expect(requestHeaders([], hop)).toEqual(['X-Correlation-Id', 'id-1', 'Via', '1.1 sluice'])
  })

  it('say who forwards for whom where the upstream may know', () => {
    const known = { ...hop, forward: ['client'] } satisfies Hop
    expect(requestHeaders([], known)).toEqual([
      ...['X-Correlation-Id', 'id-1', 'Via', '1.1 sluice', 'X-Forwarded-Proto', 'http'],
      ...['X-Forwarded-For', '10.0.0.9', 'X-Forwarded-Host', 'gateway:8080'],
    ])
    const chained = requestHeaders(
      [
        ...['Via', '1.0 fred', 'X-Forwarded-For', '1.2.3.4'],
        ...['X-Forwarded-Proto', 'https', 'X-Forwarded-Host', 'api.internal'],
      ],
      known,
    )
    expect(chained).toEqual([
      ...['X-Correlation-Id', 'id-1', 'Via', '1.0 fred, 1.1 sluice', 'X-Forwarded-Proto', 'https'],
      ...['X-Forwarded-For', '1.2.3.4, 10.0.0.9', 'X-Forwarded-Host', 'api.internal'],
    ])
  })

  it('keep the order of proxies that each added a line of their own', () => {
    const raw = [
      ...['X-Forwarded-For', '6.6.6.6', 'Via', '1.0 first'],
      ...['x-forwarded-for', '203.0.113.7', 'Via', '1.1 second'],
    ]
    const known = requestHeaders(raw, { ...hop, forward: ['client'] })
    expect(known[known.indexOf('Via') + 1]).toBe('1.0 first, 1.1 second, 1.1 sluice')
    // Who counts the proxies that it trusts from the end takes the last ones.
    expect(known[known.indexOf('X-Forwarded-For') + 1]).toBe('6.6.6.6, 203.0.113.7, 10.0.0.9')
    const unknown = requestHeaders(['Via', '1.0 first', 'Via', '2 second'], hop)
    expect(unknown[unknown.indexOf('Via') + 1]).toBe('1.0 internal, 2 internal, 1.1 sluice')
  })

  it.each([
    ['1.0 fred', '1.0 internal'],
    ['1.1 lb-7.corp.example:8443 (nginx, 1.25)', '1.1 internal'],
    ['HTTP/2 a, 1.1 b', 'HTTP/2 internal, 1.1 internal'],
    ['2 a', '2 internal'],
    ['lb-7.corp.example', '1.1 internal'],
    ['1.1 a (unclosed, b', '1.1 internal, 1.1 internal'],
  ])('name no proxy in front of the gateway: Via: %s', (value, expected) => {
    const headers = requestHeaders(['Via', value], hop)
    expect(headers[headers.indexOf('Via') + 1]).toBe(`${expected}, 1.1 sluice`)
  })

  const ofKind = { trace: TRACE_FIELDS, client: CLIENT_FIELDS } as const
  for (const kind of ['trace', 'client'] as const) {
    it.each(ofKind[kind])(`include %s only where the upstream may know of the ${kind}`, (field) => {
      const name = (field.endsWith('-') ? `${field}something` : field).toUpperCase()
      const values = (forward: Hop['forward']): string[] =>
        requestHeaders([name, 'inside', 'Accept', '*/*'], { ...hop, forward }).filter(
          (_, i, all) => all[i - 1] === name,
        )
      const other = kind === 'trace' ? 'client' : 'trace'
      expect([values([]), values([other]), values([kind])]).toEqual([[], [], ['inside']])
    })
  }

  it('include what only begins like a field of a trace or of the client', () => {
    const raw = ['Forwarded-Id', 'a', 'B3-Stock', 'b', 'X-Real-Estate', 'c', 'Baggage-Claim', 'd', 'X-Request-Id', 'e']
    expect(passedOn(raw)).toEqual(raw)
  })

  it.each([
    'Connection',
    'Keep-Alive',
    'Proxy-Connection',
    'Proxy-Authorization',
    'Proxy-Authenticate',
    'TE',
    'Trailer',
    'Transfer-Encoding',
    'Upgrade',
    'Expect',
    'Host',
    'Content-Length',
    'X-Sluice-Key',
    'X-Sluice-Max-Wait',
    'X-Sluice-Anything',
    'Authorization',
    'X-API-Key',
  ])('do not include %s', (name) => {
    expect(passedOn([name, 'x', 'Accept', '*/*'])).toEqual(['Accept', '*/*'])
  })

  it('do not include what Connection names for this hop only', () => {
    const raw = [
      'Connection',
      'close, X-Private , keep-alive',
      'X-Private',
      'secret',
      'connection',
      'x-other',
      'X-Other',
      'y',
      'X-Public',
      'z',
    ]
    expect(passedOn(raw)).toEqual(['X-Public', 'z'])
  })

  it('keep cookies, but for the gateway’s own', () => {
    expect(passedOn(['Cookie', 'a=1; sluice_session=x; b=2'])).toEqual(['Cookie', 'a=1; b=2'])
    expect(passedOn(['Cookie', 'sluice_session=x'])).toEqual([])
    expect(passedOn(['Cookie', 'SLUICE_SESSION=x'])).toEqual([])
    expect(passedOn(['Cookie', 'a=1; Sluice=x; b=2'])).toEqual(['Cookie', 'a=1; b=2'])
  })
})

describe('the fields of a response', () => {
  it('go back without those of the connection, and without those that the gateway answers itself', () => {
    const fields = {
      'content-type': 'application/json',
      connection: 'keep-alive, x-private',
      'keep-alive': 'timeout=5',
      'x-private': 'x',
      'transfer-encoding': 'chunked',
      'x-ratelimit-remaining': '7',
      ratelimit: '"x";r=1',
      'x-sluice-error': 'forged',
      'x-correlation-id': 'theirs',
      'set-cookie': ['a=1', 'b=2'],
      'retry-after': '3',
    }
    const headers = responseHeaders(fields, true)
    expect(headers).toEqual([
      ...[
        'content-type',
        'application/json',
        'set-cookie',
        'a=1',
        'set-cookie',
        'b=2',
        'retry-after',
        '3',
        'Via',
        '1.1 sluice',
      ],
    ])
  })

  it('keep what the upstream says of its quotas where the gateway says nothing', () => {
    const fields = { 'x-ratelimit-remaining': '7', ratelimit: '"x";r=1', 'ratelimit-policy': '"x";q=9;w=60' }
    expect(responseHeaders(fields, false)).toEqual([...Object.entries(fields).flat(), 'Via', '1.1 sluice'])
  })

  it('keep the length of the body, even if the upstream calls it private', () => {
    expect(responseHeaders({ connection: 'content-length', 'content-length': '5' }, true)).toEqual([
      'content-length',
      '5',
      'Via',
      '1.1 sluice',
    ])
  })
})
