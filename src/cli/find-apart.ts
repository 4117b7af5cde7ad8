import { realpathSync, statSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
import type { FoundConfig } from '../config/find.ts'
import { ConfigError, type Problem } from '../config/problem.ts'
import type { ConfigText } from '../process/worker-link.ts'
import type { Config } from '../schema/schema.ts'
import { Secret, type Template } from '../schema/secret.ts'

/** What is read: the configuration that is found when this file is named, or a text as if it were in a file. */
export type Wanted = { readonly file: string | undefined } | ConfigText

/** This much is read in some milliseconds, and a thread takes longer to start. */
const SMALL_BYTES = 4_096

/** What the thread tells: each file that it is about to read, then the configuration that it found, or what is wrong with it. */
export type Answer =
  | { readonly reads: string; readonly state: string }
  | { readonly found: Packed | undefined }
  | { readonly source: string; readonly problems: readonly Problem[] }

/** A configuration that can go from one thread to another. */
export interface Packed extends Omit<FoundConfig, 'config'> {
  /** With `null` in place of each secret. */
  readonly config: unknown
  readonly secrets: readonly PackedSecret[]
}

interface PackedSecret {
  readonly path: readonly string[]
  readonly value: string
  readonly next: string | undefined
  readonly template: Template | undefined
  readonly expiresAt: number | undefined
  readonly nextExpiresAt: number | undefined
}

/**
 * Finds a configuration as `findConfig` does, with its warnings, on a thread of its own: to read and check a large one takes seconds,
 * in which this thread would serve no call. A file of up to 4 KB is read by `here`, on this thread. So is any file if no thread can be
 * started. Throws a `ConfigError` if the configuration is wrong.
 */
export async function findApart(
  wanted: Wanted,
  here: () => Promise<FoundConfig | undefined>,
  onFile: (file: string, state: string) => void = () => undefined,
): Promise<FoundConfig | undefined> {
  if (bytesOf(wanted) <= SMALL_BYTES) return here()
  const { promise, resolve, reject } = Promise.withResolvers<FoundConfig | undefined>()
  try {
    // The thread runs the program itself, which then finds that this is not its main thread. It gets no options of Node.
    const thread = new Worker(realpathSync(process.argv[1]!), { workerData: wanted, execArgv: [] })
    let isAnswered = false
    const instead = (): void => {
      if (!isAnswered) resolve(here())
      isAnswered = true
    }
    thread.on('error', instead).on('exit', instead)
    thread.on('message', (answer: Answer) => {
      if ('reads' in answer) return onFile(answer.reads, answer.state)
      isAnswered = true
      if ('problems' in answer) return reject(new ConfigError(answer.source, answer.problems))
      return resolve(answer.found && unpacked(answer.found))
    })
  } catch {
    return here()
  }
  return promise
}

function bytesOf(wanted: Wanted): number {
  if ('text' in wanted) return wanted.text.length
  const file = wanted.file ?? (process.env['SLUICE_CONFIG'] || 'sluice.yaml')
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0
}

export function packed({ config, ...found }: FoundConfig): Packed {
  const secrets: PackedSecret[] = []
  const without = (value: unknown, path: readonly string[]): unknown => {
    if (value instanceof Secret) {
      const { template, expiresAt, next } = value
      secrets.push({
        path,
        value: value.reveal(),
        next: next?.reveal(),
        nextExpiresAt: next?.expiresAt,
        template,
        expiresAt,
      })
      return null
    }
    if (typeof value !== 'object' || value === null) return value
    if (Array.isArray(value)) return value.map((item, i) => without(item, [...path, String(i)]))
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, without(inner, [...path, key])]))
  }
  return { ...found, config: without(config, []), secrets }
}

function unpacked({ config, secrets, ...found }: Packed): FoundConfig {
  for (const { path, value, next, nextExpiresAt, template, expiresAt } of secrets) {
    const secret = new Secret(value)
    secret.replace(value, next, nextExpiresAt)
    secret.template = template
    secret.expiresAt = expiresAt
    let parent = config as Record<string, unknown>
    for (const step of path.slice(0, -1)) parent = parent[step] as Record<string, unknown>
    parent[path.at(-1)!] = secret
  }
  return { ...found, config: config as Config }
}
