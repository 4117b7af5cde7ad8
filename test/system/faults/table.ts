import type { Fault } from '../../support/fault-proxy.ts'

/** Kinds of calls, each with what it has the others have not. */
export const KINDS = ['GET', 'streamed PUT', 'replayable PUT', 'POST', 'SSE', 'WebSocket'] as const
export type Kind = (typeof KINDS)[number]

/** What becomes of a call; the README's table has the same words. */
export type Fate =
  /** A whole answer of the upstream, which was asked once. */
  | 'answered'
  /** The same, at the second attempt: the upstream may have seen the first one. */
  | 'retried'
  /** A whole refusal of the gateway, of that kind. */
  | 'unreachable'
  | 'interrupted'
  | 'timeout'
  | 'store_unavailable'
  /** The connection breaks in the middle of the answer. */
  | 'broken off'
  /** The gateway closes the WebSocket with 1001. */
  | 'closed'

export interface Row {
  readonly name: string
  /** Undefined where nobody listens at all. */
  readonly fault: Fault | undefined
  /** Whether the first attempt reaches the upstream. */
  readonly arrives: boolean
  readonly fates: Readonly<Record<Kind, Fate>>
}

function row(name: string, fault: Fault | undefined, fates: readonly Fate[], arrives = true): Row {
  return { name, fault, arrives, fates: Object.fromEntries(KINDS.map((kind, i) => [kind, fates[i]])) as Row['fates'] }
}

/** The same for all kinds. */
function all(fate: Fate): Fate[] {
  return KINDS.map(() => fate)
}

// No answer was begun, so what may be sent twice is; the body of a streamed PUT is gone, and a POST may have been done.
const RETRIED_IF_SAFE: Fate[] = ['retried', 'interrupted', 'retried', 'interrupted', 'retried', 'retried']
// To a WebSocket it can be said, behind a whole frame.
const SILENT: Fate[] = ['broken off', 'broken off', 'broken off', 'broken off', 'broken off', 'closed']

/** The first exchange of a call has the fault, the second has none. */
export const UPSTREAM_FAULTS: readonly Row[] = [
  row('nobody listens', undefined, all('unreachable'), false),
  row('latency and jitter', { kind: 'latency', ms: 20, jitterMs: 30 }, all('answered')),
  row('reset before the request arrives', { kind: 'refuse' }, RETRIED_IF_SAFE, false),
  row('reset before the headers', { kind: 'reset', at: 'before-headers' }, RETRIED_IF_SAFE),
  row('reset after the headers', { kind: 'reset', at: 'after-headers' }, all('broken off')),
  row('reset in mid-body', { kind: 'reset', at: 'mid-body' }, all('broken off')),
  row('half-close before the headers', { kind: 'half-close', at: 'before-headers' }, RETRIED_IF_SAFE),
  row('half-close after the headers', { kind: 'half-close', at: 'after-headers' }, all('broken off')),
  row('half-close in mid-body', { kind: 'half-close', at: 'mid-body' }, all('broken off')),
  row('stall before the headers', { kind: 'stall', at: 'before-headers' }, all('timeout')),
  row('stall after the headers', { kind: 'stall', at: 'after-headers' }, SILENT),
  // In the middle of a frame there is no place for a Close.
  row('stall in mid-body', { kind: 'stall', at: 'mid-body' }, all('broken off')),
  row('the request is not read', { kind: 'stall', at: 'request' }, [
    'answered',
    'timeout',
    'timeout',
    'timeout',
    'answered',
    'closed',
  ]),
  row('slow drip', { kind: 'drip', bytes: 40, everyMs: 5 }, all('answered')),
  row('garbage for an answer', { kind: 'garbage', at: 'before-headers' }, RETRIED_IF_SAFE),
  row('garbage in mid-body', { kind: 'garbage', at: 'mid-body' }, all('broken off')),
  row('oversized headers', { kind: 'oversized-headers', bytes: 100_000 }, all('interrupted')),
]

export interface StoreRow {
  readonly name: string
  readonly fault: Fault
  /** By `store.onOutage`; the same for all kinds of calls. */
  readonly fates: Readonly<Record<'lease' | 'closed', Fate>>
}

const ALWAYS_ANSWERED = { lease: 'answered', closed: 'answered' } as const
const AWAY = { lease: 'answered', closed: 'store_unavailable' } as const

/** Every exchange with Redis has the fault. */
export const STORE_FAULTS: readonly StoreRow[] = [
  { name: 'latency and jitter', fault: { kind: 'latency', ms: 20, jitterMs: 30 }, fates: ALWAYS_ANSWERED },
  { name: 'latency above commandTimeout', fault: { kind: 'latency', ms: 4_000 }, fates: AWAY },
  { name: 'reset before the command arrives', fault: { kind: 'refuse' }, fates: AWAY },
  { name: 'reset before the answer', fault: { kind: 'reset', at: 'before-headers' }, fates: AWAY },
  { name: 'reset behind its first line', fault: { kind: 'reset', at: 'after-headers' }, fates: AWAY },
  { name: 'reset in its middle', fault: { kind: 'reset', at: 'mid-body' }, fates: AWAY },
  { name: 'half-close before the answer', fault: { kind: 'half-close', at: 'before-headers' }, fates: AWAY },
  { name: 'half-close in its middle', fault: { kind: 'half-close', at: 'mid-body' }, fates: AWAY },
  { name: 'stall before the answer', fault: { kind: 'stall', at: 'before-headers' }, fates: AWAY },
  { name: 'stall in its middle', fault: { kind: 'stall', at: 'mid-body' }, fates: AWAY },
  { name: 'commands are not read', fault: { kind: 'stall', at: 'request' }, fates: AWAY },
  { name: 'slow drip', fault: { kind: 'drip', bytes: 200, everyMs: 1 }, fates: ALWAYS_ANSWERED },
  { name: 'garbage for an answer', fault: { kind: 'garbage', at: 'before-headers' }, fates: AWAY },
  { name: 'garbage in its middle', fault: { kind: 'garbage', at: 'mid-body' }, fates: AWAY },
]
