import { writeFileSync } from 'node:fs'
import type { LookupFunction } from 'node:net'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import pino from 'pino'
import { parse, stringify } from 'yaml'
import { describe, expect, it, onTestFinished } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { hashKey } from '../../src/clients/keys.ts'
import { createLog } from '../../src/observe/log.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import type { QuotaRow } from '../../src/server/admin/status.ts'
import { Claims } from '../../src/webhooks/claims.ts'
import { WebhookCounts } from '../../src/webhooks/counts.ts'
import type { Message } from '../../src/webhooks/message.ts'
import { Webhooks, type WebhooksOptions } from '../../src/webhooks/webhooks.ts'
import { readText } from '../deploy/repository.ts'
import { runCommand } from '../support/command-line.ts'
import { harnessConfig, newFolder, startGateway, startUpstream, type TestGateway } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const READ = '/harness/ng/api/projects'
const SECRET = '/services/T000/B000/very-secret'

/** Where messages go. It answers by `answer`, a status or nothing at all. */
async function startReceiver(answer: (number: number) => number | 'silence' = () => 200) {
  let number = 0
  const receiver = await startUpstream((_, response) => {
    const status = answer(number++)
    if (status !== 'silence') response.writeHead(status).end('ok')
  })
  return {
    url: `${receiver.url}${SECRET}`,
    seen: receiver.seen,
    get messages(): Message[] {
      return receiver.seen.map(({ body }) => JSON.parse(body) as Message)
    },
  }
}

/** A gateway in a time of its own. */
async function startTelling(
  webhooks: object,
  {
    upstream = {},
    status = 200,
    rest = {},
    lookup,
  }: { upstream?: object; status?: number; rest?: object; lookup?: LookupFunction } = {},
) {
  const clock = new SimulatedClock()
  let text = ''
  const sink = new Writable({
    write(chunk, _, done) {
      text += String(chunk)
      done()
    },
  })
  const log = { ...createLog({ level: 'silent', format: 'json' }), logger: pino({}, sink) }
  const vendor = await startUpstream((_, response) => void response.writeHead(status).end('{}'))
  const config = harnessConfig(vendor.url, { retry: { retries: 0 }, ...upstream }, { webhooks, ...rest })
  const gateway = await startGateway(config, { clock, log, ...(lookup && { lookup }) })
  /** Lets so many looks happen, and what they tell arrive. */
  const looks = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) await clock.advance(10_000)
  }
  /** What a call did is known a moment after its client has its answer: looks until it is told. */
  const eventually = (read: () => unknown) =>
    expect.poll(async () => {
      await looks(1)
      return read()
    })
  return { gateway, clock, config, looks, eventually, log: () => text }
}

const calls = (gateway: TestGateway, times: number) =>
  Promise.all(
    Array.from({ length: times }, (_, i) => call(gateway.url, READ, { headers: { 'x-correlation-id': `call-${i}` } })),
  )
const told = (messages: readonly Message[]) => messages.map(({ status, key }) => `${status} ${key}`)

describe('webhooks', () => {
  it('tell of the usage of accounts that are known as ever, while that of another is not', async () => {
    const receiver = await startReceiver()
    const clock = new SimulatedClock()
    const webhook = { url: receiver.url, events: ['usage'] }
    const config = checkConfig(harnessConfig('http://x', {}, { webhooks: { oncall: webhook } }), 'test')
    const limit = { upstream: 'u', class: 'read', window: '1h', limit: 10, effective: 10, remaining: 10, resetMs: 1 }
    const row = { ...limit, used: 0, exhaustionInMs: null, burnRatio: null, waiting: 0 }
    let limits: QuotaRow[] = []
    const none = async () => []
    const parts = {
      status: {
        notReady: async () => undefined,
        quota: async () => limits,
        requests: async () => ({ found: [], away: [] }),
        degraded: none,
        budgets: none,
        queue: none,
        credentials: none,
      },
      controls: { breakers: none, lastReload: () => undefined },
      management: { config: () => config, clients: { all: [] }, clock, logger: pino({ level: 'silent' }) },
    } as unknown as Pick<WebhooksOptions, 'status' | 'controls' | 'management'>
    const claims = new Claims(clock)
    const webhooks = new Webhooks({ ...parts, claims, counts: new WebhookCounts(new Metrics().registry) })
    onTestFinished(() => webhooks.close())
    const looks = async (count: number, ...rows: QuotaRow[]) => {
      limits = rows
      for (let i = 0; i < count; i++) await clock.advance(10_000)
    }
    const full = { used: 10 }
    await looks(1, { ...row, account: 'a', ...full }, { ...row, account: 'b', ...full })
    await expect.poll(() => told(receiver.messages)).toHaveLength(2)
    // Without Redis, what of `a` this gateway may not spend counts as used, and then as free.
    await looks(8, { ...row, account: 'a', ...full, isLocal: true }, { ...row, account: 'b' })
    await expect.poll(() => told(receiver.messages).slice(2)).toEqual(['resolved usage u/b read per 1h'])
    await looks(8, { ...row, account: 'a', isLocal: true }, { ...row, account: 'b' })
    await looks(8, { ...row, account: 'a' }, { ...row, account: 'b' })
    await expect
      .poll(() => told(receiver.messages).slice(2))
      .toEqual(['resolved usage u/b read per 1h', 'resolved usage u/a read per 1h'])
  })

  it('tell of an open breaker and its end, as JSON and as a chat takes it, with what to do', async () => {
    const [json, slack] = [await startReceiver(), await startReceiver()]
    const { gateway, looks, eventually, log } = await startTelling(
      {
        json: {
          url: json.url,
          headers: { authorization: 'Bearer of-the-receiver' },
          runbook: 'https://docs.example/runbook',
        },
        chat: { url: slack.url, format: 'slack' },
      },
      { status: 503, upstream: { breaker: { failures: 3, reset: '24h', maxReset: '24h' }, retry: { retries: 0 } } },
    )
    await calls(gateway, 3)
    await eventually(() => told(json.messages)).toContain('firing breaker harness')
    const breaker = json.messages.find(({ key }) => key === 'breaker harness')!
    expect(breaker).toMatchObject({
      event: 'breaker',
      severity: 'failing',
      summary: expect.stringContaining('The breaker of harness is open'),
      whatToDo: expect.stringContaining('status page'),
      runbook: 'https://docs.example/runbook#sluicebreakeropen',
      webhook: 'json',
    })
    expect(json.seen[0]!.headers).toMatchObject({
      authorization: 'Bearer of-the-receiver',
      'content-type': 'application/json',
    })
    await expect.poll(() => slack.seen.length).toBe(1)
    expect(JSON.parse(slack.seen[0]!.body).text).toMatch(
      /^:red_circle: \*Failing:\* The breaker of harness is open.*\n.*\nsee docs\/runbook\.md#sluicebreakeropen · /,
    )
    const count = json.seen.length
    await looks(3)
    expect(json.seen).toHaveLength(count)
    await fetch(`${gateway.adminUrl}/v1/upstreams/harness/breaker`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"state":"closed"}',
    })
    await looks(8)
    await eventually(() => told(json.messages)).toContain('resolved breaker harness')
    const over = json.messages.find(({ status }) => status === 'resolved')!
    expect(over.summary).toMatch(/^Resolved: The breaker of harness is /)
    expect(over.whatToDo).toBe('Nothing: it is over.')
    await expect.poll(() => slack.seen.length).toBe(2)
    expect(JSON.parse(slack.seen[1]!.body).text).toMatch(
      /^:white_check_mark: Resolved: The breaker of harness is .*\nsee docs\/runbook\.md#sluicebreakeropen · /,
    )
    expect(await gateway.metrics()).toMatch(/sluice_webhook_messages_total\{webhook="chat",result="sent"\} 2/)
    expect(log()).not.toContain('very-secret')
    expect(log()).not.toContain('of-the-receiver')
  })

  it('tell of a credential that is refused, with a call that shows it, and of a queue that is full', async () => {
    const receiver = await startReceiver()
    const { gateway, eventually } = await startTelling(
      { all: { url: receiver.url } },
      {
        status: 401,
        upstream: { limits: { read: [{ requests: 6, window: '1h' }] }, queue: { maxWait: '24h', maxWaiting: 1 } },
        rest: { server: { port: 0, drain: '0s' } },
      },
    )
    await calls(gateway, 5)
    await eventually(() => told(receiver.messages)).toContain('firing credential harness 401')
    const refused = receiver.messages.find(({ key }) => key === 'credential harness 401')!
    expect(refused.correlationId).toMatch(/^call-\d$/)
    expect(refused.runbook).toMatch(/#sluicecredentialrefused$/)
    void calls(gateway, 3).catch(() => undefined)
    await expect.poll(async () => (await gateway.metrics()).includes('outcome="queue_full"')).toBe(true)
    await eventually(() => told(receiver.messages)).toContain('firing queue_full queue_full harness')
    expect(told(receiver.messages)).toContain('firing usage harness/prod read per 1h')
  })

  it('tell at each threshold of a limit, when it will end, and that it is over', async () => {
    const receiver = await startReceiver()
    const webhook = { url: receiver.url, events: ['usage', 'exhaustion'], thresholds: ['50%', '90%'] }
    const upstream = { limits: { read: [{ requests: 10, window: '1h' }] } }
    const { gateway, looks, eventually } = await startTelling({ usage: webhook }, { upstream })
    for (let i = 0; i < 4; i++) {
      await calls(gateway, 1)
      await looks(6)
    }
    await eventually(() => told(receiver.messages)).toEqual(['firing exhaustion harness/prod read per 1h'])
    expect(receiver.messages[0]!.summary).toMatch(/will be used up in \d+ min at this rate: 4 of 10 are/)
    await calls(gateway, 1)
    await eventually(() => receiver.messages.at(-1)!.summary).toMatch(
      /^50 % of harness\/prod read per 1h is used: 5 of 10; at this rate it ends in \d+ min\.$/,
    )
    await calls(gateway, 4)
    await eventually(() => receiver.messages.at(-1)!.summary).toMatch(/^90 % of/)
    await looks(370)
    await eventually(() => told(receiver.messages).slice(3).toSorted()).toEqual([
      'resolved exhaustion harness/prod read per 1h',
      'resolved usage harness/prod read per 1h',
    ])
  })

  it('tell of the budget of a client that is nearly used', async () => {
    const receiver = await startReceiver()
    const clients = { bot: { keys: [hashKey('key-of-bot')], budget: [{ requests: 10, window: '1h' }] } }
    const webhooks = { usage: { url: receiver.url, events: ['usage'] } }
    const { gateway, eventually } = await startTelling(webhooks, { rest: { clients } })
    for (let i = 0; i < 8; i++) await call(gateway.url, READ, { headers: { 'x-sluice-key': 'key-of-bot' } })
    await eventually(() => receiver.messages.map(({ summary }) => summary)).toEqual([
      '80 % of the budget of bot per 1h is used: 8 of 10.',
    ])
    expect(receiver.messages[0]!.runbook).toMatch(/#sluicebudgetnearlyused$/)
  })

  it('let no caller call everybody in a chat, or leave the place of its correlation id', async () => {
    const receiver = await startReceiver()
    const chat = { url: receiver.url, format: 'slack', events: ['upstream'] }
    const { gateway, eventually } = await startTelling(
      { chat },
      { status: 500, upstream: { breaker: { failures: 100 } } },
    )
    const id = '`@channel<!here>[link](http://evil)`@ALL`'
    for (let i = 0; i < 6; i++) await call(gateway.url, READ, { headers: { 'x-correlation-id': id } })
    await eventually(() => receiver.seen.length).toBe(1)
    const { text } = JSON.parse(receiver.seen[0]!.body) as { text: string }
    expect(text).toContain("· call `'@\u200Bchannel&lt;!here&gt;[link](http://evil)'@\u200BALL'` ·")
  })

  it('tell of a rejected reload, and go by the configuration that is in force', async () => {
    const [before, after] = [await startReceiver(), await startReceiver()]
    const { gateway, looks, eventually, config } = await startTelling({ ops: { url: before.url } })
    await gateway.reloadWith({
      ...config,
      upstreams: { harness: { preset: 'harness', accounts: {} } },
      server: { port: 0, workers: 2 },
    })
    await eventually(() => told(before.messages)).toEqual(['firing reload configuration'])
    await gateway.reloadWith({ ...config, webhooks: { others: { url: after.url } } })
    await gateway.reloadWith({
      ...config,
      webhooks: { others: { url: after.url } },
      upstreams: {},
      server: { port: 0, workers: 2 },
    })
    await looks(10)
    expect(before.messages).toHaveLength(1)
    await eventually(() => told(after.messages)).toEqual(['firing reload configuration'])
  })

  it('are told anew what still lasts, and that it is over, when their URL is corrected', async () => {
    const [wrong, right] = [await startReceiver(), await startReceiver()]
    const webhook = (url: string) => ({ ops: { url, events: ['breaker'] } })
    const { gateway, looks, eventually, config } = await startTelling(webhook(wrong.url), {
      status: 503,
      upstream: { breaker: { failures: 3, reset: '24h', maxReset: '24h' }, retry: { retries: 0 } },
    })
    await calls(gateway, 3)
    await eventually(() => told(wrong.messages)).toEqual(['firing breaker harness'])
    expect(await gateway.reloadWith({ ...config, webhooks: webhook(right.url) })).toMatchObject({ result: 'applied' })
    await looks(1)
    await expect.poll(() => told(right.messages)).toEqual(['firing breaker harness'])
    await fetch(`${gateway.adminUrl}/v1/upstreams/harness/breaker`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"state":"closed"}',
    })
    await looks(8)
    await expect.poll(() => told(right.messages)).toEqual(['firing breaker harness', 'resolved breaker harness'])
    expect(wrong.messages).toHaveLength(1)
  })

  it('send again what failed for a while, and not what is refused for good', async () => {
    const [busy, gone] = [await startReceiver((number) => (number < 2 ? 503 : 200)), await startReceiver(() => 404)]
    const event = { events: ['upstream'] }
    const { gateway, looks, log } = await startTelling(
      { busy: { url: busy.url, ...event }, gone: { url: gone.url, ...event } },
      { status: 500 },
    )
    await calls(gateway, 6)
    await expect
      .poll(async () => {
        await looks(1)
        return busy.messages.map(({ status }) => status)
      })
      .toEqual(['firing', 'firing', 'firing'])
    expect(new Set(busy.messages.map(({ id }) => id)).size).toBe(1)
    expect(gone.seen).toHaveLength(1)
    expect(log()).toContain('"webhook":"gone"')
    expect(log()).toContain('it answered 404')
    expect(log()).not.toContain('very-secret')
  })

  it('reach no private address by a name, and say so without their URL', async () => {
    const receiver = await startReceiver()
    const url = receiver.url.replace('127.0.0.1', 'hooks.example')
    const lookup: LookupFunction = (_, __, callback) => callback(null, [{ address: '127.0.0.1', family: 4 }])
    const event = { events: ['upstream'] }
    const { gateway, eventually, log } = await startTelling(
      { closed: { url, ...event }, open: { url, ...event, privateAddresses: 'allow' } },
      { status: 500, lookup, upstream: { retry: { retries: 0 } } },
    )
    await calls(gateway, 6)
    await eventually(() => receiver.messages.map(({ webhook }) => webhook)).toEqual(['open'])
    await expect.poll(log).toContain('its host has no address that the network access rules allow')
    expect(log()).not.toMatch(/hooks\.example|very-secret/)
  })

  it('hold up neither calls nor the end of the gateway, when nobody answers', async () => {
    const receiver = await startReceiver(() => 'silence')
    const { gateway, eventually } = await startTelling(
      { silent: { url: receiver.url, events: ['upstream'] } },
      { status: 500, upstream: { breaker: { failures: 100 } } },
    )
    await calls(gateway, 6)
    await eventually(() => receiver.seen.length).toBe(1)
    expect((await calls(gateway, 1))[0]!.status).toBe(500)
    await gateway.stop()
  })
})

describe('a configuration of webhooks', () => {
  const problemsOf = (webhook: object, rest: object = {}): string => {
    try {
      checkConfig(harnessConfig('http://127.0.0.1:1', {}, { webhooks: { ops: webhook }, ...rest }), 'test')
      return ''
    } catch (error) {
      return (error as Error).message
    }
  }

  it.each([
    [{ url: 'ftp://x/very-secret' }, 'webhooks.ops.url: must be an http:// or https:// URL'],
    [{ url: 'very-secret' }, 'webhooks.ops.url: must be an http:// or https:// URL'],
    [{ url: 'https://user:very-secret@x/' }, 'webhooks.ops.url: must be an http:// or https:// URL without user'],
    [{ url: 'https://x/', events: ['nothing'] }, 'webhooks.ops.events'],
    [{ url: 'https://x/', thresholds: ['120%'] }, 'webhooks.ops.thresholds'],
    [{ url: 'https://x/', headers: { 'content-length': '1' } }, 'webhooks.ops.headers.content-length'],
    [{ url: 'https://x/', headers: { a: 'very\nsecret' } }, 'webhooks.ops.headers.a: holds a control character'],
    [{ url: 'http://10.0.0.1/', privateAddresses: 'deny' }, 'webhooks.ops.privateAddresses'],
    [{}, 'webhooks.ops'],
  ])('is refused for %j, without its values', (webhook, problem) => {
    const problems = problemsOf(webhook)
    expect(problems).toContain(problem)
    expect(problems).not.toMatch(/very.secret/)
  })

  it('is taken as the page about webhooks shows it', () => {
    const [, example = ''] = /```yml\n([^]*?)```/.exec(readText('docs/webhooks.md'))!
    const { webhooks } = parse(example.replaceAll(/\$\{.*?\}/g, 'https://hooks.example/x')) as { webhooks: object }
    const config = checkConfig(harnessConfig('http://127.0.0.1:1', {}, { webhooks }), 'test')
    expect(Object.keys(config.webhooks)).toEqual(['oncall', 'platform'])
    expect(JSON.stringify(config.webhooks)).not.toContain('hooks.example')
  })

  it('may leave its URL unresolved where that is checked without secrets, and warns of one that is not encrypted', async () => {
    const check = async (url: string, ...more: string[]) => {
      const config = { ...harnessConfig('http://127.0.0.1:1'), webhooks: { ops: { url } } }
      const cwd = newFolder()
      writeFileSync(join(cwd, 'sluice.yaml'), stringify(config))
      const { code, stdout, stderr } = await runCommand(['check', ...more], { cwd })
      return { code, text: stdout + stderr }
    }
    expect(await check('${env:NOT_SET}')).toMatchObject({ code: 1, text: expect.stringContaining('webhooks.ops.url') })
    expect((await check('${env:NOT_SET}', '--no-secrets')).code).toBe(0)
    const { code, text } = await check('http://hooks.example/very-secret')
    expect(code).toBe(0)
    expect(text).toContain('webhooks.ops.url is http://')
    expect(text).not.toContain('very-secret')
  })

  it('is refused for a URL that network access blocks, and taken otherwise', () => {
    const networkAccess = { blocked: ['*.example'] }
    expect(problemsOf({ url: 'https://hooks.example/x' }, { networkAccess })).toContain('is blocked by networkAccess')
    expect(problemsOf({ url: 'https://hooks.slack.com/x', format: 'slack' }, { networkAccess })).toBe('')
  })
})
