import type { ServerResponse } from 'node:http'
import { type Answer, call, type CallOptions } from './http.ts'
import { type Seen, startGateway, startUpstream, stores, type TestGateway, type TestUpstream } from './gateway.ts'
import { LOOK_EVERY_MS } from '../../src/ledger/redis/partition-register.ts'
import { RESUME_AFTER_MS } from '../../src/ledger/redis/partition-calls.ts'
import { SimulatedClock } from './simulated-clock.ts'

/** Configurations of the store and the cache: the cache in the process, and in a Redis. */
export const caches = {
  memory: () => ({ store: stores['the embedded store'](), cache: { store: 'memory' } }),
  Redis: () => ({ store: stores.Redis(), cache: { store: 'redis' } }),
}

/** For a connection to Redis and for its answers, as `stores.Redis` has it. */
const ANSWER_WITHIN_MS = 2_000

/** Of calls, and of nothing else that waits. */
export const MAX_WAIT_MS = 12_345

export interface CachedGateway extends TestGateway {
  readonly clock: SimulatedClock
  readonly upstream: TestUpstream
  /** Reads `/api/item`, or another path below the upstream. */
  read(headers?: Record<string, string>, path?: string, options?: CallOptions): Promise<Answer>
}

interface Options {
  readonly kind?: keyof typeof caches
  /** Of the route, besides being cached. */
  readonly cache?: object
  readonly upstream?: object
  readonly rest?: object
  readonly clock?: SimulatedClock
}

/** A gateway before an upstream that answers by `answer`, with one cached route for reads below `/items`. */
export async function startCached(
  answer: (seen: Seen, response: ServerResponse, count: number) => unknown,
  { kind = 'memory', cache = {}, upstream: more = {}, rest = {}, clock = new SimulatedClock() }: Options = {},
): Promise<CachedGateway> {
  let count = 0
  const upstream = await startUpstream((seen, response) => answer(seen, response, ++count))
  const config = {
    server: { port: 0 },
    admin: { port: 0 },
    ...caches[kind](),
    upstreams: {
      api: {
        url: upstream.url,
        accounts: { main: {} },
        // Redis counts quotas by its own clock, which does not go with a simulated one.
        limits: { read: kind === 'Redis' ? [] : [{ requests: 100, window: '60s' }], write: [] },
        routes: [{ method: ['GET', 'HEAD'], path: '/items*', class: 'read', cache }],
        retry: { retries: 0 },
        queue: { maxWait: `${MAX_WAIT_MS}ms` },
        ...more,
      },
    },
    ...rest,
  }
  const gateway = await started(startGateway(config, { clock }), clock)
  const read: CachedGateway['read'] = (headers = {}, path = '/items/1', options = {}) =>
    call(gateway.url, `/api${path}`, { ...options, headers })
  return { ...gateway, clock, upstream, read }
}

/** A gateway whose Redis knows nothing yet waits a moment before it begins, which this clock must let pass. */
async function started<T>(starting: Promise<T>, clock: SimulatedClock): Promise<T> {
  let isOver = false
  const over = (): void => void (isOver = true)
  starting.then(over, over)
  while (!isOver) {
    await new Promise(setImmediate)
    // Not while Redis is connected to or asked: the time that it may take would be over before it could answer.
    const isAsked = clock.waits.some((ms) => ms > RESUME_AFTER_MS && ms <= ANSWER_WITHIN_MS)
    const isWaiting = clock.waits.some((ms) => ms > LOOK_EVERY_MS && ms <= RESUME_AFTER_MS)
    if (isWaiting && !isAsked) await clock.advance(RESUME_AFTER_MS)
  }
  return starting
}

/** Answers that differ each time, with these headers. */
export function counting(headers: Record<string, string | string[]>) {
  return (_: Seen, response: ServerResponse, count: number): unknown =>
    response.writeHead(200, headers).end(`answer ${count}`)
}
