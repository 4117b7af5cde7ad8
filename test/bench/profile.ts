import { fork, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { openSync } from 'node:fs'
import type { HeapProfiler, Profiler } from 'node:inspector'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { findRedis } from '../support/find-redis.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { load, startUpstream, stayAwake } from './driver.ts'

/**
 * `npm run profile`: where the processor time of a call goes in steady state, and what it allocates, by module. `-- bare-proxy.ts`
 * profiles another program of this folder, `--before FILE` loads one before it, `--top N` shows so many functions,
 * `--redis` counts in Redis, `--calls N` profiles fewer or more.
 */
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    before: { type: 'string', multiple: true, default: [] },
    top: { type: 'string', default: '25' },
    under: { type: 'string', default: '' },
    redis: { type: 'boolean', default: false },
    calls: { type: 'string', default: '40000' },
  },
})
const { under } = values
const file = positionals[0] ?? 'gateway.ts'
/** So many calls warm it up, and so many are profiled, however busy the machine is. */
const CALLS = Number(values.calls)
const PIECE_MS = 1_000
const CONNECTIONS = 64
const PATH = '/harness/ng/api/projects?accountIdentifier=acct1234&pageIndex=0'

interface Frame {
  readonly functionName: string
  readonly url: string
}
/** What one frame took itself, of any unit. */
type Taken = Frame & { readonly amount: number }

const store = temporaryFolder('profile')
const redis = await findRedis()
const { port: upstreamPort, server } = await startUpstream()
const pinned = spawnSync('taskset', ['-a', '-p', '-c', `1-${cpus().length - 1}`, String(process.pid)])
stayAwake()
const child = fork(fileURLToPath(new URL(file, import.meta.url)), {
  env: {
    ...process.env,
    NODE_ENV: 'production',
    UPSTREAM: `http://127.0.0.1:${upstreamPort}`,
    REDIS_URL: redis.url,
    ...(values.redis ? { GATEWAY_REDIS_URL: redis.url } : { GATEWAY_STORE: store.path }),
  },
  execArgv: [...values.before, 'profiler.ts'].flatMap((name) => ['--import', new URL(name, import.meta.url).href]),
  stdio: ['ignore', openSync('/dev/null', 'w'), 'inherit', 'ipc'],
})
try {
  if (pinned.status === 0) spawnSync('taskset', ['-a', '-p', '-c', '0', String(child.pid)])
  const { url } = (await answer()) as { url: string }
  const port = Number(new URL(url).port)
  await call(port)
  const time = await during('profile', port)
  const space = await during('allocations', port)
  report('µs', timeOf(time.profile as Profiler.Profile), time.requests)
  report('bytes allocated', spaceOf(space.profile as HeapProfiler.SamplingHeapProfile), space.requests)
} finally {
  child.kill()
  server.close()
  await redis.stop()
  store.remove()
}
process.exit(0)

async function during(what: string, port: number): Promise<{ profile: unknown; requests: number }> {
  child.send(what)
  const requests = await call(port)
  child.send(`end of ${what}`)
  const { profile } = (await answer()) as { profile: unknown }
  return { profile, requests }
}

async function call(port: number): Promise<number> {
  let calls = 0
  while (calls < CALLS) calls += (await load(port, PATH, CONNECTIONS, PIECE_MS)).requests
  return calls
}

async function answer(): Promise<unknown> {
  const [message] = await once(child, 'message')
  return message
}

function timeOf({ nodes, samples = [], timeDeltas = [] }: Profiler.Profile): Taken[] {
  const micros = new Map<number, number>()
  samples.forEach((id, i) => micros.set(id, (micros.get(id) ?? 0) + (timeDeltas[i + 1] ?? 0)))
  return nodes.map(({ id, callFrame }) => ({ ...callFrame, amount: micros.get(id) ?? 0 }))
}

function spaceOf({ head }: HeapProfiler.SamplingHeapProfile): Taken[] {
  const taken: Taken[] = []
  const look = ({ callFrame, selfSize, children }: HeapProfiler.SamplingHeapProfileNode): void => {
    taken.push({ ...callFrame, amount: selfSize })
    children.forEach(look)
  }
  look(head)
  return taken
}

function report(unit: string, taken: readonly Taken[], requests: number): void {
  const busy = taken.filter(({ functionName }) => functionName !== '(idle)')
  const whole = busy.reduce((sum, { amount }) => sum + amount, 0)
  console.log(`\n${file}: ${(whole / requests).toFixed(1)} ${unit} a call, ${requests} calls`)
  table(sumBy(busy, moduleOf), Infinity)
  console.log()
  table(
    sumBy(
      busy.filter((frame) => moduleOf(frame).startsWith(under)),
      (frame) => `${frame.functionName || '(anonymous)'} ${shortUrl(frame.url)}`,
    ),
    Number(values.top),
  )

  function table(sums: Map<string, number>, most: number): void {
    const sorted = [...sums].sort(([, a], [, b]) => b - a)
    for (const [name, amount] of sorted.slice(0, most)) {
      if (amount * 500 < whole) continue
      const each = (amount / requests).toFixed(2).padStart(9)
      console.log(`${each} ${((100 * amount) / whole).toFixed(1).padStart(5)} %  ${name}`)
    }
  }
}

function sumBy(taken: readonly Taken[], nameOf: (frame: Frame) => string): Map<string, number> {
  const sums = new Map<string, number>()
  for (const frame of taken) sums.set(nameOf(frame), (sums.get(nameOf(frame)) ?? 0) + frame.amount)
  return sums
}

function moduleOf({ functionName, url }: Frame): string {
  const inModules = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)?.[1]
  if (inModules !== undefined) return inModules
  const ours = /\/src\/([^/]+)\//.exec(url)?.[1]
  if (ours !== undefined) return `src/${ours}`
  if (url.startsWith('node:')) return /^node:(?:internal\/)?[^/]+/.exec(url)![0]
  return functionName.startsWith('(') ? functionName : url === '' ? `native ${functionName}` : shortUrl(url)
}

function shortUrl(url: string): string {
  return url.replace(/^.*\/(?=node_modules\/|src\/|test\/)/, '').replace(/^node_modules\//, '')
}
