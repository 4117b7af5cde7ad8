import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { presets } from '../../src/config/presets/index.ts'
import { parseConfig } from '../../src/config/load.ts'
import { type Sandbox, startSandbox } from '../../src/sandbox/sandbox.ts'
import { runCommand } from '../support/command-line.ts'
import { newFolder } from '../support/gateway.ts'
import { hasProgram } from '../support/packages.ts'
import { Program } from '../support/process.ts'

const HARNESS = ['init', '--preset', 'harness', '--account', 'prod', '--account-id', 'acct1234', '--client', 'bot']
const MAIN = new URL('../../src/main.ts', import.meta.url).pathname
const SECRET = 'pat.acct1234.tokenid.topsecret'

/** A command that is complete, with that value of one option. */
function harnessWith(option: string, value: string): string[] {
  const args = [...HARNESS, '--secret', 'env:X']
  const at = args.indexOf(option)
  return at < 0 ? [...args, option, value] : args.with(at + 1, value)
}

async function newSandbox(): Promise<Sandbox> {
  const sandbox = await startSandbox()
  onTestFinished(() => sandbox.stop())
  return sandbox
}

describe('sluice init', () => {
  it('writes a valid configuration, shows the key once, and makes one call', async () => {
    const sandbox = await newSandbox()
    const cwd = newFolder()
    const { code, stdout, stderr } = await runCommand(
      [...HARNESS, '--url', sandbox.url, '--secret', 'env:SOME_KEY', '--call'],
      { cwd, env: { SOME_KEY: SECRET } },
    )
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    const text = readFileSync(join(cwd, 'sluice.yaml'), 'utf8')
    const [, key = ''] = /shown only now: {2}(\S+)/.exec(stdout) ?? []
    expect(text).toContain(hashKey(key))
    expect(text).not.toContain(key)
    expect(text + stdout).not.toContain('topsecret')
    expect(text.match(/^# /gm)!.length).toBeGreaterThan(4)
    expect(stdout).toContain('sluice.yaml: ok, with 1 upstream, 1 account, 1 client\n')
    expect(stdout).toContain('ok: credential harness/prod is taken by the vendor (200)\n')
    expect(sandbox.seen()).toMatchObject([{ method: 'GET', status: 200, account: 'acct1234' }])
    expect(statSync(join(cwd, 'sluice.yaml')).mode & 0o077).toBe(0)
  })

  it('ends with 1 where it was to make a call and could make none', async () => {
    const { code, stdout, stderr } = await runCommand(
      [...HARNESS, '--url', 'http://127.0.0.1:9', '--secret', 'env:SOME_KEY', '--call'],
      { cwd: newFolder(), env: {} },
    )
    expect(code).toBe(1)
    expect(stdout).toMatch(/shown only now/)
    expect(stderr).toMatch(/SOME_KEY is not set\nNo call was made\.\n$/)
  })

  it('says all that is missing, and writes nothing, where it can not ask', async () => {
    const cwd = newFolder()
    const { code, stderr } = await runCommand(['init', '--preset', 'jira'], { cwd })
    expect(code).toBe(1)
    for (const option of ['--account', '--url', '--user', '--secret', '--client']) {
      expect(stderr).toContain(`${option} is missing: `)
    }
    expect(stderr).toMatch(/Nothing was written\.\n$/)
    expect(() => statSync(join(cwd, 'sluice.yaml'))).toThrow('ENOENT')
  })

  it('asks for what depends on the vendor only once that is known, and says which was perhaps meant', async () => {
    const { code, stderr } = await runCommand(harnessWith('--preset', 'githb'))
    expect([code, stderr]).toEqual([
      1,
      `--preset: must be one of ${Object.keys(presets).join(', ')}; did you mean "github"?\nNothing was written.\n`,
    ])
    expect((await runCommand(['init'])).stderr).toMatch(
      /^--preset is missing: .*\n--account is missing: .*\n--secret is missing: .*\n--client is missing: .*\nNothing was written\.\n$/,
    )
  })

  it.each([
    ['--preset', 'nobody', 'must be one of harness'],
    ['--account', 'a b', 'must be a name'],
    ['--account', 'Prod', 'must be a name of lower-case letters'],
    ['--client', 'bot:', 'must be a name of lower-case letters'],
    ['--url', 'ftp://x', 'must be a URL'],
    ['--secret', SECRET, 'must be env:NAME, file:PATH or secret:NAME, and not the secret itself'],
  ])('refuses the %s %s without repeating what may be a secret', async (option, value, problem) => {
    const { code, stderr } = await runCommand(harnessWith(option, value))
    expect(code).toBe(1)
    expect(stderr).toContain(`${option}: ${problem}`)
    expect(stderr).not.toContain('topsecret')
  })

  it.each([
    ['--url', 'https://a|b', 'upstreams.harness.url: must be'],
    ['--url', 'https://a:99999', 'upstreams.harness.url: must be'],
    ['--account', 'constructor', '"constructor" is no valid name'],
  ])('writes no file with the %s %s, which the check would refuse', async (option, value, problem) => {
    const cwd = newFolder()
    const { code, stdout, stderr } = await runCommand(harnessWith(option, value), { cwd })
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toContain(problem)
    expect(stderr).toMatch(/Nothing was written\.\n$/)
    expect(readdirSync(cwd)).toEqual([])
  })

  it('prints the next command as a shell reads it', async () => {
    const args = [...HARNESS, '--secret', 'env:SOME_KEY', '--file', 'the file.yaml']
    const { stdout } = await runCommand(args, { env: { SOME_KEY: SECRET } })
    expect(stdout).toContain("Next: npx sluice start --config 'the file.yaml'\n")
  })

  it('says so where it can not write', async () => {
    const { code, stdout, stderr } = await runCommand([...HARNESS, '--secret', 'env:X', '--file', 'nodir/s.yaml'])
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toMatch(/^nodir\/s\.yaml: can't be written: ENOENT.*; nothing was changed\n$/)
  })

  it('leaves a file that is there alone, unless it is forced', async () => {
    const cwd = newFolder()
    writeFileSync(join(cwd, 'sluice.yaml'), 'mine')
    const args = [...HARNESS, '--secret', 'env:X']
    const refused = await runCommand(args, { cwd })
    expect(refused).toMatchObject({ code: 1, stderr: 'sluice.yaml is there already: --force writes over it\n' })
    expect(readFileSync(join(cwd, 'sluice.yaml'), 'utf8')).toBe('mine')
    const forced = await runCommand([...args, '--force'], { cwd })
    expect(forced.code).toBe(0)
    expect(forced.stderr).toMatch(/^Before the gateway can start:\n.*X/s)
    expect(readFileSync(join(cwd, 'sluice.yaml'), 'utf8')).toContain('preset: harness')
  })

  it.each(Object.keys(presets))('writes what %s takes', async (preset) => {
    const cwd = newFolder()
    const args = [
      '--preset',
      preset,
      '--account',
      'a',
      '--account-id',
      'acct',
      '--client',
      'c',
      '--secret',
      'secret:x/y',
    ]
    const own =
      presets[preset]!.config['url'] === undefined ? ['--url', 'https://x.example', '--user', 'me@x.example'] : []
    const { code } = await runCommand(['init', ...args, ...own], { cwd })
    expect(code).toBe(0)
    const text = readFileSync(join(cwd, 'sluice.yaml'), 'utf8')
    expect(text).toContain('key: ${env:SLUICE_SECRETS_KEY}')
    const config = parseConfig(text, { ignores: () => true })
    expect(Object.keys(config.upstreams)).toEqual([preset])
  })

  it.skipIf(!hasProgram('script'))('asks at a terminal for what no option says, again where it is wrong', async () => {
    const cwd = newFolder()
    const command = `"${process.execPath}" "${MAIN}" init --preset harness`
    const program = new Program([], {
      cwd,
      env: { SOME_KEY: SECRET },
      command: ['script', '-qec', command, '/dev/null'],
    })
    const answers: [RegExp, string][] = [
      [/A name of your choice for the account \[prod\]: $/, 'a b'],
      [/must be a name.*A name of your choice for the account \[prod\]: $/s, 'pat.acct1234.id.topsecret'],
      [/It looks like a key: .*A name of your choice for the account \[prod\]: $/s, ''],
      [/id of the account: $/, 'acct1234'],
      [/Where the secret is .*: $/, 'env:SOME_KEY'],
      [/A name of your choice for the first client \[my-tool\]: $/, 'bot'],
      [/Make one harmless call.*\[y\/N\] $/, 'n'],
    ]
    for (const [question, answer] of answers) {
      await expect.poll(() => program.stdout).toMatch(question)
      program.child.stdin!.write(`${answer}\n`)
    }
    expect((await program.ended).code).toBe(0)
    expect(program.stdout).toMatch(/shown only now: {2}slk_/)
    const config = parseConfig(readFileSync(join(cwd, 'sluice.yaml'), 'utf8'), { ignores: () => true })
    expect(config.upstreams['harness']!.accounts).toMatchObject({ prod: { id: 'acct1234' } })
    expect(Object.keys(config.clients!)).toEqual(['bot'])
  })

  it.each([
    ['--account', 'pat.acct1234.tokenid.topsecret'],
    ['--account', '0123456789abcdef0123456789abcdef'],
    ['--account-id', 'pat.acct1234.tokenid.topsecret'],
    ['--account-id', 'sk_live_0123456789abcdef'],
    ['--account-id', 'sk-proj-abcdefghijklmnopqrstuvwxyzABCDEF'],
    ['--client', 'slk_0123456789abcdefghij'],
    ['--client', 'ghp_abcdefghijklmnopqrst'],
    ['--client', 'glpat-abcdefghijklmnopqrst'],
    ['--client', 'xoxb-012345678901-abcdefghij'],
    ['--client', 'key-0a1b2c3d4e5f6g7h8i9j'],
  ])('takes no key for %s, and does not repeat it', async (option, value) => {
    const cwd = newFolder()
    const { code, stdout, stderr } = await runCommand(harnessWith(option, value), { cwd })
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toContain(`${option}: looks like a key: `)
    expect(stderr).not.toContain(value)
    expect(readdirSync(cwd)).toEqual([])
  })

  it.each([
    'ghe-production-us',
    'glp-production-europe',
    'sk-production-eu',
    'sk-production-europe-west',
    'slk-production-eu',
    'integrationplatform01',
    'integrationplatform2026',
    'europe-production-of-the-second-platform-team',
  ])('takes %s as a name, though it begins like a key or is long', async (name) => {
    for (const option of ['--account', '--client']) {
      const { code, stdout } = await runCommand(harnessWith(option, name))
      expect([code, stdout]).toEqual([0, expect.stringContaining('sluice.yaml: ok')])
    }
  })

  it.each(['sat.team', 'pat.ops', 'pat.smith@example.com', 'pat.o.brien@example.com'])(
    'takes %s as an id and as a user',
    async (value) => {
      const jira = ['init', '--preset', 'jira', '--account', 'prod', '--client', 'bot', '--secret', 'env:X']
      const users = await runCommand([...jira, '--url', 'https://x.example', '--user', value])
      const ids = await runCommand(harnessWith('--account-id', value))
      for (const { stderr } of [users, ids]) expect(stderr).not.toContain('looks like a key')
    },
  )

  it.skipIf(!hasProgram('script'))(
    'writes nothing, and ends with 1, if the terminal ends instead (Ctrl-D)',
    async () => {
      const cwd = newFolder()
      const command = `"${process.execPath}" "${MAIN}" init --client bot --preset harness`
      const program = new Program([], { cwd, command: ['script', '-qec', command, '/dev/null'] })
      await expect.poll(() => program.stdout).toMatch(/A name of your choice for the account \[prod\]: $/)
      program.child.stdin!.write('\u0004')
      expect((await program.ended).code).toBe(1)
      expect(program.stdout).toContain('The input ended before all was answered. Nothing was written.')
      expect(readdirSync(cwd)).toEqual([])
    },
  )
})
