import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import type { Random } from '../../src/clock.ts'
import { type Fault, FaultProxy } from '../support/fault-proxy.ts'
import { findRedis } from '../support/find-redis.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { makeCall, startFaultUpstream } from '../system/faults/calls.ts'
import { KINDS, STORE_FAULTS, UPSTREAM_FAULTS } from '../system/faults/table.ts'

export interface SoakOptions {
  readonly ms: number
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
  /** How many calls ended in which way. */
  readonly ends: Readonly<Record<string, number>>
  /** Calls whose end may never be: a hang, or half an answer that looks whole. */
  readonly wrong: readonly string[]
  /** POSTs that reached the upstream more than once. */
  readonly repeatedPosts: number
  readonly faults: { readonly upstream: number; readonly store: number }
  /** What is still held after the last call has ended, by the gateway's own metrics; each must be 0. */
  readonly left: Readonly<Record<string, number>>
  /** What the process wrote to its error output: where an unhandled rejection would stand. */
  readonly stderr: string
  /** Undefined while it runs, as it should to the end. */
  readonly exitCode: number | null
}

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
const LINES_KEPT = 4_000
const FAULTY_SHARE = 0.15
/** The line to Redis is well for a while, then ill for a shorter one. */
const STORE_WELL_MS = 12_000
const STORE_ILL_MS = 3_000
/** By then all timeouts of the configuration below have passed, and idle connections are closed. */
const REST_MS = 30_000

/**
 * Lets a gateway process serve calls of all kinds while its lines to the upstream and to Redis fail at random, and clients
 * leave at random; then lets everything end, and counts what is left.
 */
export async function runSoak(options: SoakOptions): Promise<SoakResult> {
  await using stack = new AsyncDisposableStack()
  const { ms, seed, rate, sampleMs } = options
  const random = seededRandom(seed)
  const redis = await findRedis()
  stack.defer(() => redis.stop())
  const upstream = await startFaultUpstream()
  stack.defer(() => upstream.stop())
  const toUpstream = await FaultProxy.start({ target: upstream.url, seed })
  stack.defer(() => toUpstream.stop())
  const toStore = await FaultProxy.start({ target: redis.url, seed })
  stack.defer(() => toStore.stop())
  const gateway = await startGateway(configFor(toUpstream.url, toStore.url, rate))
  stack.defer(() => gateway.stop())

  const ends: Record<string, number> = {}
  const wrong: string[] = []
  const count = (end: string): void => void (ends[end] = (ends[end] ?? 0) + 1)
  const one = async (number: number): Promise<void> => {
    const kind = KINDS[Math.floor(random() * KINDS.length)]!
    const path = `/x/${kind.replaceAll(' ', '-')}/${number}`
    if (random() < 0.1) return leave(`${gateway.url}${path}`, random).then(() => count('left'))
    const seen = await makeCall(kind, gateway.url + path)
    count(seen.kind === 'refused' ? seen.error : seen.kind)
    if (seen.kind !== 'wrong') return
    // Its line may come a little later than its end.
    await pause(500)
    wrong.push(`${path}: ${seen.why}; ${gateway.lineOf(path)}`)
  }

  await one(0)
  await pause(1_000)
  const idleTimers = await gateway.read('nodejs_active_resources{type="Timeout"}')
  toUpstream.choose(() => (toUpstream.random() < FAULTY_SHARE ? pick(faultsOf(UPSTREAM_FAULTS), random) : undefined))
  const samples: Sample[] = []
  const calls = new Set<Promise<void>>()
  const startedAt = performance.now()
  let number = 1
  let nextSampleMs = 0
  let storeUntilMs = STORE_WELL_MS
  let isStoreWell = true
  for (let atMs = 0; atMs < ms && gateway.exitCode === null; atMs = performance.now() - startedAt) {
    const call = one(number++).finally(() => calls.delete(call))
    calls.add(call)
    if (atMs >= nextSampleMs) {
      const sample = { atMs, rssBytes: gateway.rss(), calls: number - 1 }
      samples.push(sample)
      options.onSample?.(sample)
      nextSampleMs = atMs + sampleMs
    }
    if (atMs >= storeUntilMs) {
      isStoreWell = !isStoreWell
      toStore.set(isStoreWell ? undefined : pick(faultsOf(STORE_FAULTS), random))
      storeUntilMs = atMs + (isStoreWell ? STORE_WELL_MS : STORE_ILL_MS) * (0.5 + random())
    }
    // Neither in step nor faster than one after another.
    await pause((random() * 2_000) / rate)
  }
  toUpstream.set(undefined)
  toStore.set(undefined)
  await Promise.all(calls)
  const faults = { upstream: toUpstream.faults, store: toStore.faults }
  // What stalled is still open on our side of the line; the gateway must have let go of it by itself.
  const left = await gateway.rest(idleTimers)
  samples.push({ atMs: performance.now() - startedAt, rssBytes: gateway.rss(), calls: number - 1 })
  let repeatedPosts = 0
  for (const [path, times] of upstream.arrivals) if (path.startsWith('/POST/') && times > 1) repeatedPosts++
  const { exitCode, stderr } = gateway
  return { samples, ends, wrong, repeatedPosts, faults, left, stderr, exitCode }
}

/** A client that goes away in the middle. */
async function leave(url: string, random: Random): Promise<void> {
  const outgoing = httpRequest(url, { agent: false, headers: { accept: 'text/event-stream' } })
  outgoing.on('error', () => undefined).on('response', (response) => response.on('error', () => undefined).resume())
  outgoing.end()
  await pause(random() * 60)
  outgoing.destroy()
}

function pick<T>(list: readonly T[], random: Random): T | undefined {
  return list[Math.floor(random() * list.length)]
}

function faultsOf(rows: readonly { readonly fault: Fault | undefined }[]): Fault[] {
  return rows.flatMap(({ fault }) => fault ?? [])
}

/** Little quota for the load, so that calls wait, and short times, so that what hangs is seen to. */
function configFor(upstream: string, store: string, rate: number): object {
  const limit = [{ requests: Math.ceil(rate * 0.45), window: '1s' }]
  return {
    server: { port: 0 },
    admin: { port: 0 },
    store: { kind: 'redis', url: store, prefix: `soak-${process.pid}`, commandTimeout: '200ms' },
    upstreams: {
      x: {
        url: upstream,
        accounts: { main: {} },
        limits: { all: [{ concurrent: rate * 2 }], read: limit, write: limit },
        queue: { maxWait: '2s', maxWaiting: rate },
        retry: { retries: 2, baseDelay: '20ms', maxDelay: '100ms' },
        breaker: { failures: 8, reset: '500ms' },
        timeouts: { headers: '1s', idle: '1s', total: '5s' },
        maxWebSockets: rate,
        connections: rate,
      },
    },
  }
}

class Gateway {
  readonly url: string
  readonly #adminUrl: string
  readonly #child: ChildProcess
  /** The latest of its log. */
  readonly #lines: string[] = []
  stderr = ''

  constructor(child: ChildProcess, url: string, adminUrl: string) {
    this.#child = child
    this.url = url
    this.#adminUrl = adminUrl
    child.stderr?.on('data', (chunk) => void (this.stderr += String(chunk)))
    createInterface({ input: child.stdout! }).on('line', (line) => {
      this.#lines.push(line)
      if (this.#lines.length > LINES_KEPT) this.#lines.splice(0, LINES_KEPT / 2)
    })
  }

  get exitCode(): number | null {
    return this.#child.exitCode
  }

  /** What the log says of the call to that path. */
  lineOf(path: string): string {
    return this.#lines.findLast((line) => line.includes(`"path":"${path}"`)) ?? 'no line'
  }

  /** Its memory, as the system counts it. */
  rss(): number {
    const [, kilobytes = 'NaN'] = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${this.#child.pid}/status`, 'utf8')) ?? []
    return Number(kilobytes) * 1_024
  }

  async read(series: string): Promise<number> {
    return valueOf(await this.#metrics(), series)
  }

  /** What is held once everything has ended: waits for that, but not for ever. */
  async rest(idleTimers: number): Promise<Record<string, number>> {
    const until = performance.now() + REST_MS
    for (;;) {
      const metrics = await this.#metrics()
      const left = {
        permits: sumOf(metrics, 'sluice_in_flight'),
        'queue places': sumOf(metrics, 'sluice_queue_depth'),
        'concurrent places': sumOf(metrics, 'sluice_quota_used', 'window="in flight'),
        'calls without a connection': sumOf(metrics, 'sluice_connection_waiting'),
        'upstream sockets': sumOf(metrics, 'sluice_upstream_connections'),
        'client sockets': sumOf(metrics, 'sluice_client_connections'),
        WebSockets: sumOf(metrics, 'sluice_websockets'),
        timers: Math.max(0, valueOf(metrics, 'nodejs_active_resources{type="Timeout"}') - idleTimers),
      }
      if (performance.now() > until || Object.values(left).every((count) => count === 0)) return left
      await pause(200)
    }
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGTERM')
    await ended
  }

  async #metrics(): Promise<string> {
    return (await fetch(`${this.#adminUrl}/metrics`, { headers: { connection: 'close' } })).text()
  }
}

async function startGateway(config: object): Promise<Gateway> {
  const folder = temporaryFolder('soak')
  const file = join(folder.path, 'sluice.yaml')
  writeFileSync(file, stringify(config))
  const child = spawn(process.execPath, [MAIN, 'start', '--config', file], { cwd: folder.path })
  const lines = createInterface({ input: child.stdout })
  for await (const line of lines) {
    if (!line.includes('"msg":"listening"')) continue
    const { url, admin } = JSON.parse(line) as { url: string; admin: string }
    lines.close()
    return new Gateway(child, url, admin)
  }
  throw new Error(`the gateway did not start: ${String(child.stderr.read())}`)
}

/** The value of one series, its labels exactly as they are given. */
function valueOf(metrics: string, series: string): number {
  return Number(new RegExp(`^${RegExp.escape(series)} (\\S+)`, 'm').exec(metrics)?.[1] ?? 0)
}

/** The sum of all series of a metric, or of those with a label. */
function sumOf(metrics: string, name: string, label = ''): number {
  let sum = 0
  for (const [, labels = '', value] of metrics.matchAll(new RegExp(`^${name}(\\{.*\\})? (\\S+)`, 'gm'))) {
    if (labels.includes(label)) sum += Number(value)
  }
  return sum
}
