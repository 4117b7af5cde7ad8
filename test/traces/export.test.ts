import { globSync, readFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { expect, it, onTestFinished, vi } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { warningsOf } from '../../src/config/warnings.ts'
import type { Call } from '../../src/gateway/call.ts'
import { TraceContext } from '../../src/http/trace-context.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import type { RequestRecord } from '../../src/requests/story.ts'
import type { TracesConfig } from '../../src/schema/schema.ts'
import { Tracing } from '../../src/traces/tracing.ts'
import { harnessConfig, newFolder, startGateway, startServer, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { startReceiver } from '../support/otlp-receiver.ts'

/** As many spans as go into one export, which therefore begins at once. */
const SPANS = 512
const TRACE = new TraceContext({}, { sample: 1, failures: true })

it('says once that a collector takes no spans, counts what it lost, and says when it takes them again', async () => {
  let status = 400
  const collector = await startCollector((response) => {
    response.statusCode = status
    response.end('topsecret, repeated by the collector')
  })
  const { tracing, said, lost, endCall } = await startTracing(collector.url)
  endCall()
  await vi.waitUntil(() => lost() === SPANS)
  endCall()
  await vi.waitUntil(() => lost() === 2 * SPANS)
  status = 200
  endCall()
  await vi.waitUntil(() => said.length === 2)
  expect(said).toEqual([
    ['warn', { error: 'Bad Request', code: 400 }, 'spans can not be exported, and are dropped until they can'],
    ['info', 'spans are exported again'],
  ])
  expect(lost()).toBe(2 * SPANS)
  await tracing.close(60_000)
})

it('says what the collector answers where the SDK tells no status', async () => {
  const collector = await startCollector((response) => {
    // Longer than an export may take, so that it is not tried again.
    response.writeHead(503, { 'retry-after': '60' }).end()
  })
  const { said, lost, endCall } = await startTracing(collector.url)
  endCall()
  await vi.waitUntil(() => lost() === SPANS)
  const error = 'the collector answered 429, 502, 503 or 504'
  expect(said).toEqual([['warn', { error, code: undefined }, expect.stringMatching(/^spans can not be exported/)]])
})

it('counts and says what is lost because an answer trickles in for longer than an export may take, once', async () => {
  const collector = await startCollector((response) => void response.writeHead(200, { 'content-length': '100' }))
  const { said, lost, endCall } = await startTracing(collector.url, { timeout: '300ms' })
  endCall()
  await vi.waitUntil(() => collector.answers.length === 1)
  const trickle = setInterval(() => collector.answers[0]!.write('x'), 50)
  onTestFinished(() => clearInterval(trickle))
  await expect.poll(lost).toBe(SPANS)
  clearInterval(trickle)
  collector.answers[0]!.destroy()
  endCall()
  await vi.waitUntil(() => collector.answers.length === 2)
  expect(lost()).toBe(SPANS)
  expect(said).toEqual([
    ['warn', { error: 'no answer in time', code: undefined }, expect.stringMatching(/^spans can not be exported/)],
  ])
})

it('blames no new collector after a reload for spans that the old one does not take', async () => {
  const [old, next] = [await startCollector(() => undefined), await startCollector((response) => response.end())]
  const { tracing, said, lost, endCall, apply } = await startTracing(old.url)
  endCall()
  await vi.waitUntil(() => old.answers.length === 1)
  await apply(next.url)
  old.answers[0]!.writeHead(400).end()
  await vi.waitUntil(() => lost() === SPANS)
  endCall()
  await vi.waitUntil(() => next.answers.length === 1)
  await tracing.close(60_000)
  expect(said).toEqual([])
})

it('keeps a bounded number of spans for a collector that does not answer, and waits for it no longer than it may', async () => {
  const collector = await startCollector(() => undefined)
  const { tracing, lost, endCall } = await startTracing(collector.url)
  for (let exports = 0; exports < 20; exports++) endCall()
  await vi.waitUntil(() => collector.answers.length > 0)
  // One is under way, and eight wait.
  expect(lost()).toBe(11 * SPANS)
  await tracing.close(1)
  expect(collector.answers.length).toBeLessThan(20)
})

it('goes on, off, and elsewhere by a reload, with the secret of the configuration in force', async () => {
  const receiver = await startReceiver()
  const upstream = await startUpstream()
  const store = { dir: newFolder() }
  const wanted = (traces?: object): object =>
    harnessConfig(upstream.url, {}, { store, telemetry: traces ? { traces } : {} })
  const gateway = await startGateway(wanted())
  const send = () => call(gateway.url, '/harness/ng/api/projects')
  await send()
  const at = (path: string, key: string): object =>
    wanted({ endpoint: `${receiver.url}${path}`, headers: { 'X-Key': key } })
  expect(await gateway.reloadWith(at('/', 'one'))).toMatchObject({ result: 'applied', needRestart: [] })
  await send()
  await gateway.reloadWith(at('/v1/traces', 'two'))
  await receiver.until(2)
  await send()
  await gateway.reloadWith(wanted())
  await receiver.until(4)
  await send()
  await gateway.stop()
  expect(receiver.spans).toHaveLength(4)
  expect(receiver.headers.map((fields) => fields['x-key'])).toEqual(['one', 'two'])
  expect(gateway.lines.map(({ traceId }) => traceId !== undefined)).toEqual([false, true, true, false])
})

it('goes where the environment says, and is named so, where the configuration says nothing', async () => {
  const receiver = await startReceiver()
  onTestFinished(() => void vi.unstubAllEnvs())
  vi.stubEnv('OTEL_EXPORTER_OTLP_ENDPOINT', receiver.url)
  vi.stubEnv('OTEL_EXPORTER_OTLP_HEADERS', 'x-from=environment')
  vi.stubEnv('OTEL_RESOURCE_ATTRIBUTES', 'team=platform,service.instance.id=shared')
  vi.stubEnv('OTEL_SERVICE_NAME', 'egress')
  const { endCall } = await startTracing(undefined, { attributes: { team: 'data' } })
  endCall()
  await receiver.until(SPANS)
  expect(receiver.spans[0]!.of).toMatchObject({
    team: 'data',
    'service.name': 'egress',
    'service.instance.id': 'test',
  })
  expect(receiver.headers[0]).toMatchObject({ 'x-from': 'environment' })
})

it('says that an address of the environment is none', async () => {
  onTestFinished(() => void vi.unstubAllEnvs())
  vi.stubEnv('OTEL_EXPORTER_OTLP_ENDPOINT', 'collector:4318/topsecret')
  const { said } = await startTracing(undefined)
  expect(said).toEqual([['warn', 'OTEL_EXPORTER_OTLP_ENDPOINT is no http:// or https:// URL, and is left aside']])
})

it.each([
  ['http://collector:4318', ['telemetry.traces.endpoint is http://, so its headers travel unencrypted']],
  ['http://127.0.0.1:4318', []],
  ['https://collector:4318', []],
])('warns of headers that travel unencrypted to another machine: %s', (endpoint, warnings) => {
  const telemetry = { traces: { endpoint, headers: { 'x-key': 'topsecret' } } }
  expect(warningsOf(checkConfig(harnessConfig('http://127.0.0.1', {}, { telemetry }), 'test'))).toEqual(warnings)
})

it('takes no new value of a header that no header can hold', async () => {
  const headers = { 'x-key': 'right' }
  const { config } = await startTracing('http://127.0.0.1:1', { headers })
  expect(config()!.headers['x-key']!.whyNot('wrong\n')).toMatch(/^the new value ends with a line end/)
})

it('loads nothing of OpenTelemetry while traces are off', () => {
  const files = globSync('src/**/*.ts').map((file) => ({ file, text: readFileSync(file, 'utf8') }))
  const loading = (from: string): string[] =>
    files
      .filter(({ text }) => new RegExp(`^(?:import|export) (?!type )[^']* from '[^']*${from}`, 'm').test(text))
      .map(({ file }) => file)
  expect(loading('@opentelemetry/')).toEqual(['src/traces/exporter.ts'])
  expect(loading('/exporter\\.ts')).toEqual([])
})

async function startCollector(answer: (response: ServerResponse) => void) {
  const answers: ServerResponse[] = []
  const url = await startServer((request, response) => {
    request.resume().on('end', () => {
      answers.push(response)
      answer(response)
    })
  })
  return { url, answers }
}

async function startTracing(endpoint: string | undefined, more: object = {}) {
  const said: unknown[] = []
  const logger = {
    warn: (...line: unknown[]) => said.push(['warn', ...line]),
    info: (...line: unknown[]) => said.push(['info', ...line]),
  }
  const dropped = new Metrics().spansDropped.of({})
  const tracing = new Tracing({ logger: logger as never, dropped, instanceId: 'test' })
  let config: TracesConfig | undefined
  const apply = async (to: string | undefined): Promise<void> => {
    const traces = { ...more, ...(to === undefined ? {} : { endpoint: to }) }
    const { telemetry } = checkConfig(harnessConfig('http://127.0.0.1', {}, { telemetry: { traces } }), 'test')
    config = telemetry.traces
    tracing.take(await tracing.open(config))
  }
  await apply(endpoint)
  onTestFinished(() => tracing.close(1))
  const ended = endedCall()
  const endCall = (): void => tracing.end(...ended, TRACE)
  return { tracing, said, endCall, apply, config: () => config, lost: () => dropped.values('')[0]!.value }
}

/** A call that was sent so often that its spans fill one export. */
function endedCall(): [Call, RequestRecord] {
  const tries = Array.from({ length: SPANS - 1 }, (_, i) => ({ startedMs: i, ms: 1, status: 200, end: 'delivered' }))
  const upstream = { url: new URL('http://127.0.0.1'), basePath: '' }
  const called = { tries, budgetUsage: [], upstream, prefix: '', request: { httpVersion: '1.1', socket: {} } }
  const line = { correlationId: 'a', method: 'GET', path: '/a', status: '200', outcome: 'delivered', durationMs: 600 }
  return [called as never, { line, at: Date.now(), limits: [] } as never]
}
