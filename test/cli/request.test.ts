import { describe, expect, it } from 'vitest'
import { ADVICE_OF } from '../../src/gateway/failure.ts'
import { hashKey } from '../../src/clients/keys.ts'
import { harnessConfig, startGateway, startServer, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { runCommand } from '../support/command-line.ts'
import { storyOf } from '../support/requests.ts'

const READ = '/harness/ng/api/projects/list'

async function setUp() {
  let count = 0
  const upstream = await startUpstream((_, response) => response.writeHead(++count === 1 ? 503 : 200).end())
  const clients = { bot: { keys: [hashKey('slk_bot')] } }
  const upstreamConfig = { limits: { read: [{ requests: 2, window: '1h' }] }, retry: { baseDelay: '1ms' } }
  const gateway = await startGateway(harnessConfig(upstream.url, upstreamConfig, { clients }))
  const send = async (id: string, headers: Record<string, string> = { 'x-sluice-key': 'slk_bot' }, path = READ) => {
    await call(gateway.url, path, { headers: { 'x-correlation-id': id, ...headers } }).catch(() => undefined)
    await storyOf(gateway.adminUrl, id)
  }
  const tell = (...args: string[]) => runCommand(['request', ...args, '--url', gateway.adminUrl])
  return { gateway, send, tell }
}

describe('sluice request', () => {
  it('tells what became of a request, from its client to its last attempt', async () => {
    const { send, tell } = await setUp()
    await send('retried')
    const { code, stdout } = await tell('retried')
    expect(code).toBe(0)
    for (const words of [
      /^request {3}retried$/m,
      /^from {6}bot, .*127\.0\.0\.1$/m,
      /^call {6}GET \/harness\/ng\/api\/projects\/list$/m,
      /^to {8}harness\/prod, class read, by GET \/ng\/api\/projects\/list$/m,
      /^limits {4}read 1h: 2 of 2 used, 0 left, more comes back in /m,
      /^attempts {2}1\. sent after \d+ ms: 503 in .* ms, retried; credential harness\/prod version \d+$/m,
      /^ {10}2\. sent after \d+ ms, \d+ ms after the attempt before: 200 in .* ms, delivered;/m,
      /^breaker {3}closed$/m,
      /^result {4}200, delivered$/m,
    ]) {
      expect(stdout).toMatch(words)
    }
  })

  it('tells of a refusal what held it back, and what to do', async () => {
    const { send, tell } = await setUp()
    await send('first')
    await send('refused')
    const { stdout } = await tell('refused')
    expect(stdout).toMatch(
      /^held by {3}read 1h: place 1 in the queue, its turn expected in \d+ (?:min|h), at most 10 s$/m,
    )
    expect(stdout).toMatch(/^ {10}refused at once: quota_exhausted$/m)
    expect(stdout).toMatch(/^result {4}429 quota_exhausted: the read quota of harness\/prod is used up/m)
    expect(stdout).toContain(`what to do: ${ADVICE_OF.quota_exhausted}\n`)
    const { data } = JSON.parse((await tell('refused', '--json')).stdout) as { data: { heldBy: string }[] }
    expect(data).toMatchObject([{ heldBy: 'read 1h' }])
  })

  it('says of times to come how long they are, roughly, and counts one call as one', async () => {
    const wait = { beforeAttempt: 1, because: 'quota', heldBy: 'read 1m', place: 2, promisedMs: 8_100, waitedMs: 8_050 }
    const served = { ended: 'admitted', servedBefore: { calls: 1, byClient: { 'ci-bot': 1 } } }
    const limit = { limit: 'read 1m', requests: 2, effective: 2, used: 2, remaining: 0, units: 1, resetMs: 59_001 }
    const story = {
      correlationId: 'x',
      durationMs: 18_600,
      limits: [{ ...limit, enforced: true }],
      waits: [{ ...wait, ...served }],
      asked: { maxWaitMs: 10_000 },
      refusal: { kind: 'x', message: '', whatToDo: '', retryAfterMs: 3_600_000 },
    }
    const none = { wouldDeny: [], tries: [], breaker: null, cache: null, route: null, traceId: null, upstream: null }
    const url = await startServer((_, response) =>
      response.end(JSON.stringify({ data: [{ ...none, ...story }], away: [] })),
    )
    const { stdout } = await runCommand(['request', 'x', '--url', url])
    expect(stdout).toContain('its turn expected in 9 s, at most 10 s\n          waited 8.1 s: admitted\n')
    expect(stdout).toContain('served here before it: 1 call (ci-bot 1)\n')
    expect(stdout).toContain('0 left, more comes back in 60 s\n')
    expect(stdout).toContain('it was told to come back in 60 min\n')
  })

  it('lists the latest, those that are asked for', async () => {
    const { send, tell } = await setUp()
    await send('one')
    await send('two')
    await send('three', {})
    const ids = async (...args: string[]) =>
      (await tell(...args)).stdout
        .split('\n')
        .flatMap((line) => (line === '' ? [] : [line.split(' ').at(-1)]))
        .slice(1)
    expect(await ids()).toEqual(['three', 'two', 'one'])
    expect(await ids('--client', 'bot')).toEqual(['two', 'one'])
    expect(await ids('--status', '4xx', '--limit', '1')).toEqual(['three'])
    const listed = await tell('--since', '1h', '--account', 'harness/prod', '--class', 'read')
    expect(listed.stderr).toBe('')
    const [head, refused, served] = listed.stdout.split('\n').map((line) => line.split(/ {2,}/))
    expect(head!.join(' ')).toBe('TIME STATUS METHOD PATH ACCOUNT CLASS CLIENT TOOK OUTCOME ID')
    const to = ['GET', READ, 'harness/prod', 'read', 'bot', expect.stringMatching(/ s$| ms$/)]
    expect(refused).toEqual([expect.stringMatching(/Z$/), '429', ...to, 'quota_exhausted', 'two'])
    expect(served).toEqual([expect.stringMatching(/Z$/), '200', ...to, 'delivered', 'one'])
    for (const args of [
      ['--limit', '2'],
      ['--limit', '2', '--json'],
    ])
      expect((await tell(...args)).stderr).toBe(
        args.length === 2
          ? 'these are the latest 2, and there may be more: see --limit, --since and the filters\n'
          : '',
      )
  })

  it('says what is wrong with a question, and where else to look for an id that nobody knows', async () => {
    const { tell } = await setUp()
    expect(await tell('nobody')).toMatchObject({ code: 1, stderr: expect.stringMatching(/"nobody".*requests\.keep/) })
    expect(await tell('--status', 'red')).toMatchObject({ code: 1, stderr: expect.stringContaining('status must be') })
    expect(await tell('a b')).toMatchObject({ code: 1, stderr: expect.stringContaining('visible ASCII') })
  })

  it('says that no such call is known', async () => {
    const { tell } = await setUp()
    expect(await tell('--client', 'typo')).toEqual({ code: 0, stdout: '', stderr: 'no such call is known\n' })
  })

  it.each([
    [
      ['abc', '--client', 'bot', '--limit', '3'],
      '--client, --limit would choose from the list: leave out either that or',
    ],
    [['..'], 'no story can be asked for by the id "..": see the list, without an id'],
    [['.'], 'no story can be asked for by the id "."'],
    [[''], 'id is empty'],
  ])('asks nothing if told %j', async (args, problem) => {
    const asked: unknown[] = []
    const url = await startServer(({ url }, response) => {
      asked.push(url)
      response.end('{"data":[],"away":[]}')
    })
    expect(await runCommand(['request', ...args, '--url', url])).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining(problem),
    })
    expect(asked).toEqual([])
  })

  it('prints nothing that a terminal would obey', async () => {
    const row = {
      time: 'now',
      status: '400',
      method: 'GET',
      path: '/\u009b2J\u001b[2J',
      durationMs: 1,
      outcome: 'delivered',
    }
    const url = await startServer((_, response) =>
      response.end(
        JSON.stringify({ data: [{ ...row, upstream: null, class: null, client: null, correlationId: 'x' }], away: [] }),
      ),
    )
    expect((await runCommand(['request', '--url', url])).stdout).toMatch(
      /\nnow +400 +GET +\/\uFFFD2J\uFFFD\[2J +1 ms +delivered +x\n$/,
    )
  })
})
