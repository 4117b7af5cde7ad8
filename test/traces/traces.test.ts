import { expect, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { harnessConfig, startGateway, startUpstream, TOKEN } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { type ReceivedSpan, startReceiver } from '../support/otlp-receiver.ts'

const TRACE = '0af7651916cd43dd8448eb211c80319c'
const PARENT = 'b7ad6b7169203331'
const SAMPLED = `00-${TRACE}-${PARENT}-01`
const UNSAMPLED = `00-${TRACE}-${PARENT}-00`
const READ = '/harness/agents/api/v1/agents/a1'
const KEY = 'slk_topsecretkey'

it('tells a receiver of OTLP what became of calls and their attempts', async () => {
  const receiver = await startReceiver()
  let failures = 1
  const upstream = await startUpstream(({ url }, response) => {
    if (url.includes('flaky') && failures-- > 0) response.statusCode = 503
    if (url.includes('missing')) response.statusCode = 404
    if (url.includes('down')) response.statusCode = 500
    response.setHeader('x-request-id', 'vendor-1')
    response.end('answered')
  })
  const limits = { read: [{ requests: 6, window: '24h' }] }
  const gateway = await startGateway(
    harnessConfig(
      upstream.url,
      { limits, forward: ['trace'], queue: { maxWait: '1s' }, retry: { statuses: [503], baseDelay: '1ms' } },
      {
        telemetry: {
          traces: {
            endpoint: receiver.url,
            headers: { 'x-collector-key': 'topsecretcollector' },
            sample: '0%',
            attributes: { 'deployment.environment.name': 'test' },
          },
        },
        clients: { robot: { keys: [hashKey(KEY)], accounts: ['harness/prod'] } },
      },
    ),
  )
  const send = (id: string, path: string, headers = {}, key = KEY) =>
    call(gateway.url, path, { headers: { 'x-api-key': key, 'x-correlation-id': id, ...headers } })

  await send('sampled', `${READ}?flaky&token=topsecretquery`, { traceparent: SAMPLED, tracestate: 'congo=t61' })
  await send('unsampled', READ, { traceparent: UNSAMPLED })
  await send('root', READ)
  await send('missing', `${READ}?missing`, { traceparent: UNSAMPLED })
  await send('down', `${READ}?down`)
  await send('spent', READ)
  await send('wrong', READ, {}, 'slk_topsecretguess')
  const metrics = await gateway.metrics()
  await gateway.stop()

  const all = receiver.spans
  const own = new Map(all.filter(isOwn).map((span) => [span.attributes['sluice.correlation_id'], span]))
  const attemptsOf = (id: string): ReceivedSpan[] =>
    all.filter(({ parentSpanId }) => parentSpanId === own.get(id)?.spanId).toSorted(byStart)

  expect([...own.keys()].map(String).toSorted()).toEqual(['down', 'missing', 'sampled', 'spent', 'wrong'])
  expect(all).toHaveLength(5 + 2 + 1 + 1)
  expect(new Set(all.map((span) => span.of['service.name']))).toEqual(new Set(['sluice']))
  expect(all[0]!.of).toMatchObject({ 'deployment.environment.name': 'test', 'service.instance.id': expect.any(String) })
  expect(receiver.headers.every((fields) => fields['x-collector-key'] === 'topsecretcollector')).toBe(true)

  // A call that comes with a trace, and its two attempts.
  const sampled = own.get('sampled')!
  expect(sampled).toMatchObject({
    traceId: TRACE,
    parentSpanId: PARENT,
    traceState: 'congo=t61',
    name: 'GET /agents/api/v1/agents/{agentIdentifier}',
    kind: 'SPAN_KIND_SERVER',
    attributes: {
      'http.request.method': 'GET',
      'http.route': '/agents/api/v1/agents/{agentIdentifier}',
      'http.response.status_code': 200,
      'url.path': READ,
      'url.scheme': 'http',
      'server.address': '127.0.0.1',
      'network.protocol.version': '1.1',
      'sluice.client': 'robot',
      'sluice.upstream': 'harness',
      'sluice.account': 'prod',
      'sluice.class': 'read',
      'sluice.outcome': 'delivered',
      'sluice.attempts': 2,
      'sluice.sampled_by': 'parent',
    },
    events: [{ name: 'sluice.quota', attributes: { 'sluice.limit': 'read 24h', 'sluice.limit.used': 2 } }],
  })
  expect(sampled.status?.code ?? 'STATUS_CODE_UNSET').toBe('STATUS_CODE_UNSET')
  const [first, second] = attemptsOf('sampled')
  const target = new URL(upstream.url)
  expect(first).toMatchObject({
    traceId: TRACE,
    kind: 'SPAN_KIND_CLIENT',
    status: { code: 'STATUS_CODE_ERROR' },
    attributes: {
      'http.request.method': 'GET',
      'http.response.status_code': 503,
      'error.type': '503',
      'url.full': `${upstream.url}/agents/api/v1/agents/a1`,
      'server.address': target.hostname,
      'server.port': Number(target.port),
      'sluice.attempt.end': 'retried',
      'sluice.credential': 'harness/prod',
      'sluice.upstream_request_id': 'vendor-1',
    },
  })
  expect(first!.attributes).not.toHaveProperty('http.request.resend_count')
  expect(second!.attributes).toMatchObject({ 'http.request.resend_count': 1, 'http.response.status_code': 200 })
  for (const span of [first!, second!]) {
    expect(BigInt(span.startTimeUnixNano)).toBeGreaterThanOrEqual(BigInt(sampled.startTimeUnixNano))
    expect(BigInt(span.endTimeUnixNano)).toBeGreaterThanOrEqual(BigInt(span.startTimeUnixNano))
  }

  // What the vendor gets, where traces may leave the house, is the attempt as its parent.
  expect(upstream.seen.slice(0, 2).map(({ headers }) => headers.traceparent)).toEqual(
    [first!, second!].map(({ spanId }) => `00-${TRACE}-${spanId}-01`),
  )
  expect(upstream.seen[0]!.headers['tracestate']).toBe('congo=t61')
  expect(upstream.seen[2]!.headers.traceparent).toMatch(new RegExp(`^00-${TRACE}-(?!${PARENT})[\\da-f]{16}-00$`))
  expect(upstream.seen[3]!.headers.traceparent).toMatch(/^00-(?!0af7)[\da-f]{32}-[\da-f]{16}-00$/)

  // Failures are kept, whatever was decided before.
  expect(own.get('missing')).toMatchObject({ traceId: TRACE, attributes: { 'sluice.sampled_by': 'failure' } })
  expect(own.get('down')).toMatchObject({
    status: { code: 'STATUS_CODE_ERROR' },
    attributes: { 'error.type': '500', 'sluice.sampled_by': 'failure' },
  })
  expect(own.get('down')!.parentSpanId ?? '').toBe('')
  // The window is spent, and its end is further away than the call may wait.
  expect(own.get('spent')).toMatchObject({
    attributes: {
      'http.response.status_code': 429,
      'sluice.outcome': 'quota_exhausted',
      'sluice.held_by': 'read 24h',
      'sluice.attempts': 0,
    },
  })
  expect(own.get('spent')!.events!.map(({ name }) => name)).toEqual([
    'sluice.queue.enter',
    'sluice.queue.leave',
    'sluice.quota',
  ])
  expect(own.get('wrong')).toMatchObject({ attributes: { 'sluice.outcome': 'unauthenticated' } })

  // Nothing in them is a secret.
  expect(JSON.stringify(all)).not.toContain('topsecret')
  expect(JSON.stringify(all)).not.toContain(TOKEN)

  // Log lines and exemplars lead to what was exported.
  const lines = new Map(gateway.lines.map((line) => [line.correlationId, line.traceId]))
  for (const [id, span] of own) expect(lines.get(String(id))).toBe(span.traceId)
  expect(lines.get('unsampled')).toBe(TRACE)
  expect(lines.get('root')).toBeUndefined()
  expect(metrics).toContain(`correlation_id="spent",trace_id="${own.get('spent')!.traceId}"`)
  expect(metrics).not.toMatch(/correlation_id="(?:root|unsampled)",trace_id/)
})

function isOwn({ kind }: ReceivedSpan): boolean {
  return kind === 'SPAN_KIND_SERVER'
}

function byStart(a: ReceivedSpan, b: ReceivedSpan): number {
  return Number(BigInt(a.startTimeUnixNano) - BigInt(b.startTimeUnixNano))
}
