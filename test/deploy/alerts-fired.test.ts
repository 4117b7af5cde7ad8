import { execFileSync } from 'node:child_process'
import { closeSync, constants, mkdirSync, openSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { expect, it, onTestFinished } from 'vitest'
import { parse, stringify } from 'yaml'
import { hashKey } from '../../src/clients/keys.ts'
import { ADMIN_TOKEN, ask } from '../support/admin.ts'
import { makeCertificates } from '../support/certificates.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { freePort, startRedisServer } from '../support/find-redis.ts'
import { hasPrometheus } from '../support/find-prometheus.ts'
import { newFolder, startGateway, startUpstream, type TestGateway } from '../support/gateway.ts'
import { hasProgram } from '../support/packages.ts'
import { Program } from '../support/process.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { startTokenServer } from '../support/token-server.ts'
import { PrometheusServer } from './prometheus-server.ts'
import { readText } from './repository.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

/**
 * The alerts with shorter times, so that the faults need not last. Up to a quarter of an hour becomes a sixtieth of it; longer
 * spans, in which something must happen several times, a sixth.
 */
function hurried(alerts: string): string {
  const units = { m: 60, h: 3_600, d: 86_400 } as const
  return alerts.replaceAll(/(for: |\[|offset )(\d+)([mhd])/g, (_, before: string, count: string, unit: string) => {
    const seconds = Number(count) * units[unit as keyof typeof units]
    return `${before}${seconds <= 900 ? Math.max(1, seconds / 60) : seconds / 6}s`
  })
}

const alertNames = (
  parse(readText('deploy/prometheus/alerts.yml')) as { groups: { rules: { alert?: string }[] }[] }
).groups.flatMap(({ rules }) => rules.flatMap(({ alert }) => alert ?? []))

/** What goes on until the test is over. */
class Faults {
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

/** Calls one after the other, whatever becomes of them. */
async function send(gateway: { url: string }, path: string, headers: Record<string, string> = {}, method = 'GET') {
  const response = await fetch(`${gateway.url}${path}`, { method, headers })
  await response.arrayBuffer()
  return response.status
}

const KEY = { 'x-sluice-key': 'key-of-bot' }
const NO_WAIT = { ...KEY, 'x-sluice-max-wait': '0', 'x-sluice-retry': 'off' }
const base = (upstreams: object, rest: object = {}): object => ({
  server: { port: 0 },
  admin: { port: 0 },
  store: { dir: newFolder() },
  clients: { bot: { keys: [hashKey('key-of-bot')] } },
  upstreams,
  ...rest,
})
/** Where nobody calls. */
const ANY = { any: { url: 'http://127.0.0.1:1', accounts: { a: {} }, limits: { read: [], write: [] } } }
const soon = (ms: number): string => new Date(Date.now() + ms).toISOString()

/** One gateway with an upstream for each kind of trouble that calls can have. */
async function startTroubled(faults: Faults): Promise<TestGateway> {
  const upstream = await startUpstream(({ url, headers }, response) => {
    const status = /status=(\d+)/.exec(url)?.[1] ?? (headers['x-api-key'] === 'wrong' ? '401' : '200')
    response.writeHead(Number(status)).end('{}')
  })
  const { url } = upstream
  const tokens = await startTokenServer()
  tokens.isUp = false
  const open = { read: [], write: [] }
  const patient = { breaker: { failures: 1_000_000 } }
  const key = (value: string, rest: object = {}) => ({ header: 'x-api-key', value, ...rest })
  const gateway = await startGateway(
    base(
      {
        tight: { url, accounts: { a: {} }, limits: { read: [{ requests: 10, window: '3s' }] } },
        running: { url, accounts: { a: {} }, limits: { read: [{ requests: 2_000, window: '1h' }] } },
        queued: { url, accounts: { a: {} }, limits: { read: [{ requests: 20, window: '2s' }] } },
        throttled: {
          url,
          accounts: { a: {} },
          limits: { read: [{ requests: 100, window: '1s' }] },
          throttle: { pause: '5ms' },
          ...patient,
        },
        broken: { url, accounts: { a: {} }, limits: open, retry: { retries: 0 }, ...patient },
        dead: { url, accounts: { a: {} }, limits: open, retry: { retries: 0 }, breaker: { failures: 3, reset: '1h' } },
        retried: {
          url,
          accounts: { a: {} },
          limits: open,
          retry: { retries: 3, baseDelay: '1ms', maxDelay: '1ms', budget: '1%' },
          ...patient,
        },
        renewing: {
          url,
          accounts: { a: { credential: key('right', { next: key('wrong'), canary: '50%' }) } },
          limits: open,
          ...patient,
        },
        refused: { url, accounts: { a: { credential: key('wrong') } }, limits: open, ...patient },
        expiring: {
          url,
          limits: open,
          accounts: {
            soon: { credential: key('x', { expires: soon(DAY_MS) }) },
            gone: { credential: key('y', { expires: soon(-DAY_MS) }) },
          },
        },
        tokenless: {
          url,
          limits: open,
          accounts: {
            a: { credential: { type: 'oauth2', tokenUrl: tokens.url, clientId: 'id', clientSecret: 'secret' } },
          },
        },
      },
      {
        clients: {
          bot: { keys: [hashKey('key-of-bot')] },
          aging: { keys: [{ hash: hashKey('other'), label: 'CI', expires: soon(DAY_MS) }] },
        },
        server: { port: 0, wrongKeys: { perAddress: 1_000_000, overall: 1_000_000 } },
      },
    ),
  )
  faults.keepDoing(() => send(gateway, '/tight/x', NO_WAIT), 50)
  faults.keepDoing(() => send(gateway, '/running/x', NO_WAIT), 200)
  // Ten a second are let through, so that each waits for about eight seconds.
  for (let i = 0; i < 80; i++)
    faults.keepDoing(() => send(gateway, '/queued/x', { ...KEY, 'x-sluice-max-wait': '30s' }), 10)
  faults.keepDoing(() => send(gateway, '/throttled/x?status=429', NO_WAIT), 50)
  faults.keepDoing(() => send(gateway, '/broken/x?status=500', KEY, 'POST'), 100)
  faults.keepDoing(() => send(gateway, '/dead/x?status=503', KEY), 200)
  faults.keepDoing(() => send(gateway, '/retried/x?status=503', KEY), 50)
  faults.keepDoing(() => send(gateway, '/renewing/x', KEY), 100)
  faults.keepDoing(() => send(gateway, '/refused/x', KEY), 100)
  faults.keepDoing(() => send(gateway, '/tokenless/x', KEY), 200)
  faults.keepDoing(() => send(gateway, '/broken/x', { 'x-sluice-key': 'nobody' }), 50)
  return gateway
}

/** A gateway that needs its Redis for every call, and has lost it. */
async function startStoreless(faults: Faults): Promise<TestGateway> {
  const upstream = await startUpstream()
  const redis = await startRedisServer()
  onTestFinished(() => redis.stop())
  const limits = { read: [{ requests: 1000, window: '10s' }] }
  const store = { kind: 'redis', url: redis.url, onOutage: 'closed', commandTimeout: '2s' }
  const gateway = await startGateway(base({ u: { url: upstream.url, accounts: { a: {} }, limits } }, { store }))
  await send(gateway, '/u/x', KEY)
  await redis.stop()
  faults.keepDoing(() => send(gateway, '/u/x', KEY), 100)
  return gateway
}

/** A gateway whose Redis is flushed again and again, and so loses the clients that were made by the API. */
async function startFlushed(faults: Faults): Promise<TestGateway> {
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
async function startMistaken(faults: Faults): Promise<TestGateway> {
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
async function startBursty(faults: Faults): Promise<TestGateway> {
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
async function startHeldUp(faults: Faults): Promise<TestGateway> {
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
async function startRestless(adminPort: number, prometheus: PrometheusServer): Promise<boolean> {
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
async function startWithoutOneWorker(faults: Faults): Promise<{ adminUrl: string }> {
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
async function startUnread(faults: Faults): Promise<{ adminUrl: string }> {
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
async function startWithCertificates(): Promise<TestGateway[]> {
  const certificates = makeCertificates(['localhost'])
  onTestFinished(() => certificates.remove())
  const tls = { cert: certificates.read('localhost.pem'), key: certificates.read('localhost.key') }
  const late = new SimulatedClock()
  late.setWall(Date.now() + DAY_MS + 20 * HOUR_MS - late.wall())
  return Promise.all(
    [{}, { clock: late }].map((options) => startGateway(base(ANY, { server: { port: 0, tls } }), options)),
  )
}

it.skipIf(!hasPrometheus() || !hasProgram('openssl'))(
  'every alert fires for the fault that it is for, in a real Prometheus, with shorter times',
  { timeout: 600_000 },
  async () => {
    const faults = new Faults()
    onTestFinished(() => faults.end())
    const troubled = await startTroubled(faults)
    const leaving = await startGateway(base(ANY))
    const gateways = [
      troubled,
      leaving,
      await startStoreless(faults),
      await startFlushed(faults),
      await startMistaken(faults),
      await startBursty(faults),
      await startHeldUp(faults),
      await startWithoutOneWorker(faults),
      await startUnread(faults),
      ...(await startWithCertificates()),
    ]
    const restlessPort = await freePort()
    const urls = [...gateways.map(({ adminUrl }) => adminUrl), `http://127.0.0.1:${restlessPort}`]
    const prometheus = await PrometheusServer.start(urls, hurried)
    onTestFinished(() => prometheus.stop())
    await prometheus.sees(`up{instance="${new URL(leaving.adminUrl).host}"} == 1`)
    await leaving.stop()
    const canLimitMemory = await startRestless(restlessPort, prometheus)
    await troubled.reloadWith({ upstreams: 'wrong' })
    const wanted = new Set(alertNames)
    if (!canLimitMemory) wanted.delete('SluiceMemoryHigh')
    const firedAfter = new Map<string, number>()
    const start = performance.now()
    while (wanted.size > 0 && performance.now() - start < 500_000) {
      for (const { metric } of await prometheus.query('ALERTS{alertstate="firing"}')) {
        const name = metric['alertname']!
        if (wanted.delete(name)) firedAfter.set(name, Math.round((performance.now() - start) / 1_000))
      }
      await pause(200)
    }
    console.table(
      Object.fromEntries(alertNames.map((name) => [name, { 'fired after s': firedAfter.get(name) ?? 'not' }])),
    )
    expect([...wanted]).toEqual([])
  },
)
