import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { adapt, ROOT } from './repository.ts'

/** A program that does not listen, or end, by then never will; without an end it would outlive the tests. */
const WITHIN_MS = 600_000

export interface StartOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  readonly uid?: number
}

/** A program that a deployment file starts, running on this machine. */
export class Started {
  readonly #child: ChildProcess
  #output = ''

  constructor(argv: readonly string[], { env = {}, cwd = ROOT, uid }: StartOptions = {}) {
    this.#child = spawn(program(argv), argv.slice(1), {
      cwd,
      // No more than a container has: nothing of the developer's own environment.
      env: { PATH: process.env['PATH'] ?? '', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      ...(uid === undefined ? {} : { uid, gid: uid }),
    })
    const collect = (text: Buffer): void => void (this.#output += text.toString())
    this.#child.stdout?.on('data', collect)
    this.#child.stderr?.on('data', collect)
  }

  /** Everything that it has written so far. */
  get output(): string {
    return this.#output
  }

  /** Resolves once this URL is answered with a 2xx. Ends the program and throws if that does not come. */
  async answersAt(url: string): Promise<void> {
    const deadline = Date.now() + WITHIN_MS
    for (;;) {
      if (Date.now() > deadline) await this.stop('SIGKILL')
      if (this.#isOver) throw new Error(`the program has ended:\n${this.#output}`)
      const response = await fetch(url).catch(() => undefined)
      await response?.body?.cancel()
      if (response?.ok === true) return
      await pause(50)
    }
  }

  /** Sends a signal to this process only, and resolves with its exit code, or the signal that it died of. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | string | null> {
    if (!this.#isOver) this.#child.kill(signal)
    return this.ended()
  }

  /** Resolves with the exit code once the program has ended, or with the signal that it died of. */
  async ended(): Promise<number | string | null> {
    if (!this.#isOver) await once(this.#child, 'exit')
    return this.#child.exitCode ?? this.#child.signalCode
  }

  get #isOver(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null
  }
}

/** Runs a command to its end, as Docker runs a health check. */
export function run(argv: readonly string[]): { code: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync(program(argv), argv.slice(1), {
    encoding: 'utf8',
    timeout: WITHIN_MS,
  })
  return { code: status, output: `${stdout}${stderr}` }
}

/** A health check that asks another port of this machine than the usual one. */
export function atPort(healthCheck: readonly string[], usualPort: number, port: number): string[] {
  return healthCheck.map((part) =>
    part.includes(`:${usualPort}/`) ? adapt(part, { [`:${usualPort}/`]: `:${port}/` }) : part,
  )
}

/** The Node that runs the tests is the one that the image has. */
function program([name = '']: readonly string[]): string {
  return name === 'node' ? process.execPath : name
}
