import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { type AddressInfo, createServer as createSilentServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { toolEnvironment } from '../../src/cli/tool-environment.ts'
import { hashKey } from '../../src/clients/keys.ts'
import { type Certificates, makeCertificates } from '../support/certificates.ts'
import { hasProgram } from '../support/packages.ts'
import { Program, run, startProcessIn } from '../support/process.ts'
import { runCommand } from '../support/command-line.ts'
import { freePort } from '../support/find-redis.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const VENDOR_KEY = 'vendor-key-secret'

let certificates: Certificates
let folder: ReturnType<typeof temporaryFolder>
let url = ''
const seen: { method: string; url: string; authorization: string | undefined }[] = []
let close: () => void

/** A vendor on loopback, with an API and a git repository, both only for those who have its key. */
beforeAll(async () => {
  certificates = makeCertificates(['localhost'])
  folder = temporaryFolder('run')
  const git = (...args: string[]) => execFileSync('git', args, { cwd: folder.path, stdio: 'pipe' })
  git('-c', 'init.defaultBranch=main', 'init', '-q', '--bare', 'git/repo.git')
  git('-c', 'init.defaultBranch=main', 'init', '-q', 'work')
  const identity = ['-c', 'user.name=t', '-c', 'user.email=t@example.com']
  git('-C', 'work', ...identity, 'commit', '-q', '--allow-empty', '-m', 'first')
  git('-C', 'work', 'push', '-q', '../git/repo.git', 'HEAD:refs/heads/main')
  const server = createServer(
    { cert: certificates.read('localhost.pem'), key: certificates.read('localhost.key') },
    (request, response) => {
      const { method = '', url = '', headers } = request
      seen.push({ method, url, authorization: headers.authorization })
      const isKnown = headers.authorization?.includes(url.startsWith('/git/') ? BASIC : VENDOR_KEY)
      if (isKnown !== true) return void response.writeHead(401).end('the vendor does not know this key')
      if (url.startsWith('/git/')) return serveGit(request, response)
      if (url === '/api/held') return undefined
      return void response.writeHead(200, { 'content-type': 'application/json' }).end('{"name":"a"}')
    },
  )
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  url = `https://localhost:${(server.address() as AddressInfo).port}`
  close = () => {
    server.closeAllConnections()
    server.close()
  }
})
afterAll(() => {
  close()
  certificates.remove()
  folder.remove()
})

const BASIC = Buffer.from(`robot:${VENDOR_KEY}`).toString('base64')

/** The server side of git, by CGI (git-http-backend). */
function serveGit(request: IncomingMessage, response: ServerResponse): void {
  const { pathname, search } = new URL(request.url!, url)
  const backend = spawn('git', ['http-backend'], {
    env: {
      PATH: process.env['PATH'],
      GIT_PROJECT_ROOT: folder.path,
      GIT_HTTP_EXPORT_ALL: '1',
      PATH_INFO: pathname,
      QUERY_STRING: search.slice(1),
      REQUEST_METHOD: request.method,
      CONTENT_TYPE: request.headers['content-type'] ?? '',
      HTTP_CONTENT_ENCODING: request.headers['content-encoding'] ?? '',
      GIT_PROTOCOL: String(request.headers['git-protocol'] ?? ''),
      REMOTE_USER: 'robot',
    },
  })
  request.pipe(backend.stdin)
  void backend.stdout.toArray().then((pieces) => {
    const answer = Buffer.concat(pieces)
    const end = answer.indexOf('\r\n\r\n')
    for (const line of answer.toString('latin1', 0, end).split('\r\n')) {
      const [name = '', value = ''] = line.split(': ')
      if (name === 'Status') response.statusCode = Number.parseInt(value)
      else response.setHeader(name, value)
    }
    response.end(answer.subarray(end + 4))
  })
}

/** A folder with a configuration of that vendor. */
function configured(change: object = {}): string {
  const cwd = join(folder.path, `cwd-${Math.random()}`)
  mkdirSync(cwd)
  const limits = { read: [{ requests: 100, window: '1m' }], write: [{ requests: 100, window: '1m' }] }
  const upstream = (path: string, credential: object) => ({
    url: `${url}/${path}`,
    tls: { ca: certificates.read('ca.pem') },
    accounts: { main: { credential } },
    limits,
  })
  const config = {
    store: { dir: join(cwd, 'store') },
    upstreams: {
      vendor: upstream('api', { header: 'authorization', value: `Bearer ${VENDOR_KEY}` }),
      git: upstream('git', { type: 'basic', username: 'robot', password: VENDOR_KEY }),
    },
    ...change,
  }
  writeFileSync(join(cwd, 'sluice.yaml'), stringify(config))
  return cwd
}

/** Unmodified tools, which know nothing of a gateway. Each prints the status and the name of what the vendor answered. */
const TOOLS: Readonly<Record<string, { readonly needs: string; readonly command: string; readonly source: string }>> = {
  'requests_tool.py': {
    needs: 'python3',
    command: 'python3',
    source: `
import os, requests
answer = requests.get(os.environ["VENDOR"] + "/api/things", headers={"Authorization": "Bearer dummy"})
print(answer.status_code, answer.json()["name"])
`,
  },
  'urllib_tool.py': {
    needs: 'python3',
    command: 'python3',
    source: `
import json, os, urllib.request
answer = urllib.request.urlopen(os.environ["VENDOR"] + "/api/things")
print(answer.status, json.load(answer)["name"])
`,
  },
  'fetch.mjs': {
    needs: 'sh',
    command: process.execPath,
    source: `
const answer = await fetch(process.env.VENDOR + '/api/things', { headers: { authorization: 'Bearer dummy' } })
console.log(answer.status, (await answer.json()).name)
`,
  },
  'https.mjs': {
    needs: 'sh',
    command: process.execPath,
    source: `
import { get } from 'node:https'
get(process.env.VENDOR + '/api/things', async (answer) => {
  console.log(answer.statusCode, JSON.parse(String(Buffer.concat(await answer.toArray()))).name)
})
`,
  },
  'curl.sh': {
    needs: 'curl',
    command: 'sh',
    source: `curl -sS -H 'authorization: Bearer dummy' -w ' %{http_code}' "$VENDOR/api/things" | sed 's/.*"a"} \\(.*\\)/\\1 a/'`,
  },
  'git.sh': {
    needs: 'git',
    command: 'sh',
    source: `git ls-remote -q "$VENDOR/git/repo.git" HEAD | grep -q HEAD && git clone -q "$VENDOR/git/repo.git" copy && echo 200 "$(git -C copy log --format=%s)"`,
  },
}

const SHELL = { PATH: process.env['PATH'], GIT_TERMINAL_PROMPT: '0' }

let ran: ReturnType<typeof runAll> | undefined

/** All of them with one gateway: it, and not they, takes the time. */
async function runAll() {
  const cwd = configured()
  const lines = Object.entries(TOOLS)
    .filter(([, { needs }]) => hasProgram(needs))
    .map(([file, { command, source }]) => {
      writeFileSync(join(cwd, file), source)
      return `echo "${file} $(${command} ${file})"`
    })
  writeFileSync(join(cwd, 'all.sh'), lines.join('\n'))
  const result = await run(['run', '--verbose', '--', 'sh', 'all.sh'], { cwd, env: { ...SHELL, VENDOR: url } })
  return { ...result, calls: seen.splice(0) }
}

for (const [file, { needs }] of Object.entries(TOOLS))
  it.skipIf(!hasProgram(needs))(`${file}, which knows of no gateway, gets the vendor's answer through it`, async () => {
    const { stdout, stderr } = await (ran ??= runAll())
    expect(stdout, stderr).toMatch(new RegExp(`^${file} 200 ${file === 'git.sh' ? 'first' : 'a'}$`, 'm'))
  })

it('each call has the credential of the gateway in the place of its own, is charged and has its line', async () => {
  const { code, stderr, calls } = await (ran ??= runAll())
  expect(code, stderr).toBe(0)
  expect(calls.length).toBeGreaterThanOrEqual(2)
  for (const { url, authorization } of calls) {
    expect(authorization).toBe(url.startsWith('/git/') ? `Basic ${BASIC}` : `Bearer ${VENDOR_KEY}`)
  }
  expect(stderr.match(/GET \/api\/things 200 vendor\/main read/g)).toHaveLength(
    calls.filter(({ url }) => url === '/api/things').length,
  )
  expect(stderr).not.toContain(VENDOR_KEY)
})

it('passes on the code of the command, and 128 and the number of the signal that ended it', async () => {
  const cwd = configured()
  const script = 'kill -TERM $$'
  const [exited, killed, missing] = await Promise.all([
    run(['run', '--', 'sh', '-c', 'cat; exit 7'], { cwd, input: 'through stdin' }),
    run(['run', '--', 'sh', '-c', script], { cwd: configured() }),
    run(['run', '--', 'no-such-command', '--flag'], { cwd: configured() }),
  ])
  expect(exited).toMatchObject({ code: 7, stdout: 'through stdin', stderr: '' })
  expect(killed).toMatchObject({ code: 128 + 15, stderr: '' })
  expect(missing).toMatchObject({
    code: 127,
    stdout: '',
    stderr: 'sluice run: no-such-command: there is no such command\n',
  })
})

it('says why a command can not be run where the system refuses it at once', async () => {
  const cwd = configured()
  writeFileSync(join(cwd, 'file.txt'), '')
  expect(await run(['run', '--', './file.txt/x'], { cwd })).toEqual({
    code: 126,
    stdout: '',
    stderr: 'sluice run: ./file.txt/x: spawn ENOTDIR\n',
  })
})

it('leaves out of NO_PROXY what covers the host of an upstream for any tool, and says what that was', async () => {
  const hosts = ['api.github.com', '10.1.2.3', '2001:db8::1']
  const given = [
    ['api.github.com', 'API.github.com', 'api.github.com:443', 'api.github.com.', '.github.com', '*.github.com'],
    ['github.com', '*github.com', 'hub.com', 'com', 'api.*', '*', '10.1.2.3', '10.1.0.0/16', '[2001:db8::1]:443'],
    ['2001:DB8:0::1', '2001:db8::/32'],
  ].flat()
  const kept = ['x.api.github.com', 'gitlab.com', 'api.github', '10.1.2.4', '10.2.0.0/16', '10.1.0.0/99', '2001:db8::2']
  const way = { proxy: new URL('http://127.0.0.1:1'), ca: certificates.read('ca.pem'), hosts, folder: configured() }
  const { env, leftOut } = toolEnvironment({ no_proxy: [...given, ...kept].join(', ') }, way)
  expect(leftOut).toEqual(given)
  expect(env['NO_PROXY']!.split(',')).toEqual([...kept, 'localhost', '127.0.0.1', '::1'])
  expect(env['no_proxy']).toBe(env['NO_PROXY'])
  expect(toolEnvironment({}, { ...way, hosts: ['localhost'] })).toMatchObject({
    env: { NO_PROXY: '127.0.0.1,::1' },
    leftOut: [],
  })

  const command = ['run', '--', 'sh', '-c', 'echo $NO_PROXY; curl -sS "$VENDOR/api/things"']
  const ran = await run(command, {
    cwd: configured(),
    env: { VENDOR: url, NO_PROXY: '*.localhost,other.example,LOCALHOST:1' },
  })
  expect(ran).toEqual({
    code: 0,
    stdout: 'other.example,127.0.0.1,::1\n{"name":"a"}',
    stderr: [
      'sluice run: NO_PROXY has hosts of upstreams, so the command gets it without *.localhost, LOCALHOST:1\n',
      'sluice run: other hosts in these entries now go through the forward proxy, too. It reaches private addresses only as ',
      'forwardProxy.networkAccess allows, and ports other than 443 only as forwardProxy.ports allows. ',
      'To go around it, name each host in NO_PROXY.\n',
    ].join(''),
  })
})

it('passes signals on to the command, and leaves nothing behind', async () => {
  const temporary = join(configured(), 'tmp')
  mkdirSync(temporary)
  const source = `process.on('SIGTERM', () => { console.log('told'); process.exit(3) }); console.log('ready'); setInterval(() => {}, 1000)`
  const program = new Program(['run', '--', process.execPath, '-e', source], {
    cwd: configured(),
    env: { TMPDIR: temporary },
  })
  await program.line(/^ready$/)
  expect(readdirSync(temporary)).toHaveLength(1)
  program.kill('SIGTERM')
  expect(await program.ended).toEqual({ code: 3, signal: null })
  expect(program.stdout).toBe('ready\ntold\n')
  expect(readdirSync(temporary)).toEqual([])
})

it('ends at a signal, and leaves nothing behind, while a call goes on that the command has left', async () => {
  const temporary = join(configured(), 'tmp')
  mkdirSync(temporary)
  const script = `trap '' TERM; curl -sS "$VENDOR/api/held" & read end`
  const program = new Program(['run', '--', 'sh', '-c', script], {
    cwd: configured({ server: { port: 0, drain: '10m' } }),
    env: { TMPDIR: temporary, VENDOR: url },
  })
  await expect.poll(() => seen.some((one) => one.url === '/api/held')).toBe(true)
  program.child.stdin!.end()
  // The command heeds none of those that come before it has ended.
  const again = setInterval(() => program.kill('SIGTERM'), 50)
  onTestFinished(() => clearInterval(again))
  expect(await program.ended).toEqual({ code: 128 + 15, signal: null })
  expect(readdirSync(temporary)).toEqual([])
})

it.each([
  ['SIGHUP', 1],
  ['SIGINT', 2],
  ['SIGTERM', 15],
] as const)('leaves nothing behind when %s stops its start', async (signal, number) => {
  const temporary = join(configured(), 'tmp')
  mkdirSync(temporary)
  // It takes connections and never answers, so that the start waits to learn whether a gateway is there.
  const silent = createSilentServer()
  onTestFinished(() => void silent.close())
  const asked = once(silent, 'connection') as Promise<[Socket]>
  await new Promise<void>((resolve) => void silent.listen(0, '127.0.0.1', resolve))
  const { port } = silent.address() as AddressInfo
  const program = new Program(['run', '--', 'true'], {
    cwd: configured({ forwardProxy: { port } }),
    env: { TMPDIR: temporary },
  })
  const [connection] = await asked
  onTestFinished(() => void connection.destroy())
  expect(readdirSync(temporary)).toHaveLength(1)
  program.kill(signal)
  expect(await program.ended).toEqual({ code: 128 + number, signal: null })
  expect(readdirSync(temporary)).toEqual([])
})

it('acts as a client of its own or the one that is named, and says which there are', async () => {
  const clients = { ci: { keys: [hashKey('slk_ci')], methods: ['GET'] } }
  const script = 'curl -sS "$VENDOR/api/things"; curl -sS -X POST "$VENDOR/api/things"'
  const env = { VENDOR: url }
  const [own, named, wrong, inherited] = await Promise.all([
    run(['run', '--', 'sh', '-c', script], { cwd: configured({ clients }), env }),
    run(['run', '--client', 'ci', '--', 'sh', '-c', script], { cwd: configured({ clients }), env }),
    run(['run', '--client', 'nobody', '--', 'true'], { cwd: configured({ clients }) }),
    run(['run', '--client', 'toString', '--', 'true'], { cwd: configured({ clients }) }),
  ])
  expect(own.stdout).toBe('{"name":"a"}{"name":"a"}')
  expect(named.stdout).toMatch(/^\{"name":"a"\}.*the client ci may not make POST calls/)
  expect(wrong).toMatchObject({ code: 1, stderr: 'the configuration has no client "nobody"; it has ci\n' })
  expect(inherited).toMatchObject({ code: 1, stderr: 'the configuration has no client "toString"; it has ci\n' })
  const configuredRun = { run: { ...clients.ci } }
  const bound = await run(['run', '--', 'sh', '-c', script], { cwd: configured({ clients: configuredRun }), env })
  expect(bound.stdout).toMatch(/^\{"name":"a"\}.*the client run may not make POST calls/)
})

it('uses the forward proxy of the gateway that runs, with the key of SLUICE_KEY', async () => {
  const port = await freePort()
  const clients = { ci: { keys: [hashKey('slk_ci')] } }
  const cwd = configured({ server: { port: 0 }, admin: { port: 0 }, forwardProxy: { port }, clients })
  const gateway = await startProcessIn(cwd)
  const command = ['run', '--', 'curl', '-sS', `${url}/api/things`]
  const named = await run(['run', '--client', 'ci', ...command.slice(1)], { cwd, env: { SLUICE_KEY: 'slk_ci' } })
  expect(named).toMatchObject({ code: 1, stdout: '' })
  expect(named.stderr).toContain('--client has no effect on the gateway that runs at')
  expect(named.stderr).toContain('set SLUICE_KEY to a key of ci instead')
  const [keyless, keyed] = [await run(command, { cwd }), await run(command, { cwd, env: { SLUICE_KEY: 'slk_ci' } })]
  expect(keyless.code).toBe(1)
  expect(keyless.stderr).toMatch(/ wants the key of a client: set SLUICE_KEY to it\n$/)
  expect(keyed).toMatchObject({ code: 0, stdout: '{"name":"a"}', stderr: '' })
  await expect.poll(() => gateway.stdout).toMatch(/"client":"ci".*"path":"\/api\/things"/)
  const shown = await runCommand(['ca', 'show'], { cwd })
  expect(shown.stdout).toContain('good for  localhost, and nothing else')
})

it('tells a tool that pins its own CA why it fails', async () => {
  const cwd = configured()
  writeFileSync(join(cwd, 'own.pem'), certificates.read('ca.pem'))
  const { code, stderr } = await run(['run', '--', 'curl', '-sS', '--cacert', 'own.pem', `${url}/api/things`], { cwd })
  expect(code).toBe(60)
  expect(stderr).toMatch(/does not trust the gateway's certificate for localhost .*UNKNOWN_CA.*pins its own CA/)
})
