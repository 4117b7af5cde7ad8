import type { ChildProcess } from 'node:child_process'
import { request as httpRequest } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import type { Random } from '../../src/time/clock.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { findRedis, type FoundRedis, startRedisServer } from '../support/find-redis.ts'
import { hasProgram } from '../support/packages.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { Stillness } from '../support/stillness.ts'
import { makeCall, startFaultUpstream } from '../system/faults/calls.ts'
import { KINDS } from '../system/faults/table.ts'
import type { CallRecord } from './records.ts'
import { startSoakedGateway } from './soaked-gateway.ts'
import { type Met, pick, Weather } from './weather.ts'

export interface SoakOptions {
  /** At least. */
  readonly ms: number
  /** If given, it goes on until this is so, for three minutes at most. */
  isEnough?(records: readonly CallRecord[]): boolean
  readonly seed: number
  /** Calls begun in a second. */
  readonly rate: number
  /** How often the memory is looked at. */
  readonly sampleMs: number
  onSample?(sample: Sample): void
}

export interface Sample {
  readonly atMs: number
  readonly rssBytes: number
  readonly calls: number
}

export interface SoakResult {
  readonly samples: readonly Sample[]
  readonly records: readonly CallRecord[]
  /** Calls whose end may never be: a hang, or half an answer that looks whole. */
  readonly wrong: readonly string[]
  /** POSTs that reached the upstream more than once. */
  readonly retriedPosts: number
  readonly faults: { readonly upstream: number; readonly store: number }
  /** What is still held after the last call has ended, by the gateway's own metrics; each must be 0. */
  readonly left: Readonly<Record<string, number>>
  /** What the process wrote to its error output: where an unhandled rejection would stand. */
  readonly stderr: string
}

/** Of the clients, those that go away in the middle. */
const LEAVING_SHARE = 0.1
const MOST_EXTRA_MS = 180_000
/** Half of the shortest timeout: less is mere lateness. */
const STILL_MS = 500

/**
 * Lets a gateway process serve calls of all kinds while its lines to the upstream and to Redis fail by turns, and clients
 * leave at random; then lets everything end, and counts what is left.
 */
export async function runSoak(options: SoakOptions): Promise<SoakResult> {
  await using stack = new AsyncDisposableStack()
  const { ms, seed, rate, sampleMs } = options
  const random = seededRandom(seed)
  // Its own if it can be: what others ask of a shared one makes it late.
  const redis: FoundRedis & { child?: ChildProcess } = await (
    hasProgram('redis-server') ? startRedisServer : findRedis
  )()
  stack.defer(() => redis.stop())
  const upstream = await startFaultUpstream()
  stack.defer(() => upstream.stop())
  const toUpstream = await FaultProxy.start({ target: upstream.url, seed })
  stack.defer(() => toUpstream.stop())
  const toStore = await FaultProxy.start({ target: redis.url, seed })
  stack.defer(() => toStore.stop())
  const gateway = await startSoakedGateway(configFor(toUpstream.url, toStore.url, rate))
  stack.defer(() => gateway.stop())

  const calls: Omit<CallRecord, keyof Met>[] = []
  const wrong: string[] = []
  const startedAt = performance.now()
  const elapsed = (): number => performance.now() - startedAt
  const pids = [gateway.pid, redis.child?.pid].filter((pid) => pid !== undefined)
  const stillness = stack.use(new Stillness(STILL_MS, elapsed, pids))
  // Of its own chance, so that how many calls there were until then changes nothing.
  const weather = new Weather(toUpstream, toStore, stillness, seededRandom(seed + 1))
  // Only now, because that something stood still is known after the calls that felt it have ended.
  const records = (): CallRecord[] => calls.map((call) => ({ ...call, ...weather.met(call.began, call.ended) }))
  const one = async (number: number): Promise<void> => {
    const kind = pick(KINDS, random)!
    const isLeaving = random() < LEAVING_SHARE
    // What leaves is a GET, which may be retried, whatever the kind would have been.
    const path = `/x/${isLeaving ? 'left' : kind.replaceAll(' ', '-')}/${number}`
    const began = elapsed()
    const seen = isLeaving ? await leave(`${gateway.url}${path}`, random) : await makeCall(kind, gateway.url + path)
    const ended = elapsed()
    const end = seen.kind === 'refused' ? seen.error : seen.kind
    calls.push({ kind: isLeaving ? 'left' : kind, end, began, ended })
    if (seen.kind !== 'wrong') return
    // Its line may come a little later than its end.
    await pause(500)
    wrong.push(`${path}: ${seen.why}; ${gateway.lineOf(path)}`)
  }

  await one(0)
  await pause(1_000)
  const idleTimers = await gateway.read('nodejs_active_resources{type="Timeout"}')
  const samples: Sample[] = []
  const underWay = new Set<Promise<void>>()
  const until = elapsed() + ms
  const isOver = (atMs: number): boolean => {
    // A bad spell that has begun lasts until it is no longer felt, so that it is judged as all others are.
    if (atMs < until || !weather.isClear(atMs)) return false
    if (atMs > until + MOST_EXTRA_MS) {
      const seconds = [stillness.ms, atMs].map((one) => (one / 1_000).toFixed(1))
      throw new Error(`too few calls to judge: the machine stood still for ${seconds[0]} of ${seconds[1]} s`)
    }
    return options.isEnough?.(records()) ?? true
  }
  let number = 1
  let nextSampleMs = 0
  for (let atMs = elapsed(); !isOver(atMs) && gateway.end === undefined; atMs = elapsed()) {
    weather.turn(atMs)
    const call = one(number++).finally(() => underWay.delete(call))
    underWay.add(call)
    if (atMs >= nextSampleMs) {
      const sample = { atMs, rssBytes: gateway.rss(), calls: number - 1 }
      samples.push(sample)
      options.onSample?.(sample)
      nextSampleMs = atMs + sampleMs
    }
    // Neither in step nor faster than one after another.
    await pause((random() * 2_000) / rate)
  }
  weather.clear()
  await Promise.all(underWay)
  if (gateway.end !== undefined) throw new Error(`the gateway ended under ${weather.told}: ${gateway.end}`)
  const faults = { upstream: toUpstream.faults, store: toStore.faults }
  // What stalled is still open on our side of the line; the gateway must have let go of it by itself.
  const left = await gateway.rest(idleTimers)
  samples.push({ atMs: elapsed(), rssBytes: gateway.rss(), calls: number - 1 })
  let retriedPosts = 0
  for (const [path, times] of upstream.arrivals) if (path.startsWith('/POST/') && times > 1) retriedPosts++
  return { samples, records: records(), wrong, retriedPosts, faults, left, stderr: gateway.stderr }
}

/** A client that goes away in the middle. */
async function leave(url: string, random: Random): Promise<{ kind: 'left' }> {
  const outgoing = httpRequest(url, { agent: false, headers: { accept: 'text/event-stream' } })
  outgoing.on('error', () => undefined).on('response', (response) => response.on('error', () => undefined).resume())
  outgoing.end()
  await pause(random() * 60)
  outgoing.destroy()
  return { kind: 'left' }
}

/**
 * Quota for somewhat more than comes, so that calls wait now and then and few in vain; times short enough to see what hangs, and
 * longer than a busy machine makes a process wait.
 * Within one window a gateway without Redis has no more than its lease, so the windows are longer than the outages.
 */
function configFor(upstream: string, store: string, rate: number): object {
  return {
    server: { port: 0 },
    admin: { port: 0 },
    store: { kind: 'redis', url: store, prefix: `soak-${process.pid}`, commandTimeout: '1s' },
    upstreams: {
      x: {
        url: upstream,
        accounts: { main: {} },
        limits: {
          all: [{ concurrent: rate * 4 }],
          read: [{ requests: rate * 8, window: '10s' }],
          write: [{ requests: rate * 3, window: '1s' }],
        },
        queue: { maxWait: '2s', maxWaiting: rate * 2 },
        retry: { retries: 2, baseDelay: '20ms', maxDelay: '100ms' },
        breaker: { failures: 8, reset: '500ms', maxReset: '1s' },
        timeouts: { headers: '3s', idle: '3s', total: '15s' },
        maxWebSockets: rate * 2,
        connections: rate * 2,
      },
    },
  }
}
