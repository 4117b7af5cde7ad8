import { execFileSync } from 'node:child_process'
import { closeSync, constants, mkdirSync, openSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { hashKey } from '../../src/clients/keys.ts'
import { ADMIN_TOKEN, ask } from '../support/admin.ts'
import { makeCertificates } from '../support/certificates.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { freePort, startRedisServer } from '../support/find-redis.ts'
import { newFolder, startGateway, startUpstream, type TestGateway } from '../support/gateway.ts'
import { Program } from '../support/process.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import type { PrometheusServer } from './prometheus-server.ts'

const HOUR_MS = 3_600_000
export const DAY_MS = 24 * HOUR_MS

/** What goes on until the test is over. */
export class Faults {
  readonly #ends: Promise<void>[] = []
  isOver = false

  keepDoing(what: () => Promise<unknown>, everyMs: number): void {
    const go = async (): Promise<void> => {
      while (!this.isOver) {
        await what().catch(() => undefined)
        await pause(everyMs)
      }
    }
    this.#ends.push(go())
  }

  async end(): Promise<void> {
    this.isOver = true
    await Promise.all(this.#ends)
  }
}

/** Makes one call, whatever becomes of it. */
export async function send(
  gateway: { url: string },
  path: string,
  headers: Record<string, string> = {},
  method = 'GET',
): Promise<number> {
  const body = method === 'POST' ? { body: '{"some":"thing"}' } : {}
  const response = await fetch(`${gateway.url}${path}`, { method, headers, ...body })
  await response.arrayBuffer()
  return response.status
}

export const KEY = { 'x-sluice-key': 'key-of-bot' }
export const NO_WAIT = { ...KEY, 'x-sluice-max-wait': '0', 'x-sluice-retry': 'off' }
export const base = (upstreams: object, rest: object = {}): object => ({
  server: { port: 0 },
  admin: { port: 0 },
  store: { dir: newFolder() },
  clients: { bot: { keys: [hashKey('key-of-bot')] } },
  upstreams,
  ...rest,
})
/** Where nobody calls. */
export const ANY = { any: { url: 'http://127.0.0.1:1', accounts: { a: {} }, limits: { read: [], write: [] } } }

/** A gateway whose Redis is flushed again and again, and so loses the clients that were made by the API. */
export async function startFlushed(faults: Faults): Promise<TestGateway> {
  const redis = await startRedisServer()
  const client = new Redis(redis.url)
  onTestFinished(async () => {
    client.disconnect()
    await redis.stop()
  })
  const admin = { port: 0, token: ADMIN_TOKEN }
  const gateway = await startGateway(
    base(ANY, { admin, store: { kind: 'redis', url: redis.url, commandTimeout: '2s' } }),
  )
  await ask(gateway, 'POST', '/clients', { name: 'made' })
  faults.keepDoing(async () => client.flushall(), 5_000)
  return gateway
}

/** A gateway in whose retries there is a mistake: it has no random numbers. */
export async function startMistaken(faults: Faults): Promise<TestGateway> {
  const upstream = await startUpstream((_, response) => response.writeHead(503).end())
  let isStarted = false
  const random = (): number => {
    if (isStarted) throw new Error('no random number')
    return 0.5
  }
  const config = base({ u: { url: upstream.url, accounts: { a: {} }, limits: { read: [], write: [] } } })
  const gateway = await startGateway(config, { random })
  isStarted = true
  faults.keepDoing(() => send(gateway, '/u/x', KEY), 200)
  return gateway
}

/** A gateway whose limit runs low again and again, with pauses, in a time of its own. */
export async function startBursty(faults: Faults): Promise<TestGateway> {
  const upstream = await startUpstream()
  const clock = new SimulatedClock()
  const limits = { read: [{ requests: 10, window: '10s' }] }
  const gateway = await startGateway(base({ u: { url: upstream.url, accounts: { a: {} }, limits } }), { clock })
  faults.keepDoing(async () => {
    for (let i = 0; i < 10; i++) await send(gateway, '/u/x', NO_WAIT)
    await clock.advance(70_000)
    await send(gateway, '/u/x', NO_WAIT)
  }, 500)
  return gateway
}

/** A gateway whose Redis answers late: what it asks of it for the budget of a client is its own time. */
export async function startHeldUp(faults: Faults): Promise<TestGateway> {
  const upstream = await startUpstream()
  const redis = await startRedisServer()
  const line = await FaultProxy.start({ target: redis.url })
  onTestFinished(async () => {
    await line.stop()
    await redis.stop()
  })
  const clients = { bot: { keys: [hashKey('key-of-bot')], budget: [{ requests: 1_000_000, window: '10s' }] } }
  const store = { kind: 'redis', url: line.url, commandTimeout: '5s' }
  const upstreams = { u: { url: upstream.url, accounts: { a: {} }, limits: { read: [], write: [] } } }
  const gateway = await startGateway(base(upstreams, { clients, store }))
  line.set({ kind: 'latency', ms: 120 })
  faults.keepDoing(() => send(gateway, '/u/x', KEY), 20)
  return gateway
}

async function startProgram(
  upstreams: object,
  adminPort?: number,
  rest: object = {},
): Promise<{ program: Program; url: string; adminUrl: string }> {
  const port = adminPort ?? (await freePort())
  const file = join(newFolder(), 'sluice.yaml')
  writeFileSync(file, stringify(base(upstreams, { admin: { port }, ...rest })))
  const program = new Program(['start', '--config', file])
  const { url } = JSON.parse(await program.line(/"url":/)) as { url: string }
  return { program, url, adminUrl: `http://127.0.0.1:${port}` }
}

/** A process that is started again and again, and at last runs near the limit of its memory; whether it could be given one. */
export async function startRestless(adminPort: number, prometheus: PrometheusServer): Promise<boolean> {
  const seenStarts = async (): Promise<number> => {
    const instance = `127.0.0.1:${adminPort}`
    const [series] = await prometheus.query(`count_over_time(sluice_start_time_seconds{instance="${instance}"}[1h])`)
    return Number(series?.value?.[1] ?? 0)
  }
  let started = await startProgram(ANY, adminPort)
  for (let again = 0; again < 3; again++) {
    const before = await seenStarts()
    while ((await seenStarts()) === before) await pause(100)
    started.program.kill('SIGKILL')
    await started.program.ended
    started = await startProgram(ANY, adminPort)
  }
  return limitMemory(started.program.child.pid!)
}

const MEMORY_CGROUP = '/sys/fs/cgroup/memory'

/** Gives a process little more memory than it has, as a container would. Needs root, and cgroups that may be changed. */
function limitMemory(pid: number): boolean {
  const group = `${MEMORY_CGROUP}/sluice-test-${pid}`
  try {
    mkdirSync(group)
    const [, resident = '0'] = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
    // Shared pages of files count as resident, but not here, so that it is not killed.
    writeFileSync(join(group, 'memory.limit_in_bytes'), String(Math.round(Number(resident) * 1_024 * 1.03)))
    writeFileSync(join(group, 'cgroup.procs'), String(pid))
  } catch {
    return false
  }
  onTestFinished(async () => {
    for (let tries = 0; tries < 50; tries++) {
      try {
        return rmdirSync(group)
      } catch {
        await pause(100)
      }
    }
  })
  return true
}

/** A gateway of two workers of which one never comes back: it is stopped, and so is whatever takes its place. */
export async function startWithoutOneWorker(faults: Faults): Promise<{ adminUrl: string }> {
  const redis = await startRedisServer()
  onTestFinished(() => redis.stop())
  const rest = { server: { port: 0, workers: 2 }, store: { kind: 'redis', url: redis.url, commandTimeout: '2s' } }
  const { program, adminUrl } = await startProgram(ANY, undefined, rest)
  const { pid } = program.child
  const workers = (): number[] => readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').match(/\d+/g)!.map(Number)
  const [healthy] = workers()
  const signalOthers = (signal: NodeJS.Signals): void => {
    for (const worker of workers()) if (worker !== healthy) process.kill(worker, signal)
  }
  // What is stopped does not notice that the first process has gone.
  onTestFinished(async () => {
    await faults.end()
    signalOthers('SIGKILL')
  })
  faults.keepDoing(async () => signalOthers('SIGSTOP'), 100)
  return { adminUrl }
}

/** A gateway whose log goes into a pipe that nobody reads. */
export async function startUnread(faults: Faults): Promise<{ adminUrl: string }> {
  const upstream = await startUpstream()
  const folder = newFolder()
  const pipe = join(folder, 'log')
  execFileSync('mkfifo', [pipe])
  // A pipe with somebody at its other end, who reads nothing.
  const reader = openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK)
  const output = openSync(pipe, constants.O_WRONLY)
  onTestFinished(() => closeSync(reader))
  const [port, adminPort] = [await freePort(), await freePort()]
  const file = join(folder, 'sluice.yaml')
  const upstreams = { u: { url: upstream.url, accounts: { a: {} }, limits: { read: [], write: [] } } }
  writeFileSync(file, stringify(base(upstreams, { server: { port }, admin: { port: adminPort } })))
  // Stopped with the test.
  void new Program(['start', '--config', file], { output })
  closeSync(output)
  const gateway = { url: `http://127.0.0.1:${port}`, adminUrl: `http://127.0.0.1:${adminPort}` }
  // In the log, so that few calls make much of it.
  const path = `/u/${'x'.repeat(12_000)}`
  for (let i = 0; i < 10; i++) faults.keepDoing(() => send(gateway, path, KEY), 100)
  return gateway
}

/** Two gateways with TLS: one that goes by the right time, and one for which it is a day and 20 hours later. */
export async function startWithCertificates(): Promise<TestGateway[]> {
  const certificates = makeCertificates(['localhost'])
  onTestFinished(() => certificates.remove())
  const tls = { cert: certificates.read('localhost.pem'), key: certificates.read('localhost.key') }
  const late = new SimulatedClock()
  late.setWall(Date.now() + DAY_MS + 20 * HOUR_MS - late.wall())
  return Promise.all(
    [{}, { clock: late }].map((options) => startGateway(base(ANY, { server: { port: 0, tls } }), options)),
  )
}
