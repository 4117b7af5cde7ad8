import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { checkConfig } from '../../src/config/load.ts'
import { createLog } from '../../src/observe/log.ts'
import { runGateway } from '../../src/process/run.ts'
import { findRedis, freePort } from '../support/find-redis.ts'
import { hasProgram } from '../support/packages.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

/**
 * Runs the public test suite of HTTP caches (https://github.com/http-tests/cache-tests, to be fetched beforehand, with its
 * dependencies) against the gateway with either store, and against nginx where that is installed:
 *
 *     npm run cache-suite -- DIR            # a summary, and every required test that failed anywhere
 *     npm run cache-suite -- DIR --all      # every test on which they differ, or fail
 *     npm run cache-suite -- DIR --id ID    # one test against the gateway, with its requests and responses
 */
const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { all: { type: 'boolean', default: false }, id: { type: 'string', default: '' } },
})
const [given] = positionals
if (given === undefined) throw new Error('say in which folder the suite is: npm run cache-suite -- DIR')
const dir = resolve(given)
const folder = temporaryFolder('cache-suite')
const children: ChildProcess[] = []
/** As many as there are tests of a kind with a result, in the order of the columns. */
const SYMBOLS = ['✅', 'Y', '⛔️', '⚠️', 'N', '⚪️', '🔹', '⁉️', '↻', '-']

interface Test {
  readonly id: string
  readonly kind?: 'required' | 'optimal' | 'check'
}

/** Results as the suite prints them: true, or why not, by the tests' ids. */
type Results = Readonly<Record<string, true | [string, string]>>

interface Engine {
  determineTestResult(suites: unknown, id: string, results: Results, isDependent?: boolean): [string, string, string]
}

const { default: suites } = (await import(join(dir, 'tests/index.mjs'))) as {
  default: { tests: readonly Test[] }[]
}
const { determineTestResult } = (await import(join(dir, 'test-engine/lib/results.mjs'))) as Engine

const origin = await startOrigin()
const redis = await findRedis()
const memory = await startGateway({ store: 'memory' }, { kind: 'memory', dir: join(folder.path, 'quota') })
const shared = await startGateway({ store: 'redis' }, { kind: 'redis', url: redis.url, commandTimeout: '1s' })
try {
  if (values.id === '') await compare()
  else process.stdout.write(await runSuite(`${memory.url}/suite`))
} finally {
  await Promise.all([memory.stop(), shared.stop()])
  for (const child of children) child.kill()
  await redis.stop()
  folder.remove()
}

async function compare(): Promise<void> {
  const results = new Map<string, Results>()
  for (const [name, base] of [
    ['sluice, memory', `${memory.url}/suite`],
    ['sluice, Redis', `${shared.url}/suite`],
    ...(hasProgram('nginx') ? [['nginx', await startNginx()] as const] : []),
  ] as const) {
    results.set(name, JSON.parse(await runSuite(base)) as Results)
  }
  const tests = suites.flatMap(({ tests }) => tests)
  const symbolOf = (id: string, of: Results): string => determineTestResult(suites, id, of)[2]
  for (const kind of ['required', 'optimal', 'check'] as const) {
    const ofKind = tests.filter((test) => (test.kind ?? 'required') === kind)
    for (const [name, of] of results) {
      const counts = SYMBOLS.map((symbol) => [symbol, ofKind.filter(({ id }) => symbolOf(id, of) === symbol).length])
      const text = counts.flatMap(([symbol, count]) => (count === 0 ? [] : [`${symbol} ${count}`])).join('  ')
      process.stdout.write(`${kind.padEnd(9)} ${name.padEnd(15)} ${text}\n`)
    }
  }
  for (const { id, kind = 'required' } of tests) {
    const symbols = [...results.values()].map((of) => symbolOf(id, of))
    const isFailed = symbols.includes('⛔️')
    const isOdd = symbols.some((symbol) => !['✅', 'Y', '-'].includes(symbol))
    if (!isFailed && !(values.all && isOdd)) continue
    const why = [...results.values()].map((of) => of[id]).find((result) => Array.isArray(result))?.[1] ?? ''
    process.stdout.write(`${symbols.join(' ')}  ${kind}  ${id}: ${why}\n`)
  }
}

async function startOrigin(): Promise<string> {
  const port = await freePort()
  await start(process.execPath, ['test-engine/server/server.mjs'], port, {
    npm_config_protocol: 'http',
    npm_config_port: String(port),
    npm_config_pidfile: join(folder.path, 'origin.pid'),
  })
  return `http://127.0.0.1:${port}`
}

/** Errors are what many of the tests are about, and a retry would spoil them. */
function startGateway(cache: object, store: object) {
  const config = {
    server: { port: 0 },
    admin: { port: 0 },
    cache,
    store,
    upstreams: {
      suite: {
        url: origin,
        accounts: { main: {} },
        limits: { read: [], write: [] },
        routes: [{ method: ['GET', 'HEAD'], path: '/test/*', class: 'read', cache: true }],
        retry: { retries: 0 },
        breaker: { failures: 1_000_000 },
      },
    },
  }
  return runGateway(checkConfig(config, 'suite'), { log: createLog({ level: 'silent', format: 'json' }) })
}

/** As the suite itself sets it up. */
async function startNginx(): Promise<string> {
  const port = await freePort()
  const at = join(folder.path, 'nginx')
  mkdirSync(at)
  const file = join(at, 'nginx.conf')
  writeFileSync(
    file,
    `daemon off; ${process.getuid?.() === 0 ? 'user root;' : ''} pid ${at}/pid; error_log ${at}/error.log; worker_processes 1;
events { worker_connections 2048; }
http {
  access_log off;
  client_body_temp_path ${at}/body; proxy_temp_path ${at}/proxy; fastcgi_temp_path ${at}/f; uwsgi_temp_path ${at}/u; scgi_temp_path ${at}/s;
  proxy_cache_path ${at}/cache levels=1:2 keys_zone=cache:8m max_size=1000m inactive=600m;
  server {
    listen 127.0.0.1:${port};
    location / { proxy_pass ${origin}; proxy_cache cache; proxy_cache_revalidate on; proxy_http_version 1.1; }
  }
}
`,
  )
  await start('nginx', ['-e', `${at}/error.log`, '-c', file], port)
  return `http://127.0.0.1:${port}`
}

/** Starts a server in the suite's folder, and waits until it listens. */
async function start(command: string, args: string[], port: number, env: NodeJS.ProcessEnv = {}): Promise<void> {
  const child = spawn(command, args, { cwd: dir, env: { ...process.env, ...env }, stdio: 'ignore' })
  children.push(child)
  for (;;) {
    if (child.exitCode !== null) throw new Error(`${command} did not start`)
    const socket = connect(port, '127.0.0.1')
    const isListening = await once(socket, 'connect').then(
      () => true,
      () => false,
    )
    socket.destroy()
    if (isListening) return
    await new Promise((wait) => void setTimeout(wait, 50))
  }
}

async function runSuite(base: string): Promise<string> {
  const env = { ...process.env, npm_config_base: base, npm_config_id: values.id, npm_package_config_id: values.id }
  const child = spawn(process.execPath, ['--no-warnings', 'test-engine/cli.mjs'], { cwd: dir, env })
  children.push(child)
  child.stderr.pipe(process.stderr)
  const pieces = (await child.stdout.toArray()) as Buffer[]
  return Buffer.concat(pieces).toString()
}
