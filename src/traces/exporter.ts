import { ROOT_CONTEXT, SpanKind, SpanStatusCode, createTraceState, trace as api } from '@opentelemetry/api'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto'
import * as resources from '@opentelemetry/resources'
import { AlwaysOnSampler, BatchSpanProcessor, type SpanExporter, TracerProvider } from '@opentelemetry/sdk-trace'
import { manifest } from '../manifest.ts'
import { whyNoHeaderValue } from '../http/fields.ts'
import type { TraceContext } from '../http/trace-context.ts'
import type { TracesConfig } from '../schema/schema.ts'
import type { CallSpan } from './spans.ts'

export type Export = ReturnType<typeof openExport>

export interface ExportParts {
  readonly config: TracesConfig
  /** Tells this process from all others. */
  readonly instanceId: string
  /** Spans were taken, or got lost because of an error, or, without one, because too many waited. */
  onTaken(): void
  onDropped(spans: number, error: Error | undefined): void
  /** Something of the environment can not be used. */
  onProblem(message: string): void
}

/** The most spans that wait, of all calls together. More would wait only if the collector is slow or away. */
const MOST_WAITING = 4_096
const IN_ONE_EXPORT = 512
const EXPORT_EVERY_MS = 1_000
/** `ExportResultCode`, which the SDK has in a package of its own. */
const TAKEN = 0
const FAILED = 1

/**
 * Makes spans of what calls have left, and exports them by OpenTelemetry's SDK. This file loads the SDK, so it is imported only
 * when it is used. The function is longer than a screen, because its parts share the number of spans that wait and the ids of the
 * span that is being made.
 */
export function openExport({ config, instanceId, onTaken, onDropped, onProblem }: ExportParts) {
  for (const value of Object.values(config.headers)) value.whyNot = whyNoHeaderValue
  let waiting = 0
  const exporter = new OTLPTraceExporter({
    headers: () => Promise.resolve(revealed(config)),
    timeoutMillis: config.timeout,
    url: config.endpoint === undefined ? urlOfEnvironment(onProblem) : withPath(config.endpoint),
  })
  const counting: SpanExporter = {
    export(spans, report) {
      waiting -= spans.length
      let isOver = false
      const end: typeof report = (result) => {
        if (isOver) return
        isOver = true
        clearTimeout(timer)
        const code: number = result.code
        if (code === TAKEN) onTaken()
        else onDropped(spans.length, reasonOf(result.error))
        report(result)
      }
      // The exporter's own timeout is one of silence, so an answer that trickles in would never be over.
      const timer = setTimeout(() => end({ code: FAILED, error: new Error('no answer in time') }), config.timeout)
      timer.unref()
      exporter.export(spans, end)
    },
    shutdown: () => exporter.shutdown(),
  }
  const ids = { generateTraceId: () => traceId, generateSpanId: () => spanId }
  let traceId = ''
  let spanId = ''
  const provider = new TracerProvider({
    resource: resourceOf(config, instanceId),
    // Whether a call is exported was decided before it comes here.
    sampler: new AlwaysOnSampler(),
    idGenerator: ids,
    spanProcessors: [
      new BatchSpanProcessor({
        exporter: counting,
        maxQueueSize: MOST_WAITING,
        maxExportBatchSize: IN_ONE_EXPORT,
        scheduledDelayMillis: EXPORT_EVERY_MS,
        // Longer than that of `counting`, which says what failed.
        exportTimeoutMillis: config.timeout + 1_000,
      }),
    ],
  })
  const tracer = provider.getTracer('sluice', manifest.version)
  return {
    /** Hands on the spans of a call; all of them, or none if too many wait. */
    add(trace: TraceContext, spans: readonly CallSpan[]): void {
      if (waiting + spans.length > MOST_WAITING) return onDropped(spans.length, undefined)
      waiting += spans.length
      let parent = parentOf(trace)
      for (const { number, kind, name, startMs, endMs, attributes, events, error } of spans) {
        traceId = trace.traceId
        spanId = trace.spanId(number)
        const options = { kind: KINDS[kind], startTime: startMs, attributes }
        const span = tracer.startSpan(name, options, parent)
        for (const event of events) span.addEvent(event.name, event.attributes, event.atMs)
        if (error !== undefined) {
          span.setAttribute('error.type', error.type)
          span.setStatus({
            code: SpanStatusCode.ERROR,
            ...(error.message === undefined ? {} : { message: error.message }),
          })
        }
        span.end(endMs)
        if (number === 0) parent = api.setSpan(ROOT_CONTEXT, span)
      }
    },
    /** Sends what waits, for at most this long. */
    async close(withinMs: number): Promise<void> {
      const { promise: late, resolve } = Promise.withResolvers<void>()
      const timer = setTimeout(resolve, withinMs)
      // What fails is counted where it fails.
      await Promise.race([provider.shutdown().catch(() => undefined), late])
      clearTimeout(timer)
      if (waiting > 0) onDropped(waiting, undefined)
    },
  }
}

/** What the SDK says of a status after which it has tried again in vain. It does not tell the status. */
const TRIED_IN_VAIN = 'Export failed with retryable status'

function reasonOf(error: Error | undefined): Error {
  if (error === undefined) return new Error('the export failed')
  if (error.message !== TRIED_IN_VAIN) return error
  return new Error('the collector answered 429, 502, 503 or 504', { cause: error })
}

const KINDS = { server: SpanKind.SERVER, client: SpanKind.CLIENT } as const

function parentOf({ parent }: TraceContext) {
  if (parent === undefined) return ROOT_CONTEXT
  const { traceId, spanId, isSampled, state } = parent
  return api.setSpanContext(ROOT_CONTEXT, {
    traceId,
    spanId,
    traceFlags: isSampled ? 1 : 0,
    isRemote: true,
    ...(state === undefined ? {} : { traceState: createTraceState(state) }),
  })
}

/** The configuration comes before the environment, and the environment before the name of the program. */
function resourceOf({ attributes }: TracesConfig, instanceId: string): resources.Resource {
  return resources
    .defaultResource()
    .merge(resources.resourceFromAttributes({ 'service.name': 'sluice', 'service.version': manifest.version }))
    .merge(resources.detectResources({ detectors: [resources.envDetector] }))
    .merge(resources.resourceFromAttributes({ ...attributes, 'service.instance.id': instanceId }))
}

/** The SDK reads these, too, but takes what is no URL of HTTP for one, or says nothing. */
function urlOfEnvironment(onProblem: ExportParts['onProblem']): string {
  for (const [name, complete] of VARIABLES) {
    const value = process.env[name]?.trim()
    if (value === undefined || value === '') continue
    if (/^https?:/.test(value) && URL.canParse(value)) return complete(value)
    onProblem(`${name} is no http:// or https:// URL, and is left aside`)
  }
  return withPath('http://localhost:4318')
}

const PATH = '/v1/traces'
const VARIABLES = [
  ['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT', (url: string) => url],
  ['OTEL_EXPORTER_OTLP_ENDPOINT', withPath],
] as const

/** A URL of all signals, or one to which the path has been added already. */
function withPath(endpoint: string): string {
  const base = endpoint.replace(/\/+$/, '')
  return base.endsWith(PATH) ? base : base + PATH
}

/** Anew for each export: a secret may have changed. */
function revealed({ headers }: TracesConfig): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, value.reveal()]))
}
