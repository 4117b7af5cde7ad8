import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { startSandbox } from '../../src/sandbox/sandbox.ts'
import type { QuotaRow } from '../../src/server/admin/status.ts'
import { ACCOUNT, harnessConfig, newFolder, startUpstream } from '../support/gateway.ts'
import { call, RawClient } from '../support/http.ts'
import { freePort } from '../support/find-redis.ts'
import { hasPrometheus } from '../support/find-prometheus.ts'
import { parseMetrics, valuesOf } from '../support/openmetrics.ts'
import { childrenOf, freeze, Program, startProcess } from '../support/process.ts'
import { PrometheusServer } from '../deploy/prometheus-server.ts'

const READ = '/harness/ng/api/projects'
const one = (): number => 1
const none = (): number => 0

function workersConfig(url: string, upstream: object = {}): object {
  return {
    ...harnessConfig(url, { queue: { maxWait: '30s' }, retry: { retries: 0 }, ...upstream }),
    server: { port: 0, workers: 3 },
    store: {
      kind: 'redis',
      url: inject('redisUrl'),
      prefix: `workers-${process.pid}-${Math.random()}`,
      commandTimeout: '2s',
    },
  }
}

/** Whether a process has a TCP port open (proc_net(5), proc_pid_fd(5)). */
function isListening(pid: number): boolean {
  const sockets = readFileSync('/proc/net/tcp', 'utf8').split('\n')
  const listeners = sockets.map((line) => line.trim().split(/\s+/)).filter(([, , , state]) => state === '0A')
  const links = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`)
    } catch {
      return '' // closed meanwhile
    }
  })
  const open = new Set(links)
  return listeners.some((fields) => open.has(`socket:[${fields[9]}]`))
}

/** Resolves when a process waits, for longer than it would for anything but another process. */
async function isAtRest(pid: number): Promise<void> {
  // its processor time (proc_pid_stat(5))
  const time = (): string => readFileSync(`/proc/${pid}/stat`, 'utf8').split(' ').slice(13, 15).join()
  for (let [since, rest] = ['', 0]; rest < 20; await pause(50)) {
    rest = since === time() ? rest + 1 : 0
    since = time()
  }
}

/** A port that another server has. */
async function takenPort(): Promise<number> {
  const other = createServer()
  await new Promise<void>((resolve) => void other.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void other.close())
  return (other.address() as { port: number }).port
}

/** A gateway of two workers, both of which start. */
async function startTwo(port: number): Promise<{ program: Program; pid: number; first: number; second: number }> {
  const cwd = newFolder()
  const config = { ...workersConfig('http://127.0.0.1:1'), server: { port, workers: 2 } }
  writeFileSync(join(cwd, 'sluice.yaml'), stringify(config))
  const program = new Program(['start'], { cwd })
  const pid = program.child.pid!
  await expect.poll(() => childrenOf(pid).length, { interval: 5 }).toBe(2)
  const [first, second] = childrenOf(pid) as [number, number]
  return { program, pid, first, second }
}

/** The same, once the first takes calls, while the second stands still in its start. */
async function startFirstOfTwo() {
  const port = await freePort()
  const started = await startTwo(port)
  const { second } = started
  // Before it runs the program, the first process would stand still with it.
  await expect.poll(() => readFileSync(`/proc/${second}/environ`, 'utf8')).toContain('NODE_UNIQUE_ID=')
  freeze(second)
  // Only the first can answer. It has told that it listens, before it took the call.
  const url = `http://127.0.0.1:${port}`
  for (let i = 0; i < 3; i++) await expect.poll(() => call(url, '/nothing').then(one, none)).toBe(1)
  return { ...started, url }
}

async function setUp() {
  const sandbox = await startSandbox({ limits: { read: { requests: 60, windowMs: 1_000 } } })
  onTestFinished(() => sandbox.stop())
  const gateway = await startProcess(workersConfig(sandbox.url, { limits: { read: [{ requests: 60, window: '1s' }] } }))
  const metrics = async () => (await fetch(`${gateway.adminUrl}/metrics`)).text()
  return { sandbox, gateway, metrics }
}

describe('a gateway of several workers', () => {
  it('shares one port and one quota, and shows one set of metrics', async () => {
    const { sandbox, gateway, metrics } = await setUp()
    const answers = await Promise.all(Array.from({ length: 180 }, () => call(gateway.url, READ)))
    expect(answers.filter(({ status }) => status !== 200)).toEqual([])
    const { worst, throttled } = sandbox.counts().accounts[ACCOUNT]!.read!
    expect(throttled).toBe(0)
    expect(worst).toBeLessThanOrEqual(60)
    const text = await metrics()
    const samples = parseMetrics(text)
    expect(valuesOf(samples, 'sluice_requests_total', 'status')).toEqual({ 200: 180 })
    expect(valuesOf(samples, 'sluice_request_duration_seconds_count')).toEqual({ '': 180 })
    expect(valuesOf(samples, 'sluice_quota_limit', 'class')).toMatchObject({ read: 60 })
    const exemplars = samples.filter(({ name }) => name === 'sluice_requests_total').map(({ exemplar }) => exemplar)
    expect(exemplars).toEqual([{ labels: { correlation_id: expect.stringMatching(/^[0-9a-f-]{36}$/) }, value: 1 }])
    expect((await fetch(`${gateway.adminUrl}/readyz`)).status).toBe(200)
    const { data } = (await (await fetch(`${gateway.adminUrl}/v1/quota`)).json()) as { data: object[] }
    expect(data).toContainEqual(expect.objectContaining({ account: 'prod', class: 'read', limit: 60 }))
    const pids = () => new Set([...gateway.stdout.matchAll(/"pid":(\d+),"msg":"call"/g)].map(([, pid]) => Number(pid)))
    // On a busy machine one of three may have had no turn while 180 calls came.
    await expect
      .poll(async () => {
        if (pids().size < 3) await call(gateway.url, READ)
        return pids().size
      })
      .toBe(3)
    expect(pids()).not.toContain(gateway.child.pid)
  })

  it('has the latest call of all workers as the exemplar of each series', async () => {
    const { gateway, metrics } = await setUp()
    const send = (id: string) => call(gateway.url, READ, { headers: { 'x-correlation-id': id } })
    for (let i = 0; i < 11; i++) await send(`id-${i}`)
    // Exemplars of different processes are told apart by the millisecond.
    const before = Date.now()
    await expect.poll(() => Date.now()).toBeGreaterThan(before + 1)
    const last = 'id-last'
    await send(last)
    let samples = parseMetrics(await metrics())
    const exemplarsOf = (name: string) => samples.filter((sample) => sample.name === name).map((one) => one.exemplar)
    // A call is counted when its response has gone out, which may be a moment after it has come in.
    const ofCalls = async () => {
      samples = parseMetrics(await metrics())
      return exemplarsOf('sluice_requests_total')
    }
    await expect.poll(ofCalls).toEqual([{ labels: { correlation_id: last }, value: 1 }])
    const ofBuckets = exemplarsOf('sluice_request_duration_seconds_bucket').map((one) => one?.labels['correlation_id'])
    expect(ofBuckets).toContain(last)
  })

  it('replaces a worker that dies', async () => {
    const { gateway, metrics } = await setUp()
    await call(gateway.url, READ)
    await gateway.line(/"msg":"call"/)
    const pid = Number(/"pid":(\d+),"msg":"call"/.exec(gateway.stdout)![1])
    process.kill(pid, 'SIGKILL')
    await gateway.line(/will be replaced/)
    // The others serve: a gateway that is taken out of service for one of them would be the greater outage.
    const ready = await call(gateway.adminUrl, '/readyz')
    expect(ready.status).toBe(200)
    expect(ready.json()).toEqual({ status: 'ready', degraded: '1 of 3 workers are missing' })
    const degraded = async () => (await call(gateway.adminUrl, '/readyz')).json().degraded
    await expect.poll(degraded).toBeUndefined()
    expect((await call(gateway.url, READ)).status).toBe(200)
    expect(valuesOf(parseMetrics(await metrics()), 'sluice_workers_missing')).toEqual({ '': 0 })
  })

  it('says that no worker answers, and nothing of the store, while all of them are being replaced', async () => {
    const upstream = await startUpstream()
    const server = { port: await freePort(), workers: 2 }
    const gateway = await startProcess({ ...workersConfig(upstream.url), server })
    for (const pid of childrenOf(gateway.child.pid!)) process.kill(pid, 'SIGKILL')
    const quota = async () => (await call(gateway.adminUrl, '/v1/quota')).json().detail
    await expect.poll(quota).toBe('no worker answers')
    const causes = (await call(gateway.adminUrl, '/v1/causes')).json().data as { what: string }[]
    expect(causes.map(({ what }) => what)).toEqual(['This gateway is not ready: no worker answers.'])
  })

  it('holds a breaker that was opened by hand open in a worker that starts later, until it is closed', async () => {
    const upstream = await startUpstream()
    const gateway = await startProcess({
      ...workersConfig(upstream.url),
      // When all workers are gone, a port that the system chose is gone, too.
      server: { port: await freePort(), workers: 2 },
      admin: { port: 0, token: 'admin-token' },
    })
    const headers = { authorization: 'Bearer admin-token', 'content-type': 'application/json' }
    const order = (state: string) =>
      call(gateway.adminUrl, '/v1/upstreams/harness/breaker', {
        method: 'POST',
        headers,
        body: JSON.stringify({ state }),
      })
    const workers = () => childrenOf(gateway.child.pid!)
    const replaceAll = async () => {
      const before = workers()
      for (const pid of before) process.kill(pid, 'SIGKILL')
      await expect.poll(() => workers().filter((pid) => !before.includes(pid)).length).toBe(2)
      await expect.poll(async () => (await call(gateway.adminUrl, '/readyz')).json().status).toBe('ready')
      await expect.poll(async () => (await call(gateway.adminUrl, '/readyz')).json().degraded).toBeUndefined()
    }
    const ofCalls = async () =>
      new Set(
        (await Promise.all(Array.from({ length: 20 }, () => call(gateway.url, READ)))).map(({ status }) => status),
      )
    expect((await order('open')).status).toBe(200)
    await replaceAll()
    expect(await ofCalls()).toEqual(new Set([503]))
    expect(upstream.seen).toEqual([])
    expect((await order('closed')).status).toBe(200)
    await replaceAll()
    expect(await ofCalls()).toEqual(new Set([200]))
  })

  it.skipIf(!hasPrometheus()).each(['SIGKILL', 'SIGSTOP'] as const)(
    'keeps counting up when a worker gets %s under load',
    async (signal) => {
      const upstream = await startUpstream()
      const gateway = await startProcess(workersConfig(upstream.url, { limits: { read: [] } }))
      // A scrape waits two seconds for a worker that hangs, and on a busy machine somewhat longer.
      const prometheus = await PrometheusServer.start([gateway.adminUrl], undefined, '5s')
      onTestFinished(() => prometheus.stop())
      let isOver = false
      let answered = 0
      const client = async (): Promise<void> => {
        while (!isOver) {
          // Not in one statement: it would add to what was there before the call.
          const count = await call(gateway.url, READ).then(one, none)
          answered += count
          await pause(20)
        }
      }
      const clients = [client(), client(), client()]
      const valueOf = async (query: string) => Number((await prometheus.query(query))[0]?.value?.[1])
      const counted = () => valueOf('sum(sluice_requests_total)')
      const patient = { interval: 500 }
      await expect.poll(counted, patient).toBeGreaterThan(0)
      const pid = Number(/"pid":(\d+),"msg":"call"/.exec(gateway.stdout)![1])
      if (signal === 'SIGSTOP') freeze(pid)
      else process.kill(pid, signal)
      if (signal === 'SIGSTOP') {
        // It is replaced soon, so one scrape or two see that it is missing.
        await expect.poll(() => valueOf('max_over_time(sluice_workers_missing[5m])'), patient).toBeGreaterThan(0)
        await gateway.line(/does not answer any more and is killed/)
      }
      await gateway.line(/"signal":"SIGKILL","msg":"a worker died and will be replaced"/)
      const before = await counted()
      await expect.poll(() => valueOf('sluice_workers_missing'), patient).toBe(0)
      await expect.poll(counted, patient).toBeGreaterThan(before)
      isOver = true
      await Promise.all(clients)
      // No counter began anew, which Prometheus would take for calls that nobody made; and no scrape failed.
      for (const name of [
        'sluice_requests_total',
        'sluice_request_duration_seconds_count',
        'process_cpu_seconds_total',
      ])
        expect(await prometheus.query(`resets(${name}[5m]) > 0`)).toEqual([])
      expect(await prometheus.query('min_over_time(up[5m]) == 0')).toEqual([])
      expect(await counted()).toBeLessThanOrEqual(answered)
    },
  )

  it('serves what the others know, and replaces it, when a worker hangs', async () => {
    const { gateway, metrics } = await setUp()
    for (let i = 0; i < 12; i++) await call(gateway.url, READ)
    const requests = async () => valuesOf(parseMetrics(await metrics()), 'sluice_requests_total', 'status')
    await expect.poll(requests).toEqual({ 200: 12 })
    const pid = Number(/"pid":(\d+),"msg":"call"/.exec(gateway.stdout)![1])
    freeze(pid)
    const missing = async () => valuesOf(parseMetrics(await metrics()), 'sluice_workers_missing')
    // At once, since a worker that hangs is killed after a while.
    const [scraped, readyz, quota] = await Promise.all([
      metrics().then(parseMetrics),
      call(gateway.adminUrl, '/readyz'),
      call(gateway.adminUrl, '/v1/quota'),
    ])
    expect(valuesOf(scraped, 'sluice_workers_missing')).toEqual({ '': 1 })
    expect(valuesOf(scraped, 'sluice_requests_total', 'status')).toEqual({ 200: 12 })
    expect(readyz.status).toBe(200)
    expect(quota.json().data).toHaveLength(4)
    await gateway.line(new RegExp(`"worker":${pid},"msg":"a worker does not answer any more and is killed"`))
    await expect.poll(missing).toEqual({ '': 0 })
    expect(await requests()).toEqual({ 200: 12 })
  })

  it('ends on SIGTERM although a worker hangs', async () => {
    const { gateway } = await setUp()
    await call(gateway.url, READ)
    await gateway.line(/"msg":"call"/)
    freeze(Number(/"pid":(\d+),"msg":"call"/.exec(gateway.stdout)![1]))
    gateway.kill('SIGTERM')
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
  })

  it('leaves no worker behind that hangs when it is told to end at once', async () => {
    const { gateway } = await setUp()
    await call(gateway.url, READ)
    await gateway.line(/"msg":"call"/)
    freeze(Number(/"pid":(\d+),"msg":"call"/.exec(gateway.stdout)![1]))
    gateway.kill('SIGTERM')
    await gateway.line(/"msg":"draining/)
    gateway.kill('SIGTERM')
    // Its output ends when the last process that could write to it has ended.
    expect(await gateway.ended).toEqual({ code: 1, signal: null })
  })

  it('counts the first process among those whose memory, processor time and files it shows', async () => {
    const { gateway, metrics } = await setUp()
    const [, most] = /^Max open files +\S+ +(\d+)/m.exec(readFileSync(`/proc/${gateway.child.pid}/limits`, 'utf8'))!
    const files = async () => valuesOf(parseMetrics(await metrics()), 'process_max_fds')
    await expect.poll(files).toEqual({ '': 4 * Number(most) })
  })

  it('shows every quota once, with the queues of all added up', async () => {
    const upstream = await startUpstream()
    const limits = { read: [{ requests: 1, window: '1h' }], template: [{ requests: 9, window: '1h' }] }
    const gateway = await startProcess(workersConfig(upstream.url, { limits, queue: { maxWait: '24h' } }))
    await call(gateway.url, READ)
    await call(gateway.url, '/harness/template/api/templates/template_1', { method: 'DELETE' })
    const waiting = Array.from({ length: 4 }, () => call(gateway.url, READ).catch(() => 'broken off'))
    const rows = async () => (await call(gateway.adminUrl, '/v1/quota')).json().data as QuotaRow[]
    const waitingReads = async () => (await rows()).find((row) => row.class === 'read')?.waiting
    await expect.poll(waitingReads).toBe(4)
    expect((await rows()).map((row) => `${row.class} ${row.window} ${row.used}`).toSorted()).toEqual([
      'read 1h 1',
      'template 1h 1',
      'webhook 1m 0',
      'write 1m 1',
    ])
    gateway.kill('SIGKILL')
    await Promise.all(waiting)
  })

  it.each(['server', 'admin'])('leaves no process behind if the port of the %s is taken', async (listener) => {
    const port = await takenPort()
    const config = workersConfig('http://127.0.0.1:1') as Record<string, object>
    config[listener] = { ...config[listener], port }
    const cwd = newFolder()
    writeFileSync(join(cwd, 'sluice.yaml'), stringify(config))
    const program = new Program(['start'], { cwd })
    // Its output ends when the last process that could write to it has ended.
    expect(await program.ended).toEqual({ code: 1, signal: null })
    expect(program.stderr).toMatch(new RegExp(`^port ${port} of 127.0.0.1 is in use;.*\n$`))
    expect(program.stdout).not.toContain('will be replaced')
  })

  // On a busy machine the second may be past that moment before it is seen there.
  it('ends if a worker dies before it takes the listener that was sent to it', { retry: 2 }, async () => {
    const { program, pid, first, second } = await startTwo(await takenPort())
    // While it warms up, it listens on a port of its own. Next it asks the first process for the port of the server.
    await expect.poll(() => isListening(second), { interval: 5 }).toBe(true)
    freeze(pid)
    await isAtRest(second)
    freeze(second)
    process.kill(pid, 'SIGCONT')
    await expect.poll(() => childrenOf(pid)).not.toContain(first)
    process.kill(second, 'SIGCONT')
    expect(await program.ended).toEqual({ code: 1, signal: null })
  })

  it('says in a line that a worker was killed while it started', async () => {
    const cwd = newFolder()
    writeFileSync(join(cwd, 'sluice.yaml'), stringify(workersConfig('http://127.0.0.1:1')))
    const program = new Program(['start'], { cwd })
    await expect.poll(() => childrenOf(program.child.pid!).length, { interval: 5 }).toBeGreaterThan(0)
    process.kill(childrenOf(program.child.pid!)[0]!, 'SIGKILL')
    expect(await program.ended).toEqual({ code: 1, signal: null })
    expect(program.stderr).toBe('a worker ended before it took calls (SIGKILL)\n')
  })

  it('ends with 0 when SIGTERM is sent to every process while they start', async () => {
    const { program, pid, first, second } = await startTwo(await freePort())
    for (const one of [pid, first, second]) process.kill(one, 'SIGTERM')
    expect(await program.ended).toEqual({ code: 0, signal: null })
    expect(program.stdout + program.stderr).not.toMatch(/"level":[56]0|before it took calls/)
  })

  it('says nothing of a worker that ended because all were told to stop, while another still started', async () => {
    const { program, pid, first, second } = await startFirstOfTwo()
    for (const told of [pid, first]) process.kill(told, 'SIGTERM')
    await expect.poll(() => childrenOf(pid)).toEqual([second])
    process.kill(second, 'SIGCONT')
    expect(await program.ended).toEqual({ code: 0, signal: null })
    expect(program.stdout).not.toContain('"level":50')
  })

  it.each([1, 2])('says that the start failed before it finishes calls that came meanwhile: %i', async (workers) => {
    const cwd = newFolder()
    const config = { ...workersConfig('http://127.0.0.1:1'), admin: { port: await takenPort() } }
    // The workers take calls for longer than a test may take.
    writeFileSync(
      join(cwd, 'sluice.yaml'),
      stringify({ ...config, server: { port: 0, workers, shutdownDelay: '10m' } }),
    )
    const program = new Program(['start'], { cwd })
    expect(await program.line(/"msg":"the start failed/)).toContain('EADDRINUSE')
  })

  it('replaces a worker that died while another still started', async () => {
    const { program, pid, first, second, url } = await startFirstOfTwo()
    process.kill(first, 'SIGKILL')
    await expect.poll(() => childrenOf(pid)).toEqual([second])
    process.kill(second, 'SIGCONT')
    await program.line(/"msg":"a worker died while others started and will be replaced"/)
    await expect.poll(() => childrenOf(pid).length).toBe(2)
    expect((await call(url, '/nothing')).status).toBe(404)
    program.kill('SIGTERM')
    expect(await program.ended).toEqual({ code: 0, signal: null })
  })

  it('reloads while one worker stops, which still finishes what it has', async () => {
    const upstream = await startUpstream()
    // The worker stops for longer than a test may take.
    const server = { port: 0, workers: 2, shutdownDelay: '10m' }
    const config = { ...workersConfig(upstream.url), server }
    const gateway = await startProcess(config)
    const [stopping] = childrenOf(gateway.child.pid!) as [number]
    const stops = async () => {
      const client = await RawClient.connect(gateway.url)
      client.write('GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n')
      const head = await client.until(/\r\n\r\n/)
      client.socket.destroy()
      return /^connection: close\r$/im.test(head)
    }
    expect(await stops()).toBe(false)
    process.kill(stopping, 'SIGTERM')
    await expect.poll(stops).toBe(true)
    for (const shutdownDelay of ['9m', '8m']) {
      gateway.configure({ ...config, server: { ...server, shutdownDelay } })
      const reloaded = await call(gateway.adminUrl, '/v1/reload', { method: 'POST' })
      expect([reloaded.status, reloaded.body]).toEqual([200, expect.stringContaining('applied')])
    }
    expect(childrenOf(gateway.child.pid!)).toContain(stopping)
  })

  it('ends without an error in the log while a worker that died is being replaced', async () => {
    const gateway = await startProcess(workersConfig('http://127.0.0.1:1'))
    const pid = gateway.child.pid!
    const before = childrenOf(pid)
    process.kill(before[0]!, 'SIGKILL')
    const added = () => childrenOf(pid).filter((child) => !before.includes(child))
    await expect.poll(() => added().length, { interval: 5 }).toBe(1)
    gateway.kill('SIGTERM')
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
    const errors = gateway.stdout.split('\n').filter((line) => line.includes('"level":50'))
    expect(errors).toEqual([expect.stringContaining('a worker died and will be replaced')])
    expect(gateway.stderr).toBe('')
  })

  it('drains on SIGTERM: every worker finishes what it has', async () => {
    const { sandbox, gateway } = await setUp()
    sandbox.setFaults({ latencyMs: 500 })
    const running = Array.from({ length: 12 }, () => call(gateway.url, READ))
    await expect.poll(() => sandbox.seen().length).toBe(12)
    gateway.kill('SIGTERM')
    expect((await Promise.all(running)).every(({ status }) => status === 200)).toBe(true)
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
  })

  it('drains as well when SIGTERM is sent to every process, as service managers do', async () => {
    const { sandbox, gateway } = await setUp()
    sandbox.setFaults({ latencyMs: 500 })
    const running = Array.from({ length: 12 }, () => call(gateway.url, READ).catch(() => undefined))
    await expect.poll(() => sandbox.seen().length).toBe(12)
    for (const pid of [...childrenOf(gateway.child.pid!), gateway.child.pid!]) process.kill(pid, 'SIGTERM')
    expect((await Promise.all(running)).map((answer) => answer?.status)).toEqual(running.map(() => 200))
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
    expect(gateway.stdout).not.toContain('will be replaced')
  })
})
