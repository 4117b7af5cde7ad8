import { describe, expect, it } from 'vitest'
import { TraceContext } from '../../src/http/trace-context.ts'

const TRACE = '0af7651916cd43dd8448eb211c80319c'
const PARENT = 'b7ad6b7169203331'
const NONE = { sample: 0, failures: false }
const ALL = { sample: 1, failures: false }

describe('a trace that comes with a call', () => {
  it.each([
    [`00-${TRACE}-${PARENT}-01`, true],
    [`00-${TRACE}-${PARENT}-00`, false],
    // Other flags than "sampled" mean nothing here.
    [`00-${TRACE}-${PARENT}-03`, true],
    [`00-${TRACE}-${PARENT}-02`, false],
    // Of a later version what is known of it is read (§3.2.4).
    [`cc-${TRACE}-${PARENT}-01`, true],
    [`cc-${TRACE}-${PARENT}-01-what-the-future-will-be-like`, true],
  ])('goes on, sampled as it was: %s', (traceparent, isSampled) => {
    for (const rule of [NONE, ALL]) {
      const trace = new TraceContext({ traceparent, tracestate: 'congo=t61' }, rule)
      expect(trace).toMatchObject({ traceId: TRACE, isSampled, parent: { spanId: PARENT, state: 'congo=t61' } })
      expect(trace.traceparent(1)).toBe(`00-${TRACE}-${trace.spanId(1)}-${isSampled ? '01' : '00'}`)
    }
  })

  it.each([
    '',
    'nonsense',
    `00-${TRACE}-${PARENT}`,
    `00-${TRACE}-${PARENT}-01-more`,
    `ff-${TRACE}-${PARENT}-01`,
    `00-${'0'.repeat(32)}-${PARENT}-01`,
    `00-${TRACE}-${'0'.repeat(16)}-01`,
    `00-${TRACE.toUpperCase()}-${PARENT}-01`,
    `00-${TRACE}-${PARENT}-01, 00-${TRACE}-${PARENT}-01`,
    `cc-${TRACE}-${PARENT}-01.more`,
    `cc-${TRACE}-${PARENT}-01-more, 00-${TRACE}-${PARENT}-01`,
    ` 00-${TRACE}-${PARENT}-01\n`,
  ])('is none if it is malformed, and then its tracestate is none, too: %j', (traceparent) => {
    const trace = new TraceContext({ traceparent, tracestate: 'congo=t61' }, NONE)
    expect(trace).toMatchObject({ parent: undefined, isSampled: false })
    expect(trace.traceId).not.toBe(TRACE)
  })
})

describe('a trace that begins with a call', () => {
  it('is sampled at the ratio, by its own id', () => {
    const traces = Array.from({ length: 10_000 }, () => new TraceContext({}, { sample: 0.25, failures: true }))
    const share = traces.filter(({ isSampled }) => isSampled).length / traces.length
    // Eight standard deviations.
    expect(Math.abs(share - 0.25)).toBeLessThan(0.035)
    for (const { traceId, isSampled } of traces) expect(isSampled).toBe(traceId.slice(18) >= 'c0000000000000')
    expect(traces.every((trace) => !new TraceContext({}, NONE).isSampled && trace.isKept(true))).toBe(true)
    expect(new TraceContext({}, ALL).isSampled).toBe(true)
  })

  it('has ids of its own, and another for each attempt', () => {
    const traces = Array.from({ length: 1_000 }, () => new TraceContext({}, ALL))
    const ids = traces.flatMap((trace) => [0, 1, 2, 3].map((number) => trace.spanId(number)))
    expect(ids.every((id) => /^[\da-f]{16}$/.test(id))).toBe(true)
    expect(new Set(ids).size).toBe(4_000)
    expect(new Set(traces.map(({ traceId }) => traceId)).size).toBe(1_000)
  })
})
