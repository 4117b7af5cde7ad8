import { hash } from 'node:crypto'
import { Agent, request } from 'node:http'
import { describe, expect, it, onTestFinished } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { type Sandbox, type SandboxOptions, startSandbox } from '../../src/sandbox/sandbox.ts'
import type { QuotaRow } from '../../src/server/admin/status.ts'
import { ACCOUNT, harnessConfig, newFolder, startGateway, TOKEN, stores } from '../support/gateway.ts'
import { harnessRequests } from '../support/harness-requests.ts'
import { type Answer, call, RawClient } from '../support/http.ts'
import { startProcess } from '../support/process.ts'

async function startSandboxForTest(options: SandboxOptions = {}): Promise<Sandbox> {
  const sandbox = await startSandbox(options)
  onTestFinished(() => sandbox.stop())
  return sandbox
}

const READ = '/harness/ng/api/projects'

describe.each(Object.entries(stores))('with %s', (_, store) => {
  it('the requests of a generated client arrive unchanged, with the credential, in their class', async () => {
    const sandbox = await startSandboxForTest()
    const clients = { sdk: { keys: [hashKey('slk_sdk')] } }
    const gateway = await startGateway({ ...harnessConfig(sandbox.url), store: store(), clients })
    const agent = new Agent({ keepAlive: true, maxSockets: 16 })
    const statuses = await Promise.all(harnessRequests.map((_, i) => send(agent, gateway.url, i)))
    agent.destroy()
    const seen = new Map(sandbox.seen().map((one) => [one.headers['x-test-number'], one]))
    expect(seen.size).toBe(400)
    // The sandbox has none of the entities that some ask for, and says so as the vendor does. The gateway refuses none.
    expect(statuses).toEqual(statuses.map((_, i) => seen.get(String(i))?.status))
    expect(statuses.filter((status) => status >= 400 && status !== 404 && status !== 400)).toEqual([])
    for (const [i, sent] of harnessRequests.entries()) {
      const arrived = seen.get(String(i))!
      expect(arrived).toMatchObject({
        method: sent.method,
        url: sent.url,
        account: ACCOUNT,
        bodyBytes: sent.body.length,
        bodySha256: hash('sha256', sent.body, 'hex'),
      })
      expect(arrived.headers['content-type']).toBe(sent.contentType)
      // On webhook routes a key would change what the server checks.
      expect(arrived.headers['x-api-key']).toBe(sent.charges[0] === 'webhook' ? undefined : TOKEN)
      expect(arrived.headers['harness-account']).toBe(ACCOUNT)
      expect(arrived.rawHeaders.join('\n')).not.toContain('slk_sdk')
    }
    const classes = new Map(gateway.lines.map((line) => [line.correlationId, line.class]))
    for (const [i, { charges, url }] of harnessRequests.entries()) expect(classes.get(`c-${i}`), url).toBe(charges[0])
  })

  it('the response tells the quota, in both dialects', async () => {
    const sandbox = await startSandboxForTest()
    const gateway = await startGateway({ ...harnessConfig(sandbox.url), store: store() })
    const before = Date.now() / 1_000
    await call(gateway.url, READ)
    const { headers } = await call(gateway.url, READ)
    expect(headers).toMatchObject({
      'x-ratelimit-limit': '1000',
      'x-ratelimit-remaining': '998',
      'ratelimit-policy': '"read";q=1000;w=60',
    })
    expect(headers['ratelimit']).toMatch(/^"read";r=998;t=(60|61)$/)
    const reset = Number(headers['x-ratelimit-reset'])
    expect(reset).toBeGreaterThan(before + 57)
    expect(reset).toBeLessThan(Date.now() / 1_000 + 63)
    expect(headers['server-timing']).toMatch(/^queue;dur=\d+\.\d, upstream;dur=\d+\.\d, gateway;dur=\d+\.\d$/)
  })

  it('a template operation is charged to two classes, and told the tighter one', async () => {
    const sandbox = await startSandboxForTest()
    const gateway = await startGateway({ ...harnessConfig(sandbox.url), store: store() })
    await call(gateway.url, READ)
    const { headers } = await call(gateway.url, '/harness/template/api/templates/template_1')
    expect(headers['ratelimit-policy']).toBe('"template";q=100;w=60')
    const metrics = await gateway.metrics()
    const used = (name: string) =>
      Number(new RegExp(`sluice_quota_used\\{[^}]*class="${name}"[^}]*\\} (\\d+)`).exec(metrics)?.[1])
    expect([used('read'), used('template')]).toEqual([2, 1])
  })

  it('a burst waits and is served in order; not one call reaches the upstream too early', async () => {
    const limits = { read: { requests: 20, windowMs: 500 } }
    const sandbox = await startSandboxForTest({ limits })
    const gateway = await startGateway({
      ...harnessConfig(sandbox.url, {
        limits: { read: [{ requests: 20, window: '500ms' }] },
        queue: { maxWait: '60s' },
        retry: { retries: 0 },
      }),
      store: store(),
    })
    const answers = await Promise.all(Array.from({ length: 100 }, () => call(gateway.url, READ)))
    expect(answers.filter(({ status }) => status !== 200)).toEqual([])
    expect(sandbox.counts().accounts[ACCOUNT]!.read).toMatchObject({ accepted: 100, throttled: 0 })
    expect(sandbox.counts().accounts[ACCOUNT]!.read!.worst).toBeLessThanOrEqual(20)
    const metrics = await gateway.metrics()
    // How many found no quota depends on how fast they came.
    const waited = gateway.lines.filter(({ expectedMs }) => expectedMs !== undefined).length
    expect(waited).toBeGreaterThan(0)
    expect(metrics).toMatch(new RegExp(`sluice_queue_wait_seconds_count\\{[^}]*class="read"\\} ${waited}\n`))
    expect(metrics).toMatch(
      new RegExp(`sluice_quota_denied_total\\{[^}]*client="anonymous"\\} ${waited} # \\{correlation_id=`),
    )
    expect(metrics).toContain('sluice_queue_depth{upstream="harness",account="prod",class="read"} 0')
  })

  it('a call that may not wait so long is refused at once, and told honestly when to come back', async () => {
    const sandbox = await startSandboxForTest()
    const gateway = await startGateway({
      ...harnessConfig(sandbox.url, { limits: { read: [{ requests: 2, window: '6s' }] }, queue: { maxWait: '1s' } }),
      store: store(),
    })
    const before = performance.now()
    for (let i = 0; i < 2; i++) await call(gateway.url, READ)
    const refused = await call(gateway.url, READ)
    const passedS = (performance.now() - before) / 1_000
    expectThrottled(refused, 'quota_exhausted', 'RATE_LIMIT_EXCEEDED')
    expect(refused.headers['x-ratelimit-remaining']).toBe('0')
    const retryAfter = Number(refused.headers['retry-after'])
    expect(retryAfter).toBeGreaterThanOrEqual(6 - passedS)
    expect(retryAfter).toBeLessThanOrEqual(7)
    expect((await call(gateway.url, READ, { headers: { 'x-sluice-max-wait': '0' } })).status).toBe(429)
    await new Promise((resolve) => void setTimeout(resolve, retryAfter * 1_000))
    expect((await call(gateway.url, READ, { headers: { 'x-sluice-max-wait': '0' } })).status).toBe(200)
    expect(sandbox.seen()).toHaveLength(3)
  })

  it('no more calls wait than may, and one that leaves makes room', async () => {
    const sandbox = await startSandboxForTest()
    const gateway = await startGateway({
      ...harnessConfig(sandbox.url, {
        limits: { read: [{ requests: 1, window: '6s' }] },
        queue: { maxWait: '1h', maxWaiting: 2 },
      }),
      store: store(),
    })
    await call(gateway.url, READ)
    const depth = async () => Number(/sluice_queue_depth\{[^}]*\} (\d+)/.exec(await gateway.metrics())?.[1])
    const leaver = await RawClient.connect(gateway.url)
    leaver.write(`GET ${READ} HTTP/1.1\r\nHost: x\r\n\r\n`)
    await expect.poll(depth).toBe(1)
    const waiting = call(gateway.url, READ)
    await expect.poll(depth).toBe(2)
    const full = await call(gateway.url, READ)
    expectThrottled(full, 'queue_full', 'QUEUE_FULL')
    leaver.socket.destroy()
    await expect.poll(depth).toBe(1)
    expect((await waiting).status).toBe(200)
    // The one that left was never sent, and never charged.
    expect(sandbox.seen()).toHaveLength(2)
  })

  it('no more calls are in flight than may, per class', async () => {
    const sandbox = await startSandboxForTest()
    sandbox.setFaults({ latencyMs: 30 })
    const gateway = await startGateway({ ...harnessConfig(sandbox.url, { concurrency: { read: 3 } }), store: store() })
    const startedAt = performance.now()
    const answers = await Promise.all(Array.from({ length: 12 }, () => call(gateway.url, READ)))
    expect(answers.every(({ status }) => status === 200)).toBe(true)
    const at = sandbox.seen().map((one) => one.at)
    // With three at a time, the fourth can't have come before the first was answered.
    for (let i = 3; i < at.length; i++) expect(at[i]! - at[i - 3]!).toBeGreaterThan(28)
    expect(performance.now() - startedAt).toBeGreaterThan(4 * 30)
  })
})

describe('the embedded store', () => {
  it('does not hand out a second quota after kill -9 in the middle of a burst, nor after an orderly stop', async () => {
    // So much that there is quota left for the third burst even if all 80 calls of the first were in flight when it was cut.
    const sandbox = await startSandboxForTest({ limits: { read: { requests: 400, windowMs: 300_000 } } })
    const config = harnessConfig(sandbox.url, {
      limits: { read: [{ requests: 400, window: '5m' }] },
      queue: { maxWait: '100ms' },
      retry: { retries: 0 },
    })
    const dir = newFolder()
    for (const signal of ['SIGKILL', 'SIGTERM', 'SIGKILL'] as const) {
      const gateway = await startProcess({ ...config, store: { dir } })
      const before = sandbox.seen().length
      const burst = Promise.allSettled(Array.from({ length: 80 }, () => call(gateway.url, READ)))
      if (signal === 'SIGTERM') await burst
      else await expect.poll(() => sandbox.seen().length - before).toBeGreaterThan(5)
      gateway.kill(signal)
      await Promise.all([burst, gateway.ended])
    }
    const gateway = await startProcess({ ...config, store: { dir } })
    const before = sandbox.seen().length
    const used = await usedOf(gateway.adminUrl, 'read')
    await Promise.all(Array.from({ length: 400 }, () => call(gateway.url, READ)))
    const { worst, throttled } = sandbox.counts().accounts[ACCOUNT]!.read!
    expect(throttled).toBe(0)
    expect(worst).toBeLessThanOrEqual(400)
    // What arrived is counted, and what is not counted is there to be used. Calls that were charged and did not arrive
    // before the kill are counted too; how many those are depends on the machine.
    expect(used).toBeGreaterThanOrEqual(before)
    expect(sandbox.seen().length - before).toBe(Math.max(0, 400 - used))
  })
})

describe('three gateway processes on one Redis', () => {
  it('let 3,000 reads at once wait their turn: none over the quota, no 429 for a client that could wait', async () => {
    // A window that is so long that a busy machine can use its quota up.
    const [requests, windowMs] = [500, 3_000]
    const sandbox = await startSandboxForTest({ limits: { read: { requests, windowMs } } })
    sandbox.setFaults({ latencyMs: { min: 5, max: 60 } })
    const config = {
      ...harnessConfig(sandbox.url, {
        limits: { read: [{ requests, window: `${windowMs}ms` }] },
        queue: { maxWait: '60s', maxWaiting: 2_000 },
        retry: { retries: 0 },
      }),
      store: stores.Redis(),
    }
    const gateways = await Promise.all(Array.from({ length: 3 }, () => startProcess(config)))
    const statuses = await Promise.all(
      gateways.map(async (gateway) => {
        const agent = new Agent({ keepAlive: true })
        const answers = await Promise.all(Array.from({ length: 1_000 }, () => get(agent, gateway.url, READ)))
        agent.destroy()
        return answers
      }),
    )
    expect(new Set(statuses.flat())).toEqual(new Set([200]))
    const { accepted, throttled, worst } = sandbox.counts().accounts[ACCOUNT]!.read!
    expect({ accepted, throttled }).toEqual({ accepted: 3_000, throttled: 0 })
    expect(worst).toBeLessThanOrEqual(requests)
    expect(worst).toBeGreaterThan(requests * 0.9)
  })
})

/** What counts now against the only limit of a class, as operators see it. */
async function usedOf(adminUrl: string, className: string): Promise<number> {
  const { data } = (await (await fetch(`${adminUrl}/v1/quota`)).json()) as { data: QuotaRow[] }
  return data.find((row) => row.class === className)!.used
}

function expectThrottled(answer: Answer, kind: string, code: string): void {
  expect(answer.status).toBe(429)
  expect(answer.headers['x-sluice-error']).toBe(kind)
  expect(answer.json()).toMatchObject({ code, status: 'ERROR' })
  expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0)
}

/** The status of the answer to one request of the sample, which carries its number to where it arrives. */
function send(agent: Agent, base: string, number: number): Promise<number> {
  const { method, url, contentType, body } = harnessRequests[number]!
  const headers = {
    'x-test-number': String(number),
    'x-correlation-id': `c-${number}`,
    'x-api-key': 'slk_sdk',
    ...(contentType === undefined ? {} : { 'content-type': contentType }),
    ...(body === '' ? {} : { 'content-length': String(body.length) }),
  }
  return get(agent, base, `/harness${url}`, { method, headers }, body)
}

function get(agent: Agent, base: string, path: string, options: object = {}, body = ''): Promise<number> {
  return new Promise((resolve, reject) => {
    const outgoing = request(base + path, { agent, ...options }, (response) => {
      response.resume().once('end', () => resolve(response.statusCode ?? 0))
    })
    outgoing.once('error', reject).end(body)
  })
}
