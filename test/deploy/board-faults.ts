import { boardQueries, readBoard, type Target } from './boards.ts'

/** The faults, and other things that happen, by which boards are tried; with the variables that choose what they are about. */
export interface Fault {
  readonly variables: Readonly<Record<string, string>>
  /** It is there only once Redis is gone, after all others. */
  readonly isLast?: boolean
}

const of = (upstream: string): Fault => ({ variables: { upstream } })
const EVERYWHERE: Fault = { variables: {} }

/** What happens at the upstream of that name, or elsewhere. */
export const FAULTS = {
  'calls go through': of('calm'),
  'a client spends a quota': of('tight'),
  'a quota is spent within the hour': of('running'),
  'a queue is long': of('queued'),
  'calls wait for others in flight': of('narrow'),
  'a limit is tried': of('shadow'),
  'others use the quota': of('foreign'),
  'a limit was made smaller': of('shrunk'),
  'the vendor refuses with 429': of('throttled'),
  'the vendor is slow': of('slow'),
  'there are too few connections': of('crowded'),
  'the vendor answers 500': of('broken'),
  'the breaker opens': of('dead'),
  'retries fail': of('retried'),
  'answers are cached': of('cached'),
  'a new credential is refused': of('renewing'),
  'a credential is refused': of('refused'),
  'the vendor repeats a credential': of('scrubbed'),
  'one credential of a pool is refused': of('pooled'),
  'a credential expires': of('expiring'),
  'no token can be had': of('tokenless'),
  'a team spends its budget': { variables: { upstream: 'priced' } },
  'a key expires': { variables: { client: 'aging' } },
  'a certificate expires': EVERYWHERE,
  'a gateway is gone': EVERYWHERE,
  'a tool knows only a proxy': EVERYWHERE,
  'a gateway restarts': EVERYWHERE,
  'a worker is missing': EVERYWHERE,
  'nobody reads a log': EVERYWHERE,
  'Redis is flushed': EVERYWHERE,
  'a wrong configuration': EVERYWHERE,
  'something is wrong': EVERYWHERE,
  'Redis is gone': { variables: {}, isLast: true },
} satisfies Record<string, Fault>

export type FaultName = keyof typeof FAULTS

/** For each panel, by its title, the fault that it is for; where its queries are for different ones, one for each. */
const PANELS: Readonly<Record<string, FaultName | readonly FaultName[]>> = {
  // What is wrong now.
  'Alerts firing': 'something is wrong',
  'Gateways up': 'calls go through',
  'Gateways down': 'a gateway is gone',
  Refused: 'a client spends a quota',
  'Upstream errors': 'the vendor answers 500',
  'Breakers not closed': 'the breaker opens',
  'Quota store': 'Redis is gone',
  'Unexplained 429s': 'the vendor refuses with 429',
  Waiting: 'a queue is long',
  'Quota used': 'a client spends a quota',
  'Runs out in': 'a quota is spent within the hour',
  Burn: 'a client spends a quota',
  'Credentials refused': 'a credential is refused',
  Configuration: 'a wrong configuration',
  'Refusals by kind': 'a client spends a quota',
  'Answers by status': 'the vendor answers 500',
  'Who is refused': 'a client spends a quota',
  'Calls by outcome': 'the vendor is slow',
  'Error budget burn': ['the vendor answers 500', 'no token can be had'],
  Breaker: 'the breaker opens',
  '429s of the upstream': 'the vendor refuses with 429',
  'Attempts by reason': 'retries fail',
  Retries: 'retries fail',
  Timeouts: 'the vendor is slow',
  Credentials: ['a credential is refused', 'no token can be had', 'a new credential is refused'],
  Request: 'the vendor is slow',
  Upstream: 'the vendor is slow',
  'Gateway overhead': 'the vendor is slow',
  'Quota used now': 'a client spends a quota',
  'Queue depth': 'a queue is long',
  'Queue wait': 'a queue is long',

  // What is spent, and what the gateways need.
  'Over-admitted': 'a limit was made smaller',
  Waste: 'calls wait for others in flight',
  'Foreign use': 'others use the quota',
  'Quota used of limit': 'a client spends a quota',
  'Quota used and limit': 'a client spends a quota',
  'Waste: unused while calls waited': 'calls wait for others in flight',
  'Burn ratio': 'a client spends a quota',
  'Time to exhaustion': 'a quota is spent within the hour',
  'Quotas that ran low': 'a client spends a quota',
  'Would be held back': 'a limit is tried',
  'Units spent by client': 'a client spends a quota',
  'Calls that found no quota': 'a client spends a quota',
  'Share against due': 'calls go through',
  'Wait by client': 'a queue is long',
  'Budgets of clients': 'a key expires',
  'Budgets of teams and organisations': 'a team spends its budget',
  'Budgets end in': 'a team spends its budget',
  'Burn of budgets': 'a team spends its budget',
  'Money by client': 'a team spends its budget',
  'Spent by client': 'a client spends a quota',
  'ETA error': 'a queue is long',
  Connections: ['the vendor is slow', 'there are too few connections', 'calls go through'],
  'In flight': ['the vendor is slow', 'calls wait for others in flight'],
  Tunnels: 'a tool knows only a proxy',
  Bytes: 'the vendor answers 500',
  'Cache hit ratio': 'answers are cached',
  'Calls of cached routes': 'answers are cached',
  'Quota saved by the cache': 'answers are cached',
  'Time of the store': 'calls go through',
  'What Redis lost': ['Redis is flushed', 'Redis is gone', 'Redis is gone'],
  CPU: 'calls go through',
  'Event loop': 'calls go through',
  Memory: 'calls go through',
  'Client connections': 'calls go through',
  'Workers missing, and log lines lost': ['a worker is missing', 'nobody reads a log'],
  Reloads: 'a wrong configuration',
  'Webhook messages': 'the breaker opens',
  Versions: 'calls go through',
  'Credentials expire in': 'a credential expires',
  'Client keys expire in': 'a key expires',
  'Certificates expire in': 'a certificate expires',
  'Credentials out of use': ['one credential of a pool is refused', 'the vendor repeats a credential'],

  // What one client sees.
  Calls: 'calls go through',
  'Units spent': 'a client spends a quota',
  'Found no quota': 'a client spends a quota',
  Wait: 'a queue is long',
  'My key expires in': 'a key expires',
  'My share and my due': 'calls go through',
  'My budget': 'a key expires',
  'Money I spend': 'a team spends its budget',
  'Saved by the cache': 'answers are cached',
  'My waits': 'a queue is long',
  'My refusals': 'a client spends a quota',
  'My keys expire in': 'a key expires',
}

/** The same for the marks that all boards have. */
const MARKS: Readonly<Record<string, FaultName>> = {
  Alerts: 'something is wrong',
  Reloads: 'a wrong configuration',
  Restarts: 'a gateway restarts',
  'Breakers opened': 'the breaker opens',
}

/** Where 0 is what tells; and where there is no more to see than that there are none. */
const ZERO_TELLS = new Set(['Configuration'])
const NONE_TELLS = new Set(['Connections C', 'What Redis lost C'])

export interface AskedQuery {
  /** Board, panel and, where it has several queries, its letter. */
  readonly name: string
  readonly target: Target
  readonly fault: FaultName
  /** Whether a value shows the fault. */
  tells(value: number): boolean
}

/** Every query of the boards' panels, and of the marks, with the fault that it is for. Throws for one without. */
export function askedQueries(): AskedQuery[] {
  const marks = readBoard('on-call').annotations.list.flatMap(({ name, expr }) => {
    if (expr === undefined) return []
    const fault = MARKS[name]
    if (fault === undefined) throw new Error(`say for which fault the mark "${name}" is`)
    return [{ name: `mark: ${name}`, target: { refId: 'A', expr }, fault, tells: (value: number) => value !== 0 }]
  })
  const queries = boardQueries.map(({ board, panel, target }) => {
    const faults = PANELS[panel]
    const fault = typeof faults === 'object' ? faults[(target.refId.codePointAt(0) ?? 0) - 65] : faults
    if (fault === undefined) throw new Error(`say for which fault ${target.refId} of "${panel}" (${board}) is`)
    const isAny = NONE_TELLS.has(`${panel} ${target.refId}`)
    const tells = (value: number): boolean =>
      Number.isFinite(value) && (isAny || (value === 0) === ZERO_TELLS.has(panel))
    return { name: `${board}: ${panel} ${target.refId}`, target, fault, tells }
  })
  return [...queries, ...marks]
}
