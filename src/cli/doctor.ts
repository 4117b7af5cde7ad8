import { accessSync, constants, existsSync, statSync } from 'node:fs'
import { createServer } from 'node:net'
import { dirname, resolve } from 'node:path'
import { Cluster, type Redis } from 'ioredis'
import { findConfig } from '../config/find.ts'
import { parseConfigOf, readConfigFile } from '../config/load.ts'
import { ConfigError } from '../config/problem.ts'
import { allWarnings } from '../config/warnings.ts'
import { readYaml } from '../config/yaml.ts'
import { isObject } from '../schema/json.ts'
import type { Config, StoreConfig } from '../schema/schema.ts'
import { checkHome, checkStore } from './check-store.ts'
import { CommandError } from './command-error.ts'
import { callVendors, type Finding } from './harmless-call.ts'
import { jsonOf, printableLines } from './printable.ts'
import { shellWord } from './shell-word.ts'
import { withRedis } from './redis-contents.ts'
import { hostToReach } from '../net/address.ts'
import { homeOf } from '../redis/connection.ts'

interface Options {
  readonly config?: string
  readonly json?: boolean
  readonly calls: boolean
}

/**
 * Examines everything that a gateway with this configuration needs, whether it runs or not. Prints a line for each thing: `ok`,
 * `warn` or `fail`, and what to do. The exit code is 1 if anything fails. It changes nothing, and never prints a secret.
 */
export async function doctor(options: Options): Promise<void> {
  const found = await findConfig(options.config).catch((error: unknown) => {
    if (!(error instanceof ConfigError)) throw error
    return error
  })
  if (found instanceof ConfigError) return print(await examineRest(found), options)
  if (found === undefined) throw new CommandError('there is no configuration: name a file, or run npx sluice init')
  const { config, source } = found
  const warnings = allWarnings(found).map((warning): Finding => ({
    level: 'warn',
    what: 'configuration',
    finding: warning,
    todo: `change it in ${source}`,
  }))
  const groups = await Promise.all([
    ports(config),
    config.store.kind === 'redis' ? redis(config.store) : folder(config.store.dir ?? '.sluice'),
    home(config.store),
    options.calls ? callVendors(config) : [],
  ])
  const valid: Finding = { level: 'ok', what: 'configuration', finding: `${source} is valid` }
  const findings = [valid, ...warnings, ...groups.flat()]
  print(findings, options)
}

/** What is wrong with the configuration, and what its parts tell that are right by themselves. */
async function examineRest({ message, source }: ConfigError): Promise<Finding[]> {
  const todo = 'mend it: until then only ports and folder can be examined, where their part is right'
  const wrong = message.split('\n').map((finding): Finding => ({ level: 'fail', what: 'configuration', finding, todo }))
  // Each by itself, so that none is left out because another one is wrong, or has the same port.
  const { server } = rightPart(source, { admin: OTHER_PORT }, 'server') ?? {}
  const { admin } = rightPart(source, { server: OTHER_PORT }, 'admin') ?? {}
  const { forwardProxy } = rightPart(source, { server: OTHER_PORT, admin: OTHER_PORT }, 'forwardProxy') ?? {}
  const { store } = rightPart(source, {}, 'store') ?? {}
  return [
    ...wrong,
    ...(await ports({ server, admin, forwardProxy })),
    ...(store?.kind === 'memory' ? folder(store.dir ?? '.sluice') : []),
  ]
}

const OTHER_PORT = { port: 0 }

/**
 * The configuration with that part of the file, these others, and defaults; undefined if the file can't be read as YAML, or the part is
 * wrong. Its references need not resolve, except for hosts, ports and the folder.
 */
function rightPart(source: string, others: object, name: string): Config | undefined {
  try {
    const { document, problems } = readYaml(existsSync(source) ? readConfigFile(source) : '{}')
    const raw: unknown = document.toJS()
    if (problems.length > 0 || !isObject(raw)) return undefined
    const given = Object.hasOwn(raw, name) ? { [name]: raw[name] } : {}
    const text = JSON.stringify({ clients: {}, upstreams: NO_UPSTREAM, ...others, ...given })
    return parseConfigOf(source, text, { ignores: ([, field]) => !['host', 'port', 'dir'].includes(String(field)) })
  } catch {
    // What is wrong is said already.
    return undefined
  }
}

/** A configuration must have one. */
const NO_UPSTREAM = { none: { url: 'http://127.0.0.1', accounts: { none: {} }, limits: { read: [], write: [] } } }

function print(findings: readonly Finding[], { json }: Pick<Options, 'json'>): void {
  process.stdout.write(json === true ? jsonOf(findings) : findings.map(line).join(''))
  if (findings.some(({ level }) => level === 'fail')) process.exitCode = 1
}

function line({ level, what, finding, todo }: Finding): string {
  return `${printableLines(`${level.padEnd(5)} ${what}: ${finding}${todo === undefined ? '' : ` → ${todo}`}`)}\n`
}

type Listeners = { readonly [Name in 'server' | 'admin' | 'forwardProxy']?: Config[Name] | undefined }

/** A port that is taken is no fault if the gateway that takes it answers on the admin port. */
async function ports({ server, admin, forwardProxy }: Listeners): Promise<Finding[]> {
  const isRunning = admin !== undefined && admin.port !== 0 && (await answers(admin.host, admin.port))
  const check = async (what: string, { host, port }: { host: string; port: number }): Promise<Finding> => {
    const code = await whyNotListen(host, port)
    if (code === undefined) return { level: 'ok', what, finding: `${port} of ${host} is free` }
    if (code === 'EADDRINUSE' && isRunning)
      return { level: 'ok', what, finding: `a gateway runs on ${port} of ${host}` }
    const todo = code === 'EADDRINUSE' ? `end what uses it, or choose another port` : 'choose another host or port'
    return { level: 'fail', what, finding: `${port} of ${host} can not be had (${code})`, todo }
  }
  const listeners = { port: server, 'admin port': admin, 'port of the forward proxy': forwardProxy }
  return Promise.all(
    Object.entries(listeners).flatMap(([what, listener]) => (listener === undefined ? [] : [check(what, listener)])),
  )
}

async function answers(host: string, port: number): Promise<boolean> {
  const response = await fetch(`http://${hostToReach(host)}:${port}/healthz`, {
    signal: AbortSignal.timeout(2_000),
  }).catch(() => undefined)
  await response?.body?.cancel()
  return response?.ok === true
}

function whyNotListen(host: string, port: number): Promise<string | undefined> {
  const server = createServer()
  return new Promise((done) => {
    server.once('error', ({ code = 'unknown error' }: NodeJS.ErrnoException) => done(code))
    server.listen(port, host, () => server.close(() => done(undefined)))
  })
}

function folder(dir: string): Finding[] {
  const what = `folder ${dir}`
  const path = existsSync(dir) ? dir : nearestOf(dirname(resolve(dir)))
  if (!statSync(path).isDirectory()) {
    const finding = path === dir ? 'is a file' : `can not be made: ${path} is a file`
    return [{ level: 'fail', what, finding, todo: 'move the file away, or set store.dir' }]
  }
  try {
    accessSync(path, constants.R_OK | constants.W_OK | constants.X_OK)
  } catch {
    const todo = `give the gateway's user the right to read and write ${path}, or set store.dir`
    return [{ level: 'fail', what, finding: 'can not be written', todo }]
  }
  if (path === dir && (statSync(dir).mode & 0o007) !== 0) {
    return [
      { level: 'warn', what, finding: 'is open to every user of this machine', todo: `chmod o-rwx ${shellWord(dir)}` },
    ]
  }
  return [{ level: 'ok', what, finding: path === dir ? 'can be written' : 'can be made' }]
}

/** The path itself if there is something, else the nearest path above it where there is. */
function nearestOf(path: string): string {
  return existsSync(path) ? path : nearestOf(dirname(path))
}

async function redis(store: StoreConfig): Promise<Finding[]> {
  const what = 'redis'
  try {
    const { kind, isVolatile, holds, warnings } = await checkStore(store)
    return [
      { what, finding: kind, ...(isVolatile ? { level: 'warn', todo: 'set its appendonly to yes' } : { level: 'ok' }) },
      ...holds.map((finding): Finding => ({ level: 'ok', what, finding })),
      ...warnings.map((finding): Finding => ({ level: 'warn', what, finding, todo: 'see docs/admin-api.md' })),
      ...(await withRedis(store, stateOf)),
    ]
  } catch (error) {
    if (!(error instanceof CommandError)) throw error
    return [{ level: 'fail', what, finding: error.message, todo: 'start it, or mend store.url' }]
  }
}

/** The Redis of all regions. Its clock is not compared: it may differ from all others. */
async function home({ regions, prefix }: StoreConfig): Promise<Finding[]> {
  if (regions === undefined) return []
  const what = 'home'
  try {
    const finding = await checkHome(regions, prefix)
    const eviction = await withRedis(homeOf(regions), (redis) => evictionOf(redis as Redis, 'home memory'))
    return [{ level: 'ok', what, finding }, eviction]
  } catch (error) {
    if (!(error instanceof CommandError)) throw error
    const todo = 'mend it, or store.regions.home: until then this region has its reserve of each limit only'
    return [{ level: 'fail', what, finding: error.message, todo }]
  }
}

/** If the clocks of Redis and of a gateway are further apart than this, their windows disagree. */
const MOST_SKEW_MS = 1_000

async function stateOf(redis: Redis | Cluster): Promise<Finding[]> {
  const nodes = redis instanceof Cluster ? redis.nodes('master') : [redis]
  return (await Promise.all(nodes.map(async (node) => [await evictionOf(node), await clockOf(node)]))).flat()
}

/** https://redis.io/docs/latest/develop/reference/eviction/: with noeviction it refuses writes instead. */
async function evictionOf(node: Redis, what = 'redis memory'): Promise<Finding> {
  const info = await node.info('memory').catch(() => '')
  const policy = /^maxmemory_policy:(\S+)/m.exec(info)?.[1]
  const bytes = Number(/^maxmemory:(\d+)/m.exec(info)?.[1] ?? 0)
  const todo = 'set its maxmemory-policy to noeviction: a quota that is evicted may be granted a second time'
  if (policy === undefined) return { level: 'warn', what, finding: 'it does not say whether it evicts keys', todo }
  if (policy === 'noeviction') return { level: 'ok', what, finding: 'it evicts no keys' }
  const level = bytes > 0 ? 'fail' : 'warn'
  return { level, what, finding: `it evicts keys when its memory is full (${policy})`, todo }
}

async function clockOf(node: Redis): Promise<Finding> {
  const what = 'redis clock'
  const before = Date.now()
  const time = await node.time().catch(() => undefined)
  if (time === undefined) {
    const todo = 'let its ACL user use TIME, which the gateway needs to count'
    return { level: 'warn', what, finding: 'it does not say what time it is', todo }
  }
  const [seconds = 0, micros = 0] = time.map(Number)
  const skewMs = Math.abs(seconds * 1_000 + micros / 1_000 - (before + Date.now()) / 2)
  if (skewMs <= MOST_SKEW_MS) return { level: 'ok', what, finding: 'agrees with that of this machine' }
  const todo = 'synchronise both clocks (NTP)'
  return { level: 'warn', what, finding: `is ${(skewMs / 1_000).toFixed(1)} s off that of this machine`, todo }
}
