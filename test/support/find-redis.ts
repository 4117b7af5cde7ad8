import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { Redis } from 'ioredis'
import { hasProgram, installWithApt } from './packages.ts'
import { temporaryFolder } from './temporary-folder.ts'

export interface FoundRedis {
  readonly url: string
  stop(): Promise<void>
}

/**
 * A Redis for tests and benchmarks: `REDIS_URL`, else `redis-server` from PATH, else one in Docker, else one installed with
 * apt when we are root. Throws with what to do if there is none to be had.
 */
export async function findRedis(): Promise<FoundRedis> {
  const given = process.env['REDIS_URL']
  if (given !== undefined) return { url: given, stop: () => Promise.resolve() }
  if (hasProgram('redis-server')) return startRedisServer()
  if (spawnSync('docker', ['info'], { stdio: 'ignore' }).status === 0) return startContainer()
  if (installWithApt('redis-server') && hasProgram('redis-server')) return startRedisServer()
  throw new Error('the tests need a Redis: set REDIS_URL, install redis-server, or start Docker')
}

/** Starts a server of our own, on that or a free port of loopback, that keeps nothing on disk. */
export async function startRedisServer(
  options: readonly string[] = [],
  givenPort?: number,
): Promise<FoundRedis & { port: number; child: ChildProcess }> {
  const port = givenPort ?? (await freePort())
  const folder = temporaryFolder('redis')
  const own = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder.path]
  const child = spawn('redis-server', [...own, ...options], { stdio: 'ignore' })
  const url = `redis://127.0.0.1:${port}`
  await answersPing(url)
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      await ended
    }
    folder.remove()
  }
  return { url, port, child, stop }
}

async function startContainer(): Promise<FoundRedis> {
  const { GenericContainer } = await import('testcontainers')
  const container = await new GenericContainer('redis:7-alpine').withExposedPorts(6379).start()
  return {
    url: `redis://${container.getHost()}:${container.getMappedPort(6379)}`,
    stop: async () => void (await container.stop()),
  }
}

async function answersPing(url: string): Promise<void> {
  const redis = new Redis(url, { retryStrategy: () => 20, maxRetriesPerRequest: null })
  redis.on('error', () => undefined)
  try {
    await redis.ping()
  } finally {
    redis.disconnect()
  }
}

/** Below the ports that the system gives to connections: one of those could be taken by a connection before it is used. */
const FIRST_PORT = 12_000
const LAST_PORT = 32_000

/** A port of loopback that nobody listens on. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = FIRST_PORT + Math.floor(Math.random() * (LAST_PORT - FIRST_PORT))
    if (await isFree(port)) return port
  }
}

/** A port of loopback that nobody will listen on: `freePort` gives none of these to anyone. */
export async function deadPort(): Promise<number> {
  for (;;) {
    const port = FIRST_PORT - 1 - Math.floor(Math.random() * 2_000)
    if (await isFree(port)) return port
  }
}

export function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}
