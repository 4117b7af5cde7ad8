import { type ChildProcess, fork, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { openSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { bar } from './bar.ts'
import { get, load, startUpstream, stayAwake } from './driver.ts'
import { OTHER_PROXIES, type Running, startOther } from './other-proxies.ts'
import { findRedis } from '../support/find-redis.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

/**
 * `npm run bench`: processor time per request and latency of the gateway, next to the bare proxy plugin, to what a user would
 * assemble from plugins, and to nginx and HAProxy where they are installed. Every round measures all of them in turn, in slices of
 * half a second, forwards and backwards. Ratios are taken within the round. So a machine that is slower for a few seconds is so for
 * all of them.
 * `npm run bench:observe`: the gateway as it is next to the same process while nothing watches calls, without traces and with them.
 * `npm run bench -- --check`: the same number of calls to each in every round, and an end with a code that is not 0 if a ratio is
 * above what CI lets pass, three times in a row. A miss on a machine that is busy with other things does not count, and it says so.
 * `--before FILE` loads a file of this folder before the gateway, such as `slowed.ts`.
 */
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 7)
const ROUND_MS = Number(process.env['BENCH_ROUND_MS'] ?? 2_500)
/** Each subject has so many turns in a round. */
const SLICES = 5
/** A round of a check: so many calls take as long on a busy machine as on a quiet one, in processor time. */
const ROUND_CALLS = 5_000
/** So many go before the rounds. After fewer the compiler is still at work, and the more code a subject has the more of it is counted. */
const WARM_CALLS = 40_000
const CONNECTIONS = 64
const PATH = '/harness/ng/api/projects?accountIdentifier=acct1234&pageIndex=0'

/** Says that the calls of its trace are to be traced. */
const TRACED = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'

const BARE = 'bare @fastify/http-proxy'
const WIRED = 'plugins as a user wires them'
const EMBEDDED = 'sluice, embedded store'
const REDIS = 'sluice, Redis'

/**
 * The bars: at most so many times the processor time of the other, as the median of the rounds. `today` is what was measured last
 * where that is more. A check lets pass what is at most 15 % above it, or above the bar where there is no `today`. Whoever makes a
 * call cheaper lowers `today`; nobody raises it. Checks gave 0.92 to 1.09 for the first, 1.05 to 1.19 for the second.
 */
const BARS: readonly { of: string; beside: string; atMost: number; today?: number }[] = [
  { of: EMBEDDED, beside: BARE, atMost: 0.95, today: 1.05 },
  { of: REDIS, beside: BARE, atMost: 1.05, today: 1.2 },
  { of: EMBEDDED, beside: WIRED, atMost: 0.6, today: 0.68 },
  { of: REDIS, beside: WIRED, atMost: 0.68, today: 0.78 },
  { of: 'as it is, traces off', beside: 'as it is, traces off, unwatched', atMost: 1.1 },
  { of: 'traces of 1 %', beside: 'traces of 1 %, unwatched', atMost: 1.15 },
]
const MARGIN = 1.15
const ATTEMPTS = 3
/** After its start a check begins none later: on a busy machine each takes minutes. */
const LAST_ATTEMPT_MS = 60_000
/**
 * Of the time of a round, the least that a program must get of its core for a miss to count. With less, other programs push its code
 * and data out of the caches: medians of seven rounds were 0.92, 1.24 and 1.42 then, and 1.08 alone.
 */
const LEAST_SHARE = 0.75

interface Subject {
  readonly name: string
  readonly file: string
  readonly env: Record<string, string>
  /** What is loaded before it. */
  readonly before?: readonly string[]
}

/** What one turn of a subject took, in processor time and by the clock. */
interface Slice {
  readonly cpuMicros: number
  readonly ms: number
  readonly latencies: Float64Array
}

interface Sample {
  /** A request. */
  readonly cpuMicros: number
  /** Processor time in a microsecond of the round. */
  readonly share: number
  readonly p50: number
  readonly p99: number
}

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { check: { type: 'boolean', default: false }, before: { type: 'string', multiple: true, default: [] } },
})
const canPin = process.platform === 'linux' && cpus().length > 1 && spawnSync('taskset', ['-V']).status === 0
// The proxy gets the first core to itself; this process, and Redis with it, the others.
if (canPin) spawnSync('taskset', ['-a', '-p', '-c', `1-${cpus().length - 1}`, String(process.pid)])
const store = temporaryFolder('bench')
const redis = await findRedis()
const { port: upstreamPort, server } = await startUpstream()
const upstream = { UPSTREAM: `http://127.0.0.1:${upstreamPort}` }
const { before } = options
const isAboutWatching = positionals[0] === 'observe'
/** Of one program some processes are a tenth slower than others. A check looks at one of each, since it must not take long. */
const PROCESSES = options.check ? 1 : 3
const others: Subject[] = [
  { name: BARE, file: 'bare-proxy.ts', env: upstream },
  { name: 'its handler hook and dispatch', file: 'bare-handler.ts', env: upstream },
  { name: WIRED, file: 'assembled-proxy.ts', env: { ...upstream, REDIS_URL: redis.url } },
  { name: EMBEDDED, file: 'gateway.ts', env: upstream, before },
  { name: REDIS, file: 'gateway.ts', env: { ...upstream, GATEWAY_REDIS_URL: redis.url }, before },
]
const watched = async (): Promise<Subject[]> => {
  const collector = await startCollector()
  const of = (name: string, sample?: string): Subject => {
    const traces: Record<string, string> =
      sample === undefined ? {} : { GATEWAY_TRACES: collector, GATEWAY_SAMPLE: sample }
    return { name, file: 'gateway.ts', env: { ...upstream, ...traces }, before: ['switched.ts'] }
  }
  return [of('as it is, traces off'), of('traces of 1 %', '1%'), of('traces of 100 %', '100%')]
}
const subjects = isAboutWatching ? await watched() : others
stayAwake()

/** A subject, in one process or several. */
interface Group {
  readonly name: string
  readonly processes: readonly Switched[]
}
/** One that begins a turn by switching to what is measured. */
type Switched = Running & { switch?(): Promise<void> }
const running: Group[] = []
let samples: Sample[][] = []
try {
  for (const subject of subjects) {
    if (options.check && !BARS.some(({ of, beside }) => of === subject.name || beside === subject.name)) continue
    const processes: Started[] = []
    const switchedTo = (message: string): Switched[] =>
      processes.map((one) => ({ ...one, switch: () => one.switchTo(message) }))
    for (let i = 0; i < PROCESSES; i++) {
      const one = await start(subject, `${subject.name} ${i}`.replaceAll(/\W+/g, '-'))
      processes.push(one)
    }
    if (isAboutWatching) running.push({ name: `${subject.name}, unwatched`, processes: switchedTo('unwatched') })
    running.push({ name: subject.name, processes: isAboutWatching ? switchedTo('watched') : processes })
  }
  if (!isAboutWatching && !options.check) await startOthers()
  for (const one of running.flatMap(({ processes }) => processes)) await warmUp(one)
  // What was disturbed passes when it is measured again. What is slow stays slow.
  for (let attempt = 0; attempt < (options.check ? ATTEMPTS : 1); attempt++) {
    samples = running.map(() => [])
    for (let round = 0; round < ROUNDS; round++) {
      for (const [i, sample] of (await measureRound()).entries()) samples[i]!.push(sample)
    }
    if (ratios().every(isMet) || performance.now() > LAST_ATTEMPT_MS) break
  }
  report()
} finally {
  await Promise.all(running.flatMap(({ processes }) => processes.map((one) => one.stop())))
  server.close()
  await redis.stop()
  store.remove()
}
process.exit()

/** A process of a subject. It may know messages by which it switches to something else. */
type Started = Running & { switchTo(message: string): Promise<void> }

async function start({ file, env, before = [] }: Subject, folder: string): Promise<Started> {
  const child = fork(fileURLToPath(new URL(file, import.meta.url)), {
    env: { ...process.env, NODE_ENV: 'production', GATEWAY_STORE: `${store.path}/${folder}`, ...env },
    execArgv: [...before, 'cpu-reporter.ts'].flatMap((name) => ['--import', new URL(name, import.meta.url).href]),
    stdio: ['ignore', openSync('/dev/null', 'w'), 'inherit', 'ipc'],
  })
  if (canPin) spawnSync('taskset', ['-a', '-p', '-c', '0', String(child.pid)])
  const { url } = await answerOf<{ url: string }>(child)
  return {
    url,
    async cpuMicros() {
      child.send('cpu')
      return (await answerOf<{ cpuMicros: number }>(child)).cpuMicros
    },
    async switchTo(message) {
      child.send(message)
      await answerOf(child)
    },
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return
      const ended = once(child, 'exit')
      child.kill()
      await ended
    },
  }
}

/**
 * As many calls that are traced go before the others where traces are measured. With one call in a hundred the compiler would not have
 * come to the code for them.
 */
async function warmUp(one: Switched): Promise<void> {
  const port = Number(new URL(one.url).port)
  await one.switch?.()
  if (isAboutWatching) await load(port, [get(PATH, { traceparent: TRACED })], CONNECTIONS, { calls: WARM_CALLS })
  await load(port, PATH, CONNECTIONS, { calls: WARM_CALLS })
}

async function startOthers(): Promise<void> {
  for (const other of OTHER_PROXIES) {
    const started = await startOther(other, { upstreamPort, redisUrl: redis.url, isPinned: canPin })
    if (typeof started === 'string') console.log(started)
    else running.push({ name: other.name, processes: [started] })
  }
}

async function measureRound(): Promise<Sample[]> {
  const slices: Slice[][] = running.map(() => [])
  const order = [...running.entries()]
  for (let turn = 0; turn < SLICES; turn++) {
    // What is compared is measured within a second or two, so the first process of each comes before the second of any.
    for (let place = 0; place < PROCESSES; place++) {
      for (const [i, { processes }] of (turn + place) % 2 === 0 ? order : order.toReversed()) {
        const one = processes[place]
        if (one !== undefined) slices[i]!.push(await measure(one))
      }
    }
  }
  return slices.map(sampleOf)
}

async function measure({ url, cpuMicros, ...one }: Switched): Promise<Slice> {
  await one.switch?.()
  const startedAt = performance.now()
  const before = await cpuMicros()
  const length = options.check ? { calls: ROUND_CALLS / SLICES } : ROUND_MS / SLICES
  const { requests, failures, latencies } = await load(Number(new URL(url).port), PATH, CONNECTIONS, length)
  const used = (await cpuMicros()) - before
  if (failures > 0) throw new Error(`${failures} of ${requests} requests failed`)
  return { cpuMicros: used, ms: performance.now() - startedAt, latencies }
}

function sampleOf(slices: readonly Slice[]): Sample {
  const sum = (of: (slice: Slice) => number): number => slices.reduce((total, slice) => total + of(slice), 0)
  const latencies = Float64Array.from(slices.flatMap((slice) => [...slice.latencies])).sort()
  const used = sum(({ cpuMicros }) => cpuMicros)
  return {
    cpuMicros: used / latencies.length,
    share: used / 1_000 / sum(({ ms }) => ms),
    p50: quantile(latencies, 0.5),
    p99: quantile(latencies, 0.99),
  }
}

function answerOf<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    const fail = (code: number | null): void => reject(new Error(`the benchmarked program ended with ${code}`))
    child.once('exit', fail)
    child.once('message', (message) => {
      child.off('exit', fail)
      resolve(message as T)
    })
  })
}

function report(): void {
  console.log(
    `${PROCESSES} process${PROCESSES > 1 ? 'es' : ''} of each, ${ROUNDS} rounds of ${options.check ? `${ROUND_CALLS} calls` : `${ROUND_MS} ms`} each after ${WARM_CALLS} calls that warm up, ` +
      `${CONNECTIONS} connections, ${canPin ? 'pinned' : 'not pinned'}`,
  )
  console.log(`CPU per request as a ratio to "${running[0]!.name}" in the same round: median (lowest-highest)`)
  for (const [i, { name }] of running.entries()) {
    const own = samples[i]!
    const cpu = own.map(({ cpuMicros }, round) => cpuMicros / samples[0]![round]!.cpuMicros)
    const p50 = own.map((sample, round) => sample.p50 / samples[0]![round]!.p50)
    const p99 = own.map((sample, round) => sample.p99 / samples[0]![round]!.p99)
    const micros = median(own.map(({ cpuMicros }) => cpuMicros))
    console.log(
      `${name.padEnd(30)} cpu ${spread(cpu)}   p50 ${spread(p50)}   p99 ${spread(p99)}   (${micros.toFixed(1)} µs, ` +
        `p50 ${median(own.map((s) => s.p50)).toFixed(2)} ms, p99 ${median(own.map((s) => s.p99)).toFixed(2)} ms)`,
    )
  }
  const share = median(samples.flat().map((sample) => sample.share))
  if (options.check && share < LEAST_SHARE && !ratios().every(isMet)) {
    console.log(`not judged: the machine is busy, and the programs had ${(share * 100).toFixed(0)} % of their core`)
    return
  }
  for (const { name, ratio, atMost } of ratios()) bar(`CPU a request, ${name}`, ratio, { atMost }, '')
}

interface Ratio {
  readonly name: string
  readonly ratio: number
  readonly atMost: number
}

function isMet({ ratio, atMost }: Ratio): boolean {
  return ratio <= atMost
}

/** The median of each ratio that has a bar, and the most that it may be. */
function ratios(): Ratio[] {
  return BARS.flatMap(({ of, beside, atMost, today = atMost }) => {
    const [own, other] = [of, beside].map((name) => samples[running.findIndex((one) => one.name === name)])
    if (own === undefined || other === undefined) return []
    const ratio = median(own.map(({ cpuMicros }, round) => cpuMicros / other[round]!.cpuMicros))
    const most = options.check ? Number((today * MARGIN).toFixed(2)) : atMost
    return [{ name: `${of} beside ${beside}`, ratio, atMost: most }]
  })
}

/** Takes every export. Its own work is no part of what is measured. */
async function startCollector(): Promise<string> {
  const collector = createServer((request, response) => void request.resume().on('end', () => response.end()))
  collector.listen(0, '127.0.0.1')
  await once(collector, 'listening')
  return `http://127.0.0.1:${(collector.address() as AddressInfo).port}`
}

function spread(values: number[]): string {
  const sorted = values.toSorted((a, b) => a - b)
  return `${median(sorted).toFixed(2)} (${sorted[0]!.toFixed(2)}-${sorted.at(-1)!.toFixed(2)})`
}

function median(values: readonly number[]): number {
  return quantile(Float64Array.from(values).sort(), 0.5)
}

function quantile(sorted: Float64Array, share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!
}
