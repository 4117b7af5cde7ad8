import { randomBytes } from 'node:crypto'
import { readFileSync, realpathSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { newFolder, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { hasProgram } from '../support/packages.ts'
import { runCommand } from '../support/command-line.ts'
import { Program } from '../support/process.ts'

const KEY = randomBytes(32).toString('base64')
const MAIN = new URL('../../src/main.ts', import.meta.url).pathname

function newConfig(url: string, change: object = {}): { cwd: string; env: NodeJS.ProcessEnv } {
  const cwd = newFolder()
  const config = {
    server: { port: 0 },
    admin: { port: 0 },
    secrets: { key: '${env:MASTER_KEY}' },
    upstreams: { x: { url, accounts: { main: { credential: { value: 'Key ${secret:x/main}' } } } } },
    ...change,
  }
  writeFileSync(join(cwd, 'sluice.yaml'), stringify(config))
  return { cwd, env: { MASTER_KEY: KEY } }
}

describe('sluice credentials', () => {
  it('says which store it has changed, which is not that of the configuration’s folder where it runs in another one', async () => {
    const { cwd, env } = newConfig('http://127.0.0.1:9')
    const elsewhere = newFolder()
    const command = ['credentials', 'set', 'x/main', '-c', join(cwd, 'sluice.yaml')]
    const { stdout } = await runCommand(command, { env, cwd: elsewhere, input: 'one-secret' })
    expect(stdout).toContain(join(realpathSync(elsewhere), '.sluice/secrets.json'))
  })

  it('stores what comes from stdin, lists names, and never shows a value', async () => {
    const place = newConfig('http://127.0.0.1:9')
    const set = await runCommand(['credentials', 'set', 'x/main', '--expires', '2030-01-31'], {
      ...place,
      input: 'one-secret\n',
    })
    expect(set).toMatchObject({ code: 0, stderr: '' })
    const file = join(realpathSync(place.cwd), '.sluice/secrets.json')
    expect(set.stdout).toContain(`x/main is set in ${file}; gateways that run with this store use it at once`)
    const rotated = await runCommand(['credentials', 'rotate', 'x/main'], { ...place, input: 'two-secret' })
    const list = await runCommand(['credentials', 'list'], place)
    expect(list.stdout).toMatch(
      /^NAME +VERSION +KEY +SET +EXPIRES\nx\/main +current +\w+ +[\d-]+ +2030-02-01T00:00:00\.000Z\nx\/main +next .* never\n$/,
    )
    const finished = await runCommand(['credentials', 'rotate', 'x/main', '--finish'], place)
    const sealed = await runCommand(['credentials', 'rotate', '--key'], place)
    expect(sealed.stdout).toContain('0 secrets')
    const removed = await runCommand(['credentials', 'remove', 'x/main'], place)
    const again = await runCommand(['credentials', 'remove', 'x/main'], place)
    expect(again).toMatchObject({ code: 1, stderr: `there is no secret x/main in the store: ${file}\n` })
    expect(removed.stdout).toContain(`x/main is removed from ${file}; `)
    expect((await runCommand(['credentials', 'list'], place)).stderr).toBe(`the store is empty: ${file}\n`)
    for (const { code } of [rotated, finished, sealed, removed]) expect(code).toBe(0)
    const all = [set, rotated, list, finished, sealed, removed].map(({ stdout, stderr }) => stdout + stderr).join('')
    expect(all).not.toContain('-secret')
    expect(readFileSync(join(place.cwd, '.sluice/secrets.json'), 'utf8')).not.toContain('-secret')
    const trail = readFileSync(join(place.cwd, '.sluice/audit.jsonl'), 'utf8')
    expect(trail).not.toContain('-secret')
    const entries = trail.trimEnd().split('\n')
    const noted = entries.map((line) => JSON.parse(line) as Record<string, unknown>)
    expect(noted.map(({ action, name }) => `${String(action)} ${String(name)}`)).toEqual([
      'secret.set x/main',
      'secret.rotate x/main',
      'secret.finish x/main',
      'secret.rekey all secrets',
      'secret.remove x/main',
    ])
    expect(noted[0]).toMatchObject({
      actor: expect.stringMatching(/^cli:./),
      after: { expires_at: '2030-02-01T00:00:00.000Z' },
    })
  })

  it('takes no end that is over', async () => {
    const place = newConfig('http://127.0.0.1:9')
    for (const command of ['set', 'rotate']) {
      const args = ['credentials', command, 'x/main', '--expires', '2026-01-31']
      expect(await runCommand(args, { ...place, input: 'one-secret' })).toEqual({
        code: 1,
        stdout: '',
        stderr: '--expires is in the past: give the end of this value\n',
      })
    }
  })

  it.each(['90', '2027-02-31', '2027-01-31T18:00', '31.1.2027', 'soon'])(
    'does not take %s for a date',
    async (date) => {
      const place = newConfig('http://127.0.0.1:9')
      const set = await runCommand(['credentials', 'set', 'x/main', '--expires', date], {
        ...place,
        input: 'one-secret',
      })
      expect(set).toMatchObject({
        code: 1,
        stderr: expect.stringContaining('--expires must be a day such as 2027-01-31'),
      })
      expect((await runCommand(['credentials', 'list'], place)).stdout).toBe('')
    },
  )

  it('does not put a new value in force that an upstream refused, unless it is told to', async () => {
    const upstream = await startUpstream(({ headers }, response) => {
      response.writeHead(headers['x-api-key'] === 'Key bad' || headers.authorization === 'Key bad' ? 401 : 200).end()
    })
    const place = newConfig(upstream.url, { server: { port: 0 }, admin: { port: 0 }, log: { format: 'json' } })
    await runCommand(['credentials', 'set', 'x/main'], { ...place, input: 'good' })
    const gateway = new Program(['start'], place)
    const { url } = JSON.parse(await gateway.line(/"msg":"listening"/)) as { url: string }
    await runCommand(['credentials', 'rotate', 'x/main'], { ...place, input: 'bad' })
    const stored = () => readFileSync(join(place.cwd, '.sluice/secrets.json'), 'utf8')
    await expect.poll(async () => (await call(url, '/x/y'), stored())).toContain('refusedAt')
    expect((await runCommand(['credentials', 'list'], place)).stdout).toMatch(/ VENDOR\n.* next .* refused\n/s)
    const finished = await runCommand(['credentials', 'rotate', 'x/main', '--finish'], place)
    expect(finished).toMatchObject({ code: 1, stdout: '' })
    expect(finished.stderr).toMatch(
      /^nothing was changed: an upstream refused the new value at .*--cancel.*--finish --force\n$/,
    )
    expect((await call(url, '/x/y')).status).toBe(200)
    expect((await runCommand(['credentials', 'rotate', 'x/main', '--finish', '--force'], place)).code).toBe(0)
    expect((await runCommand(['credentials', 'list'], place)).stdout).not.toContain('refused')
  })

  it('takes no value as an argument, and does not repeat one that was put there', async () => {
    const place = newConfig('http://127.0.0.1:9')
    const extra = await runCommand(['credentials', 'set', 'x/main', 'one-secret'], place)
    const dashed = await runCommand(['credentials', 'set', 'x/main', '-one-secret'], place)
    const rotated = await runCommand(['credentials', 'rotate', 'x/main', '--one-secret=2'], place)
    const misplaced = await runCommand(['credentials', 'set', 'pässword-secret'], place)
    for (const { code, stdout, stderr } of [extra, dashed, rotated, misplaced]) {
      expect(code).toBe(1)
      expect(stdout + stderr).not.toContain('-secret')
    }
    expect(await runCommand(['credentials', 'set', 'x/main'], { ...place, input: '\n' })).toMatchObject({
      code: 1,
      stderr: 'the value is empty, so nothing was changed\n',
    })
  })

  it.each([
    [['x/main', '--key'], '--key seals all secrets anew: give it no name'],
    [['--key', '--expires', '2030-01-31'], '--key seals all secrets anew: give it no name'],
    [['x/main', '--finish', '--cancel'], '--finish keeps the new value, and --cancel the old one: give one'],
    [['x/main', '--finish', '--expires', '2030-01-31'], '--expires belongs to a new value'],
    [['x/main', '--cancel', '--expires', '2030-01-31'], '--expires belongs to a new value'],
    [['x/main', '--force'], '--force belongs to --finish'],
  ])('rotates nothing if told %j, which contradicts itself', async (args, problem) => {
    const place = newConfig('http://127.0.0.1:9')
    await runCommand(['credentials', 'set', 'x/main'], { ...place, input: 'one-secret' })
    await runCommand(['credentials', 'rotate', 'x/main'], { ...place, input: 'two-secret' })
    const stored = () => readFileSync(join(place.cwd, '.sluice/secrets.json'), 'utf8')
    const before = stored()
    const refused = await runCommand(['credentials', 'rotate', ...args], { ...place, input: 'three-secret' })
    expect(refused).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining(problem) })
    expect(stored()).toBe(before)
  })

  it('says what to do without a master key, and with one that is none', async () => {
    const without = await runCommand(['credentials', 'list'], newConfig('http://127.0.0.1:9', { secrets: {} }))
    expect(without).toMatchObject({ code: 1, stderr: expect.stringContaining('set secrets.key') })
    const { cwd } = newConfig('http://127.0.0.1:9')
    const wrong = await runCommand(['credentials', 'list'], { cwd, env: { MASTER_KEY: 'short-secret' } })
    expect(wrong.stderr).toMatch(/^sluice\.yaml:\d+:\d+: secrets\.key: must be 32 bytes/)
    expect(wrong.stderr).not.toContain('short-secret')
  })

  it.skipIf(!hasProgram('script'))('asks for the value at a terminal without showing what is typed', async () => {
    const place = newConfig('http://127.0.0.1:9')
    const command = `${process.execPath} ${MAIN} credentials set x/main`
    const program = new Program([], { ...place, command: ['script', '-qec', command, '/dev/null'] })
    await expect.poll(() => program.stdout).toContain('Value of x/main, not shown: ')
    program.child.stdin!.write('typed-secret\r')
    expect(await program.ended).toMatchObject({ code: 0 })
    expect(program.stdout).toContain('x/main is set')
    expect(program.stdout).not.toContain('typed-secret')
    const left = new Program([], { ...place, command: ['script', '-qec', command, '/dev/null'] })
    await expect.poll(() => left.stdout).toContain('Value of x/main, not shown: ')
    left.child.stdin!.write('\u0004')
    expect(await left.ended).toMatchObject({ code: 1 })
    expect(left.stdout).toMatch(/not shown: \r\nno value was given, so nothing was changed\r\n$/)
  })
})

describe('a reference to the store', () => {
  it('that does not resolve is an error at its line and column', async () => {
    const place = newConfig('http://127.0.0.1:9')
    const { code, stderr } = await runCommand(['check'], place)
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: 'sluice.yaml:13:18: upstreams.x.accounts.main.credential.value: there is no secret x/main in the store\n',
    })
    const explained = await runCommand(['explain', 'GET', '/x/y'], place)
    expect(explained.stdout).toContain('credential  x/main')
  })

  it('is not mentioned where it was not looked up because of another mistake', async () => {
    const { stderr } = await runCommand(['check'], newConfig('http://127.0.0.1:9', { log: { level: 'loud' } }))
    expect(stderr).toMatch(/^sluice\.yaml:\d+:\d+: log\.level: must be one of [^\n]*\n$/)
  })

  it('is replaced in a running gateway as soon as it is set', async () => {
    const upstream = await startUpstream()
    const place = newConfig(upstream.url)
    await runCommand(['credentials', 'set', 'x/main'], { ...place, input: 'one' })
    const gateway = new Program(['start'], place)
    const { url } = JSON.parse(await gateway.line(/"msg":"listening"/)) as { url: string }
    const sent = async () => {
      await call(url, '/x/y')
      return upstream.seen.at(-1)!.headers.authorization
    }
    expect(await sent()).toBe('Key one')
    await runCommand(['credentials', 'set', 'x/main'], { ...place, input: 'two' })
    await expect.poll(sent).toBe('Key two')
  })
})
