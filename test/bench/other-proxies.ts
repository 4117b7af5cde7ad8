import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { freePort } from '../support/find-redis.ts'
import { hasProgram } from '../support/packages.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { cpuMs, treeOf } from './process-tree.ts'

/** What is measured: any program that takes calls on a port. */
export interface Running {
  readonly url: string
  /** Processor time that it used so far. */
  cpuMicros(): Promise<number>
  stop(): Promise<void>
}

/** A proxy of another house that does the same job for one route, as its configuration beside this file says. */
interface OtherProxy {
  readonly name: string
  readonly program: string
  readonly configuration: string
  check(file: string): string[]
  run(file: string): string[]
  readonly install: string
}

export const OTHER_PROXIES: readonly OtherProxy[] = [
  {
    name: 'nginx + Lua + Redis',
    program: 'nginx',
    configuration: 'nginx.conf',
    check: (file) => ['-t', '-q', '-e', 'stderr', '-c', file],
    run: (file) => ['-e', 'stderr', '-c', file],
    install: 'nginx, libnginx-mod-http-lua and lua-nginx-redis',
  },
  {
    name: 'HAProxy, stick table',
    program: 'haproxy',
    configuration: 'haproxy.cfg',
    check: (file) => ['-c', '-q', '-f', file],
    run: (file) => ['-db', '-f', file],
    install: 'haproxy',
  },
]

/** Runs it on the first core, if `isPinned`. A text says why it can't be measured here, and what to do. Linux only. */
export async function startOther(
  { name, program, configuration, check, run, install }: OtherProxy,
  { upstreamPort, redisUrl, isPinned }: { upstreamPort: number; redisUrl: string; isPinned: boolean },
): Promise<Running | string> {
  const missing = `${name}: left out; to measure it, install ${install}`
  if (process.platform !== 'linux' || !hasProgram(program)) return missing
  const folder = temporaryFolder('other-proxy')
  const port = await freePort()
  const values: Record<string, string | number> = {
    PORT: port,
    UPSTREAM_PORT: upstreamPort,
    REDIS_PORT: new URL(redisUrl).port,
    FOLDER: folder.path,
    MODULES: /--modules-path=(\S+)/.exec(spawnSync(program, ['-V'], { encoding: 'utf8' }).stderr)?.[1] ?? 'modules',
  }
  const file = join(folder.path, configuration)
  const template = readFileSync(new URL(configuration, import.meta.url), 'utf8')
  writeFileSync(
    file,
    template.replaceAll(/\$\{([A-Z_]+)\}/g, (whole, variable) => String(values[variable] ?? whole)),
  )
  const checked = spawnSync(program, check(file), { encoding: 'utf8' })
  if (checked.status !== 0) {
    folder.remove()
    return `${missing} (${checked.stderr.trim().split('\n')[0]})`
  }
  const pinned = isPinned ? ['taskset', '-c', '0'] : []
  const [command, ...args] = [...pinned, program, ...run(file)]
  const child = spawn(command!, args, { stdio: ['ignore', 'ignore', 'inherit'] })
  while (!(await listens(port))) {
    if (child.exitCode !== null) throw new Error(`${program} ended with ${child.exitCode}`)
    await pause(20)
  }
  return {
    url: `http://127.0.0.1:${port}`,
    cpuMicros: async () => cpuMs(treeOf(child.pid!)) * 1_000,
    async stop() {
      const ended = once(child, 'exit')
      child.kill()
      await ended
      folder.remove()
    },
  }
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    const end = (is: boolean) => (): void => {
      socket.destroy()
      resolve(is)
    }
    socket.on('connect', end(true)).on('error', end(false))
  })
}
