import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { startSandbox } from '../../src/sandbox/sandbox.ts'
import type { QuotaRow } from '../../src/server/admin.ts'
import { ACCOUNT, harnessConfig, newFolder, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { parseMetrics, valuesOf } from '../support/openmetrics.ts'
import { Program, startProcess } from '../support/process.ts'

const READ = '/harness/ng/api/projects'

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
    const pids = () => new Set([...gateway.stdout.matchAll(/"pid":(\d+),"msg":"call"/g)].map(([, pid]) => Number(pid)))
    await expect.poll(() => pids().size).toBe(3)
    expect(pids()).not.toContain(gateway.child.pid)
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
    const ready = async () => (await fetch(`${gateway.adminUrl}/readyz`)).status
    expect(await ready()).toBe(503)
    expect(parseMetrics(await metrics())).not.toEqual([])
    await expect.poll(ready, { timeout: 10_000 }).toBe(200)
    expect((await call(gateway.url, READ)).status).toBe(200)
  })

  it('says so when a worker does not answer', async () => {
    const { gateway } = await setUp()
    await call(gateway.url, READ)
    await gateway.line(/"msg":"call"/)
    const pid = Number(/"pid":(\d+),"msg":"call"/.exec(gateway.stdout)![1])
    process.kill(pid, 'SIGSTOP')
    onTestFinished(() => void process.kill(pid, 'SIGCONT'))
    const answer = await call(gateway.adminUrl, '/readyz')
    expect(answer.json()).toEqual({ status: 'not ready', reason: 'a worker does not answer' })
    // The others know as much.
    expect((await call(gateway.adminUrl, '/v1/quota')).json().data).toHaveLength(4)
    // But a sum without it would look as if its counters had begun anew.
    const scrape = await call(gateway.adminUrl, '/metrics')
    expect(scrape).toMatchObject({ status: 500, body: expect.stringContaining('a worker does not answer') })
    process.kill(pid, 'SIGCONT')
    await expect.poll(async () => (await call(gateway.adminUrl, '/readyz')).status, { timeout: 10_000 }).toBe(200)
  })

  it('shows every quota once, with the queues of all added up', async () => {
    const upstream = await startUpstream()
    const limits = { read: [{ requests: 1, window: '1h' }], template: [{ requests: 9, window: '1h' }] }
    const gateway = await startProcess(workersConfig(upstream.url, { limits, queue: { maxWait: '24h' } }))
    await call(gateway.url, READ)
    await call(gateway.url, '/harness/template/api/templates/x', { method: 'DELETE' })
    const waiting = Array.from({ length: 4 }, () => call(gateway.url, READ).catch(() => 'broken off'))
    const rows = async () => (await call(gateway.adminUrl, '/v1/quota')).json().data as QuotaRow[]
    const waitingReads = async () => (await rows()).find((row) => row.class === 'read')?.waiting
    await expect.poll(waitingReads, { timeout: 10_000 }).toBe(4)
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
    const other = createServer()
    await new Promise<void>((resolve) => void other.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => void other.close())
    const { port } = other.address() as { port: number }
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

  it('drains on SIGTERM: every worker finishes what it has', async () => {
    const { sandbox, gateway } = await setUp()
    sandbox.setFaults({ latencyMs: 500 })
    const running = Array.from({ length: 12 }, () => call(gateway.url, READ))
    await expect.poll(() => sandbox.seen().length).toBe(12)
    gateway.kill('SIGTERM')
    expect((await Promise.all(running)).every(({ status }) => status === 200)).toBe(true)
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
  })
})
