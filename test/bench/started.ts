import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'

export interface Started {
  readonly child: ChildProcess
  readonly pid: number
  /** Of the port for clients, and of the admin port. */
  readonly url: string
  readonly adminUrl: string
  readonly port: number
  /** The file of its configuration, in the given folder. */
  readonly file: string
  /** Ends it, with whatever is still open. */
  stop(): Promise<void>
}

/** Starts the program with a configuration, and waits until it listens. Its log is read on and thrown away, as by an agent. */
export async function startProgram(
  config: object,
  folder: string,
  { before = [], env = {} }: { before?: readonly string[]; env?: Record<string, string> } = {},
): Promise<Started> {
  const file = join(folder, 'sluice.yaml')
  writeFileSync(file, stringify({ server: { port: 0 }, admin: { port: 0 }, store: { dir: folder }, ...config }))
  const imports = before.flatMap((name) => ['--import', new URL(name, import.meta.url).href])
  const program = fileURLToPath(new URL('../../bin/sluice.cjs', import.meta.url))
  // With code that is loaded before it, the program does not give itself this option.
  const child = spawn(process.execPath, ['--managed-zone-memory', ...imports, program, 'start', '--config', file], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, NODE_ENV: 'production', ...env },
  })
  const stop = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
  }
  const lines = createInterface({ input: child.stdout })
  for await (const line of lines) {
    if (!line.includes('"msg":"listening"')) continue
    lines.close()
    child.stdout.resume()
    const { url, admin } = JSON.parse(line) as { url: string; admin: string }
    return { child, pid: child.pid!, url, adminUrl: admin, port: Number(new URL(url).port), file, stop }
  }
  throw new Error(`the gateway ended with ${child.exitCode} before it listened`)
}
