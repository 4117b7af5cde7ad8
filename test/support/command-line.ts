import { Readable } from 'node:stream'
import { main } from '../../src/cli/main.ts'
import { newFolder } from './gateway.ts'

/** Thrown where a process of its own would have ended. */
class Exit extends Error {
  readonly code: number

  constructor(code: number) {
    super(`the command ended with ${code}`)
    this.code = code
  }
}

export interface CommandOptions {
  readonly env?: NodeJS.ProcessEnv
  readonly cwd?: string
  readonly input?: string
}

let last: Promise<unknown> = Promise.resolve()

/**
 * Runs one command of the program to its end in the process of the test, which takes a hundredth of the time that a process
 * of its own takes. For what a command reads and prints, and the code that it ends with. Signals, terminals, broken pipes and
 * whether a process ends by itself need a real one: see `run` in `process.ts`. One command runs at a time.
 */
export function runCommand(
  args: readonly string[],
  options: CommandOptions = {},
): Promise<{ code: number; stdout: string; stderr: string }> {
  const turn = last.then(() => runNow(args, options))
  last = turn.catch(() => undefined)
  return turn
}

async function runNow(args: readonly string[], { env = {}, cwd = newFolder(), input = '' }: CommandOptions) {
  const { PATH, HOME } = process.env
  const before = { env: process.env, cwd: process.cwd(), exit: process.exit, exitCode: process.exitCode }
  const stdin = Object.getOwnPropertyDescriptor(process, 'stdin')!
  const stdout = capture(process.stdout)
  const stderr = capture(process.stderr)
  process.env = { PATH, HOME, ...env }
  process.chdir(cwd)
  process.exit = (code) => {
    throw new Exit(Number(code ?? process.exitCode ?? 0))
  }
  process.exitCode = undefined
  Object.defineProperty(process, 'stdin', { configurable: true, value: Readable.from([Buffer.from(input)]) })
  try {
    const code = await exitCodeOf(main([process.execPath, 'sluice', ...args]))
    return { code, stdout: stdout.text(), stderr: stderr.text() }
  } finally {
    Object.defineProperty(process, 'stdin', stdin)
    process.exitCode = before.exitCode
    process.exit = before.exit
    process.chdir(before.cwd)
    process.env = before.env
    stdout.restore()
    stderr.restore()
  }
}

async function exitCodeOf(command: Promise<void>): Promise<number> {
  try {
    await command
    return Number(process.exitCode ?? 0)
  } catch (error) {
    if (error instanceof Exit) return error.code
    throw error
  }
}

/** Keeps what is written to a stream, instead of writing it, until it is restored. */
function capture(stream: NodeJS.WriteStream): { text(): string; restore(): void } {
  const { write } = stream
  const listeners = stream.listeners('error') as ((error: Error) => void)[]
  let text = ''
  stream.write = (chunk: string | Uint8Array) => {
    text += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString()
    return true
  }
  const restore = (): void => {
    stream.write = write
    stream.removeAllListeners('error')
    for (const listener of listeners) stream.on('error', listener)
  }
  return { text: () => text, restore }
}
