import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { inject, onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { newFolder } from './gateway.ts'

export const ROOT = fileURLToPath(new URL('../..', import.meta.url))
export const MAIN = join(ROOT, 'src/main.ts')

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface ProgramOptions {
  readonly env?: NodeJS.ProcessEnv
  readonly cwd?: string
  /** What to run instead of the program itself. */
  readonly command?: readonly string[]
  /** A file descriptor for its standard output, instead of a pipe of which `stdout` is read. */
  readonly output?: number
}

/** The program, as a package has it, as a process of its own, ended when the test is finished. */
export class Program {
  readonly child: ChildProcess
  readonly ended: Promise<Ended>
  stdout = ''
  stderr = ''

  constructor(
    args: readonly string[],
    { env = {}, cwd = newFolder(), command = [process.execPath, inject('program')], output }: ProgramOptions = {},
  ) {
    const { PATH, HOME } = process.env
    const [program = '', ...first] = command
    this.child = spawn(program, [...first, ...args], {
      env: { PATH, HOME, NODE_COMPILE_CACHE: inject('compileCache'), ...env },
      cwd,
      stdio: ['pipe', output ?? 'pipe', 'pipe'],
    })
    this.child.stdout?.on('data', (chunk) => void (this.stdout += String(chunk)))
    this.child.stderr?.on('data', (chunk) => void (this.stderr += String(chunk)))
    this.ended = new Promise((resolve) => void this.child.once('close', (code, signal) => resolve({ code, signal })))
    onTestFinished(async () => {
      this.child.kill('SIGKILL')
      await this.ended
    })
  }

  /** The first line of output that matches, once it is whole; throws if the program ends before. */
  async line(pattern: RegExp): Promise<string> {
    let from = 0
    for (let isRunning = true; isRunning;) {
      const until = this.stdout.lastIndexOf('\n')
      for (const line of this.stdout.slice(from, Math.max(from, until)).split('\n')) if (pattern.test(line)) return line
      from = until + 1
      isRunning = await Promise.race([once(this.child.stdout!, 'data').then(() => true), this.ended.then(() => false)])
    }
    throw new Error(`the program ended without a line like ${pattern}: ${this.stderr || this.stdout}`)
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal)
  }
}

/** The processes that a process has started (proc_pid_children(5)). */
export function childrenOf(pid: number): number[] {
  return (readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').match(/\d+/g) ?? []).map(Number)
}

/** Stops a process of the program where it is, as a hang would. It ends with the test, which it could not notice itself. */
export function freeze(pid: number): void {
  process.kill(pid, 'SIGSTOP')
  onTestFinished(() => {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // it has ended
    }
  })
}

/** Runs one command to its end. */
export async function run(
  args: readonly string[],
  options: { env?: NodeJS.ProcessEnv; cwd?: string; input?: string } = {},
) {
  const program = new Program(args, options)
  program.child.stdin!.end(options.input ?? '')
  const { code } = await program.ended
  return { code, stdout: program.stdout, stderr: program.stderr }
}

/** Starts a gateway process and waits until it listens. `configure` gives it another configuration to reload. */
export async function startProcess(
  config: object,
): Promise<Program & { url: string; adminUrl: string; configure(config: object): void }> {
  const cwd = newFolder()
  const configure = (written: object): void => writeFileSync(join(cwd, 'sluice.yaml'), stringify(written))
  configure(config)
  return Object.assign(await startProcessIn(cwd), { configure })
}

/** The same with the `sluice.yaml` that is in that folder, or another file. */
export async function startProcessIn(
  cwd: string,
  args: readonly string[] = [],
  env: NodeJS.ProcessEnv = {},
): Promise<Program & { url: string; adminUrl: string }> {
  const program = new Program(['start', ...args], { cwd, env })
  const { url, admin } = JSON.parse(await program.line(/"msg":"listening"/)) as { url: string; admin: string }
  return Object.assign(program, { url, adminUrl: admin })
}

/** The same by `npm start`, of which the gateway is a descendant, with the number `pid`. */
export async function npmStart(config: object): Promise<Program & { url: string; pid: number }> {
  const file = join(newFolder(), 'sluice.yaml')
  writeFileSync(file, stringify(config))
  const options = { cwd: ROOT, env: { SLUICE_CONFIG: file }, command: ['npm', 'start'] }
  const program = new Program([], options)
  const { url, pid } = JSON.parse(await program.line(/"msg":"listening"/)) as { url: string; pid: number }
  onTestFinished(() => {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // it has ended, as it should
    }
  })
  return Object.assign(program, { url, pid })
}
