import { setTimeout as pause } from 'node:timers/promises'
import { stripVTControlCharacters } from 'node:util'
import { describe, expect, it } from 'vitest'
import { type TopState, topScreen } from '../../src/cli/top.ts'
import type { RequestRow } from '../../src/requests/story.ts'
import { ADMIN_TOKEN } from '../support/admin.ts'
import { runCommand } from '../support/command-line.ts'
import { harnessConfig, startGateway, startServer, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { hasProgram } from '../support/packages.ts'
import { freeze, MAIN, Program, startProcess } from '../support/process.ts'

const LONG = 'an-upstream-with-quite-a-long-name-of-its-own'

function limit(i: number) {
  const counted = {
    limit: 1_000_000,
    effective: 1_000_000,
    used: 10_000 * i,
    remaining: 0,
    resetMs: 59_000,
    waiting: 0,
  }
  const place = { upstream: LONG, account: `account-${i}`, class: 'template', window: '24h per client' }
  return { ...place, ...counted, exhaustionInMs: i === 0 ? null : 100_000 * i, burnRatio: i === 0 ? null : i / 10 }
}

function full(): TopState {
  const waits = { upstream: LONG, account: 'main', class: 'read', nextInMs: 10, lastInMs: 60_000 }
  const cause = { severity: 'failing', todo: 'Look at the vendor’s status page.' } as const
  // Every call takes a moment to be charged. Each second one was held back.
  const row = (i: number) => ({
    client: `client-${i % 7}`,
    outcome: i % 3 ? 'delivered' : i % 2 ? 'timeout' : 'client_gone',
    reason: i % 6 === 3 ? 'it took too long' : null,
    heldBy: i % 2 ? 'read 1m' : null,
    waitMs: i % 2 || 0.4,
  })
  return {
    url: 'http://127.0.0.1:9090',
    state: `degraded: ${'the quota store can not be reached '.repeat(5)}`,
    limits: Array.from({ length: 60 }, (_, i) => limit(i)),
    queue: Array.from({ length: 9 }, (_, i) => ({ ...waits, client: `client-${i}`, waiting: i })),
    causes: Array.from({ length: 9 }, (_, i) => ({ ...cause, what: `The breaker of ${LONG}-${i} (deploy) is open.` })),
    calls: Array.from({ length: 100 }, (_, i) => row(i) as unknown as RequestRow),
  }
}

describe('the screen of sluice top', () => {
  it.each([
    [80, 24],
    [132, 50],
    [60, 20],
  ])('fits %i × %i with all that can be wrong', (width, height) => {
    const lines = topScreen(full(), { width, height, paint: (text) => text }).split('\n')
    expect(lines.length).toBeLessThanOrEqual(height)
    for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(width)
    const text = lines.join('\n')
    expect(text).toMatch(/ WAIT$/m)
    for (const part of ['degraded:', 'Failing: The breaker', 'WINDOW', 'WAITS IN', 'TOP CLIENTS'])
      expect(text).toContain(part)
  })

  it('has what is wrong first, the fullest limit, the longest queue and the busiest client at the top of theirs', () => {
    const marked: string[] = []
    const paint = (text: string, fullness: number): string => {
      if (fullness >= 1) marked.push(text)
      return text
    }
    const lines = topScreen({ ...full(), state: 'ready' }, { width: 132, paint }).split('\n')
    const after = (head: RegExp): string => lines[lines.findIndex((line) => head.test(line)) + 1]!
    expect(lines[0]).toBe('Sluice http://127.0.0.1:9090: ready')
    expect(lines[1]).toMatch(/^Failing: The breaker of .*-0 \(deploy\) is open\. Look at the vendor’s status page\.$/)
    expect(after(/^ACCOUNT/)).toMatch(/account-59 .* 590000 +59s +98min +5\.9 +0$/)
    expect(after(/^WAITS IN/)).toMatch(/client-8 +8 +10ms +60s$/)
    expect(after(/^TOP CLIENTS \(5min\) /)).toMatch(/^client-0 +15 +2 +7$/)
    expect(marked).toEqual(lines.slice(1, 10))
  })

  it('says how much more is wrong than there is room for, and where that is', () => {
    const lines = topScreen(full(), { width: 80, height: 24, paint: (text) => text }).split('\n')
    expect(lines[4]).toMatch(/^Failing: The breaker of /)
    expect(lines[5]).toBe('… and 5 more, see npx sluice top --once, which says what to do, too')
  })

  it('says of which calls it counts the clients where there may be more than it was told of', () => {
    const { calls } = full()
    const screen = topScreen({ ...full(), calls: [...calls, ...calls] }, { width: 132, paint: (text) => text })
    expect(screen).toMatch(/\nTOP CLIENTS \(last 200 calls\) .*\nclient-0 +30 +4 +14\n/)
  })

  it('shows no part of which there is nothing', () => {
    const state = { ...full(), state: 'ready', queue: [], causes: [], calls: [], limits: [] }
    expect(topScreen(state, { width: 80, paint: (text) => text })).toBe(
      'Sluice http://127.0.0.1:9090: ready\n\nACCOUNT  CLASS  WINDOW  LIMIT  NOW  USED  RESETS  ENDS  BURN  WAIT\n',
    )
  })
})

it('sluice top says what is wrong, as the live page does', async () => {
  const gateway = await startGateway(harnessConfig((await startUpstream()).url, {}, { admin: { port: 0 } }))
  for (let i = 0; i < 2; i++) await call(gateway.url, '/nowhere/x')
  const { stdout } = await runCommand(['top', '--once', '--url', gateway.adminUrl])
  const said = /^Warning: (2 calls ended as unknown_upstream[^.]*\.) (.+)$/m.exec(stdout)
  expect(said, stdout).not.toBeNull()
  const page = (await call(gateway.adminUrl, '/')).body
  expect(page).toContain(`Warning: ${said![1]}</strong> ${said![2]}`)
})

it('sluice top shows a gateway of the release before, which has no /v1/causes', async () => {
  const gateway = await startGateway(harnessConfig((await startUpstream()).url, {}, { admin: { port: 0 } }))
  const older = await startServer(({ url = '' }, response) => {
    const path = url === '/v1/causes' ? '/v1/no-such-path' : url
    void call(gateway.adminUrl, path).then(({ status, body }) => response.writeHead(status).end(body))
  })
  const { code, stdout, stderr } = await runCommand(['top', '--once', '--url', older])
  expect([code, stderr]).toEqual([0, ''])
  expect(stdout).toMatch(/^Sluice http:\S+: ready\n\nACCOUNT/)
})

describe.skipIf(!hasProgram('script'))('sluice top at a terminal', () => {
  async function startTop(env: NodeJS.ProcessEnv = {}) {
    const limits = { read: [{ requests: 1, window: '1h' }] }
    const admin = { port: 0, token: ADMIN_TOKEN }
    const gateway = await startGateway(harnessConfig((await startUpstream()).url, { limits }, { admin }))
    await call(gateway.url, '/harness/ng/api/projects')
    return { program: await showTop(`${gateway.adminUrl} --token ${ADMIN_TOKEN}`, env), gateway }
  }

  async function showTop(url: string, env: NodeJS.ProcessEnv = {}): Promise<Program> {
    const shown = `${process.execPath} ${MAIN} top --url ${url}`
    const command = ['script', '-qfec', `stty cols 80 rows 24; ${shown}; stty -a; echo ended`, '/dev/null']
    const program = new Program([], { command, env: { TERM: 'xterm', ...env } })
    await expect.poll(() => program.stdout).toContain('ACCOUNT')
    return program
  }

  it.each([
    ['q', 'q'],
    ['Ctrl-C', '\u0003'],
  ])('ends with %s, and leaves the terminal as it was', async (_, key) => {
    const { program } = await startTop()
    expect(program.stdout).toContain('\u001B[?1049h\u001B[?25l')
    expect(program.stdout).toContain('\u001B[31mharness/prod')
    program.child.stdin!.write(key)
    expect((await program.ended).code).toBe(0)
    const [, left = ''] = program.stdout.split('\u001B[?25h\u001B[?1049l')
    expect(stripVTControlCharacters(left)).toMatch(/^speed[^]*\bicanon\b[^]*\becho\b[^]*ended/)
    expect(left).not.toMatch(/-icanon|-echo\b/)
  })

  it('has no colours with NO_COLOR, and goes on when the gateway is away', async () => {
    const { program, gateway } = await startTop({ NO_COLOR: '1' })
    expect(program.stdout).not.toContain('\u001B[31m')
    await gateway.stop()
    await expect.poll(() => program.stdout).toContain('no gateway answers')
    await pause(0)
    program.child.stdin!.write('q')
    await program.ended
    expect(program.stdout).toContain('ended')
  })

  it('says for how long a gateway has not answered', async () => {
    const gateway = await startProcess(harnessConfig('http://127.0.0.1:1'))
    const program = await showTop(gateway.adminUrl)
    freeze(gateway.child.pid!)
    await expect.poll(() => program.stdout, { timeout: 30_000 }).toContain(': no answer for 4 s')
    program.child.stdin!.write('q')
    await program.ended
    expect(program.stdout).toContain('ended')
  })
})
