import { createRequire } from 'node:module'
import { onTestFinished } from 'vitest'

/**
 * Elastic's receiver of OTLP, which shares no code with the gateway's exporter: it decodes by the protobuf definitions of
 * https://github.com/open-telemetry/opentelemetry-proto. All receivers of a process hear what any of them receives.
 */
const { MockOtlpServer, normalizeTrace } = createRequire(import.meta.url)('@elastic/mockotlpserver') as {
  MockOtlpServer: new (options: object) => { start(): Promise<void>; close(): Promise<void>; readonly httpUrl: URL }
  normalizeTrace(trace: unknown): { resourceSpans: { resource: Attributed; scopeSpans: { spans: RawSpan[] }[] }[] }
}

interface Attributed {
  readonly attributes: Readonly<Record<string, unknown>>
}

interface RawSpan extends Partial<Attributed> {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly traceState?: string
  readonly name: string
  readonly kind: string
  readonly startTimeUnixNano: string
  readonly endTimeUnixNano: string
  readonly events?: readonly ({ readonly name: string; readonly timeUnixNano: string } & Attributed)[]
  readonly status?: { readonly code?: string; readonly message?: string }
}

export interface ReceivedSpan extends Omit<RawSpan, 'attributes'>, Attributed {
  /** Of the resource. */
  readonly of: Attributed['attributes']
}

export interface OtlpReceiver {
  readonly url: string
  readonly spans: ReceivedSpan[]
  /** The headers of each export. */
  readonly headers: Readonly<Record<string, string>>[]
  /** Resolves when there are that many spans. */
  until(count: number): Promise<void>
}

export async function startReceiver(): Promise<OtlpReceiver> {
  const spans: ReceivedSpan[] = []
  const headers: Readonly<Record<string, string>>[] = []
  let wake = (): void => undefined
  const server = new MockOtlpServer({
    logLevel: 'fatal',
    services: ['http'],
    httpHostname: '127.0.0.1',
    httpPort: 0,
    onRequest: (request: { headers: Readonly<Record<string, string>> }) => headers.push(request.headers),
    onTrace(trace: unknown) {
      for (const { resource, scopeSpans } of normalizeTrace(trace).resourceSpans)
        for (const span of scopeSpans.flatMap((scope) => scope.spans))
          spans.push({ attributes: {}, ...span, of: resource.attributes })
      wake()
    },
  })
  await server.start()
  onTestFinished(() => server.close())
  const until = async (count: number): Promise<void> => {
    while (spans.length < count) await new Promise<void>((resolve) => (wake = resolve))
  }
  return { url: new URL(server.httpUrl).origin, spans, headers, until }
}
