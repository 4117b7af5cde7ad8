import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { freePort } from '../support/find-redis.ts'
import { hasProgram } from '../support/packages.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { BENCH_KEY } from './driver.ts'
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
  const url = `http://127.0.0.1:${port}`
  const stop = async (): Promise<void> => {
    const ended = once(child, 'exit')
    child.kill()
    await ended
    folder.remove()
  }
  // A module that a call needs may be missing, which the check of the configuration does not see.
  const { status } = await fetch(`${url}/harness/`, { headers: { 'x-api-key': BENCH_KEY } })
  if (status !== 200) {
    await stop()
    return `${missing} (a call was answered ${status})`
  }
  return { url, cpuMicros: async () => cpuMs(treeOf(child.pid!)) * 1_000, stop }
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
