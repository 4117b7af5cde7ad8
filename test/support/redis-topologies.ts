import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { describe } from 'vitest'
import { freePort, isFree } from './find-redis.ts'
import { hasProgram } from './packages.ts'
import { temporaryFolder } from './temporary-folder.ts'

/** For tests that start, stop and kill servers of their own. Where Redis is only a URL or a container, a run says that they are missing. */
export function describeTopology(name: string, tests: () => void): void {
  if (hasProgram('redis-server')) describe(name, tests)
  else describe.skip(`${name} (skipped: needs redis-server on PATH)`, tests)
}

/** Above these, the port of the cluster bus, which is 10000 higher, would be one that the system gives to connections. */
const HIGHEST_CLUSTER_PORT = 22_000

/** How long a silent server is not missed, and how long after `doubtSoon`. */
const [PATIENCE_MS, DOUBT_MS] = [15_000, 500]

interface Access {
  readonly password?: string
  readonly tls?: { readonly ca: string; readonly servername: string }
}

/** One server on a port of loopback that stays its own over restarts. It keeps nothing on disk. */
export class RedisServer {
  readonly port: number
  /** For what it writes, and its configuration. */
  readonly folder = temporaryFolder('topology')
  readonly #arguments: readonly string[]
  readonly #access: Access
  #child: ChildProcess | undefined
  #client: Redis | undefined

  constructor(port: number, args: readonly string[], access: Access = {}) {
    this.port = port
    this.#arguments = args
    this.#access = access
  }

  /** Starts it, empty, and waits until it answers. */
  async start(): Promise<this> {
    const child = spawn('redis-server', [...this.#arguments], { stdio: 'ignore', cwd: this.folder.path })
    this.#child = child
    const client = new Redis(this.port, '127.0.0.1', {
      ...this.#access,
      retryStrategy: () => 20,
      maxRetriesPerRequest: null,
    })
    client.on('error', () => undefined)
    this.#client = client
    const died = once(child, 'exit').then(() => {
      client.disconnect()
      throw new Error(`redis-server ${this.#arguments.join(' ')} could not start`)
    })
    await Promise.race([client.ping(), died])
    died.catch(() => undefined)
    return this
  }

  /** A connection for the test's own questions. */
  get client(): Redis {
    return this.#client!
  }

  get pid(): number {
    return this.#child!.pid!
  }

  /** It keeps its connections and answers nobody, until `thaw`. */
  freeze(): void {
    this.#child!.kill('SIGSTOP')
  }

  thaw(): void {
    this.#child!.kill('SIGCONT')
  }

  /** Gone at once, with all that it held. */
  async kill(): Promise<void> {
    this.#client?.disconnect()
    const child = this.#child
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill('SIGKILL')
    await exited
  }

  async stop(): Promise<void> {
    await this.kill()
    this.folder.remove()
  }
}

const IN_MEMORY = ['--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--repl-diskless-sync-delay', '0']

export async function startStandalone(args: readonly string[] = []): Promise<RedisServer> {
  const port = await freePort()
  return new RedisServer(port, ['--port', String(port), ...IN_MEMORY, ...args]).start()
}

export interface TlsRedis {
  readonly server: RedisServer
  /** PEM of the authority that its certificate, for `localhost`, is of. */
  readonly ca: string
  readonly username: string
  readonly password: string
  stop(): Promise<void>
}

/** A server with TLS only, and no user but one who may do just what the ledger does below `prefix`. */
export async function startTlsRedis(prefix: string): Promise<TlsRedis> {
  const folder = temporaryFolder('tls')
  const openssl = (...args: string[]): void => void execFileSync('openssl', args, { cwd: folder.path, stdio: 'pipe' })
  const newKey = ['-newkey', 'rsa:2048', '-nodes']
  openssl('req', '-x509', ...newKey, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2', '-subj', '/CN=test authority')
  const name = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost']
  openssl('req', ...newKey, '-keyout', 'server.key', '-out', 'server.csr', ...name)
  const signed = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-copy_extensions', 'copy']
  openssl('x509', '-req', '-in', 'server.csr', '-out', 'server.pem', ...signed)
  const file = (name: string): string => join(folder.path, name)
  const ca = readFileSync(file('ca.pem'), 'utf8')
  const port = await freePort()
  const certificate = ['--tls-cert-file', file('server.pem'), '--tls-key-file', file('server.key')]
  const [username, password] = ['gateway', 'open sesame']
  const server = new RedisServer(
    port,
    [
      ...['--port', '0', '--tls-port', String(port), ...IN_MEMORY, ...certificate],
      ...['--tls-ca-cert-file', file('ca.pem'), '--tls-auth-clients', 'no', '--requirepass', 'of the test'],
    ],
    { password: 'of the test', tls: { ca, servername: 'localhost' } },
  )
  await server.start()
  const commands = ['+eval', '+evalsha', '+time', '+info', '+hello', '+hmget', '+hget', '+hgetall']
  const more = ['+hset', '+hdel', '+pexpire', '+zadd', '+zscore', '+zrangebyscore', '+zremrangebyscore']
  await server.client.call('ACL', 'SETUSER', username, 'on', `>${password}`, `~${prefix}:*`, ...commands, ...more)
  const stop = async (): Promise<void> => {
    await server.stop()
    folder.remove()
  }
  return { server, ca, username, password, stop }
}

export interface SentinelRedis {
  readonly servers: readonly RedisServer[]
  /** `host:port` of each sentinel. */
  readonly sentinels: readonly string[]
  readonly sentinelPassword: string
  /** The server that the sentinels name as the master now. */
  master(): Promise<RedisServer>
  /** Whoever is to fail is missed soon; until then nobody is, on a busy machine. */
  doubtSoon(): Promise<unknown>
  stop(): Promise<void>
}

/** A master and its replicas under the name `mymaster`, watched by three sentinels. */
export async function startSentinelRedis(replicas = 1): Promise<SentinelRedis> {
  const master = await startStandalone()
  const followers = await inTurn(replicas, () => startStandalone(['--replicaof', '127.0.0.1', String(master.port)]))
  const servers = [master, ...followers]
  await until(async () => /connected_slaves:(\d+)/.exec(await master.client.info('replication'))?.[1] === `${replicas}`)
  await until(async () => {
    const states = await Promise.all(followers.map(({ client }) => client.info('replication')))
    return states.every((state) => state.includes('master_link_status:up'))
  })
  const sentinelPassword = 'of the sentinels'
  const watchers = await inTurn(3, async () => {
    const port = await freePort()
    const file = 'sentinel.conf'
    const watcher = new RedisServer(port, [file, '--sentinel'], { password: sentinelPassword })
    const lines = [
      `port ${port}`,
      'bind 127.0.0.1',
      `requirepass "${sentinelPassword}"`,
      `sentinel sentinel-pass "${sentinelPassword}"`,
      `sentinel monitor mymaster 127.0.0.1 ${master.port} 2`,
      `sentinel down-after-milliseconds mymaster ${PATIENCE_MS}`,
      'sentinel failover-timeout mymaster 2000',
    ]
    writeFileSync(join(watcher.folder.path, file), `${lines.join('\n')}\n`) // and the sentinel writes to it, too
    return watcher.start()
  })
  const [watcher] = watchers
  await until(async () => {
    const others = await Promise.all(watchers.map(({ client }) => client.call('sentinel', 'sentinels', 'mymaster')))
    const known = (await watcher!.client.call('sentinel', 'replicas', 'mymaster')) as unknown[]
    return known.length === replicas && others.every((list) => (list as unknown[]).length === 2)
  })
  return {
    servers,
    sentinels: watchers.map(({ port }) => `127.0.0.1:${port}`),
    sentinelPassword,
    async master() {
      const [, port] = (await watcher!.client.call('sentinel', 'get-master-addr-by-name', 'mymaster')) as [
        string,
        string,
      ]
      return servers.find((server) => server.port === Number(port))!
    },
    doubtSoon: () =>
      Promise.all(
        watchers.map(({ client }) => client.call('sentinel', 'set', 'mymaster', 'down-after-milliseconds', DOUBT_MS)),
      ),
    stop: async () => void (await Promise.all([...watchers, ...servers].map((server) => server.stop()))),
  }
}

export class RedisCluster {
  readonly servers: readonly RedisServer[]

  constructor(servers: readonly RedisServer[]) {
    this.servers = servers
  }

  get nodes(): readonly string[] {
    return this.servers.map(({ port }) => `127.0.0.1:${port}`)
  }

  /** The masters, as `asked` sees them. */
  async masters(asked = this.servers[0]!): Promise<RedisServer[]> {
    return (await this.#slots(asked)).map(({ port }) => this.#serverAt(port))
  }

  async masterOf(key: string, asked = this.servers[0]!): Promise<RedisServer> {
    const slot = await asked.client.cluster('KEYSLOT', key)
    const found = (await this.#slots(asked)).find(({ first, last }) => first <= slot && slot <= last)
    return this.#serverAt(found!.port)
  }

  /** Moves the slot of a key, with its keys, as `redis-cli --cluster reshard` does. Between the steps `during` is awaited. */
  async migrate(key: string, to: RedisServer, during: () => Promise<unknown> = async () => undefined): Promise<void> {
    const from = await this.masterOf(key)
    const slot = await from.client.cluster('KEYSLOT', key)
    const [fromId, toId] = await Promise.all([from.client.cluster('MYID'), to.client.cluster('MYID')])
    await to.client.cluster('SETSLOT', slot, 'IMPORTING', fromId)
    await from.client.cluster('SETSLOT', slot, 'MIGRATING', toId)
    await during()
    for (;;) {
      const keys = await from.client.cluster('GETKEYSINSLOT', slot, 1)
      if (keys.length === 0) break
      await from.client.migrate('127.0.0.1', to.port, '', 0, 1_000, 'KEYS', ...keys)
      await during()
    }
    await to.client.cluster('SETSLOT', slot, 'NODE', toId)
    await from.client.cluster('SETSLOT', slot, 'NODE', toId)
  }

  /** Whoever is to fail is missed soon; until then nobody is, on a busy machine. */
  async doubtSoon(): Promise<void> {
    await Promise.all(this.servers.map(({ client }) => client.config('SET', 'cluster-node-timeout', DOUBT_MS)))
  }

  async stop(): Promise<void> {
    await Promise.all(this.servers.map((server) => server.stop()))
  }

  async #slots(asked: RedisServer): Promise<{ first: number; last: number; port: number }[]> {
    return (await asked.client.cluster('SLOTS')).map(([first, last, node]) => ({ first, last, port: node![1] }))
  }

  #serverAt(port: number): RedisServer {
    return this.servers.find((server) => server.port === port)!
  }
}

/** Three masters, of which the first ones have a replica. */
export async function startCluster(replicas = 1): Promise<RedisCluster> {
  const servers = await inTurn(3 + replicas, async () => {
    const port = await freePortForCluster()
    const options = [
      '--cluster-enabled',
      'yes',
      '--cluster-node-timeout',
      String(PATIENCE_MS),
      '--cluster-replica-validity-factor',
      '0',
    ]
    // A replica that its master has sent nothing yet is not shown to anybody.
    options.push('--repl-ping-replica-period', '1')
    return new RedisServer(port, ['--port', String(port), ...IN_MEMORY, ...options]).start()
  })
  // Epochs that differ from the start, or two masters would first have to agree on who is the older.
  await Promise.all(servers.map(({ client }, i) => client.cluster('SET-CONFIG-EPOCH', i + 1)))
  const shares = [0, 5461, 10923, 16384]
  await Promise.all(
    servers.slice(0, 3).map(({ client }, i) => client.call('CLUSTER', 'ADDSLOTSRANGE', shares[i]!, shares[i + 1]! - 1)),
  )
  // Each meets each: gossip would need seconds to introduce them.
  for (const { client } of servers) for (const { port } of servers) await client.cluster('MEET', '127.0.0.1', port)
  await until(async () => {
    const views = await Promise.all(servers.map(({ client }) => client.cluster('INFO')))
    return views.every((view) => view.includes('cluster_state:ok') && view.includes(`known_nodes:${servers.length}`))
  })
  await Promise.all(
    servers.slice(3).map(async ({ client }, i) => {
      const id = await servers[i % 3]!.client.cluster('MYID')
      await until(async () => ((await client.cluster('NODES')) as string).includes(id))
      await client.cluster('REPLICATE', id)
    }),
  )
  await until(async () => {
    const states = await Promise.all(servers.slice(3).map(({ client }) => client.info('replication')))
    const views = await Promise.all(servers.map(({ client }) => client.cluster('SLOTS')))
    const isFollowing = states.every((state) => state.includes('master_link_status:up'))
    const nodes = (view: unknown[][]): number => view.reduce((sum, range) => sum + range.length - 2, 0)
    return isFollowing && views.every((view) => nodes(view) === servers.length)
  })
  return new RedisCluster(servers)
}

/** One after another, because what a free port is can only be said of the moment. */
async function inTurn<T>(count: number, make: () => Promise<T>): Promise<T[]> {
  const made: T[] = []
  for (let i = 0; i < count; i++) made.push(await make())
  return made
}

/** Free together with the port of its bus. */
async function freePortForCluster(): Promise<number> {
  for (;;) {
    const port = await freePort()
    if (port <= HIGHEST_CLUSTER_PORT && (await isFree(port + 10_000))) return port
  }
}

/** Ends what hangs, before the test that waits for it is ended and says less. */
export async function until(isSo: () => Promise<boolean>, withinMs = 150_000): Promise<void> {
  const deadline = performance.now() + withinMs
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`not so within ${withinMs} ms: ${String(isSo)}`)
    await pause(20)
  }
}
