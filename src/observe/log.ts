import { createRequire } from 'node:module'
import { hostname } from 'node:os'
import pino, { type DestinationStream, type Logger } from 'pino'
import type * as Pretty from 'pino-pretty'
import type { Config } from '../schema/schema.ts'
import { LineOutput, type Standard } from './output.ts'

export type { Logger } from 'pino'

/**
 * How an attempt ended. `retried`: its response was left, and the call sent once more. `failed`: there was no response, and `error`
 * says why. `from_cache`: the cache answered in its place. `superseded`: another attempt of the same call went on in its place.
 */
export type TryEnd = 'delivered' | 'retried' | 'failed' | 'broken_off' | 'client_gone' | 'from_cache' | 'superseded'

/** An attempt as the access log shows it: the status of its response, or why there was none. */
export interface Try {
  readonly status?: number | undefined
  /** How it failed, with the code of the error, as in `unreachable (ECONNREFUSED)`. */
  readonly error?: string | undefined
  /** From the call's arrival to the dispatch. */
  readonly startedMs: number
  /** From the dispatch to the response's headers, or to the failure. */
  readonly ms: number
  /** How the attempt ended; undefined while that is not known. */
  end: TryEnd | undefined
  /** The name of the credential with which it was sent. */
  readonly credential: string | undefined
  /** Increases whenever another value of that credential is used. */
  readonly credentialVersion: number | undefined
  /** Why this credential of a pool was chosen. */
  readonly credentialBecause?: string | undefined
  /** The vendor's id of the request. */
  readonly requestId: string | undefined
}

/** The line that the access log gets for a call. The names are those of the JSON. */
export interface AccessLine {
  readonly correlationId: string
  /** Given if its spans are exported, or if it came with a trace. */
  readonly traceId?: string | undefined
  readonly client?: string | undefined
  /** The address of the client; undefined if the connection is closed. */
  readonly address?: string | undefined
  readonly upstream?: string | undefined
  readonly account?: string | undefined
  readonly class?: string | undefined
  /** The path in the route table that decided the class; undefined if a rule did. */
  readonly route?: string | undefined
  readonly method?: string | undefined
  readonly path: string
  readonly status: string
  readonly outcome: string
  readonly attempts: number
  /** How each attempt was answered, and ended. */
  readonly tries?: readonly Try[] | undefined
  /** The credential of the last attempt, and the vendor's id of it. */
  readonly credential?: string | undefined
  readonly upstreamRequestId?: string | undefined
  /** Bytes of the bodies. */
  readonly requestBytes: number
  readonly responseBytes: number
  readonly waitMs: number
  /** The wait that was forecast when it began to wait; undefined if it did not. */
  readonly expectedMs?: number | undefined
  readonly upstreamMs: number
  /** Time between attempts. */
  readonly backoffMs: number
  readonly gatewayMs: number
  readonly durationMs: number
  /** What held it back first, if anything did: a limit, such as `read 1m`, `pause` or `concurrency`. */
  readonly heldBy?: string | undefined
  /** Why the gateway refused it. */
  readonly reason?: string | undefined
  /** Limits with `enforce: false` that would have delayed or refused it. */
  readonly wouldDeny?: readonly string[] | undefined
  /** What the cache did; undefined for a call that is not cached. */
  readonly cache?: string | undefined
  /** For a wrong key: the beginning of its hash, as lists of keys show it, and the program that sent it. */
  readonly keyHash?: string | undefined
  readonly userAgent?: string | undefined
}

export interface Log {
  readonly logger: Logger
  /**
   * Writes the line of a call. `text` is the JSON of `line`, which others need, too; `at` is the time of the line, in
   * ms since 1970.
   */
  access(line: AccessLine, text: string, at: number): void
  /** Calls `listener` for every line that is dropped because nobody reads the log. */
  onDropped(listener: () => void): void
  /** Writes what is buffered, as far as the reader takes it now. */
  flush(): void
  /** Writes the rest, and waits at most this long for a slow reader. */
  close(withinMs: number): Promise<void>
}

export type LogOptions = Omit<Config['log'], 'sample'> & Partial<Pick<Config['log'], 'sample'>>

/** Makes the program's log: readable lines for a terminal, JSON for everything else. It never waits for its reader. */
export function createLog(
  { level, format, instance, sample = 1 }: LogOptions,
  {
    stream = process.stdout,
    isTerminal = stream.isTTY,
    random = Math.random,
  }: { stream?: Standard; isTerminal?: boolean; random?: () => number } = {},
): Log {
  const output = new LineOutput((dropped) => {
    logger.warn({ dropped }, 'lines of the log were dropped, because nobody read standard output')
  }, stream)
  const isPretty = format === 'pretty' || (format === 'auto' && isTerminal)
  const base = { instance: instanceName(instance), pid: process.pid }
  const serializers = { err: describeError }
  const logger = pino({ level, base, serializers }, isPretty ? readableStream(output) : output)
  const access = isPretty ? readableAccess(logger) : jsonAccess(logger, output, base)
  return {
    logger,
    access: sample < 1 ? sampled(access, sample, random) : access,
    onDropped: (listener) => void (output.onDropped = listener),
    flush: () => output.flush(),
    close: (withinMs) => output.close(withinMs),
  }
}

/** The name of this process, in logs and elsewhere. */
export function instanceName(configured: string | undefined): string {
  return configured ?? `${hostname()}:${process.pid}`
}

/** Leaves out the lines of calls that succeeded: the upstream or the cache answered without an error. */
function sampled(access: Log['access'], part: number, random: () => number): Log['access'] {
  return (line, text, at) => {
    if (hasFailed(line) || random() < part) access(line, text, at)
  }
}

/**
 * Whether a call failed. Only a call that the upstream or the cache answered without an error did not. Neither lines
 * nor spans of failed calls are left out.
 */
export function hasFailed({ outcome, status }: Pick<AccessLine, 'outcome' | 'status'>): boolean {
  return outcome !== 'delivered' || status >= '400'
}

function readableStream(output: LineOutput): DestinationStream {
  // Loaded only here, because a gateway that writes JSON should not hold it.
  const { isColorSupported, prettyFactory } = createRequire(import.meta.url)('pino-pretty') as typeof Pretty
  const prettify = prettyFactory({
    colorize: isColorSupported,
    ignore: 'pid,hostname,instance',
    singleLine: true,
    translateTime: 'HH:MM:ss.l',
  })
  return { write: (line) => output.write(prettify(line) ?? '') }
}

function readableAccess(logger: Logger): Log['access'] {
  return (line) => {
    logger[levelOf(line)]({ correlationId: line.correlationId }, readable(line))
  }
}

/** A call that the gateway refused or broke off, or that the upstream failed, is worth a warning. */
function levelOf({ outcome, status, keyHash }: AccessLine): 'info' | 'warn' {
  const isQuiet =
    outcome === 'client_gone' ||
    (outcome === 'delivered' && !status.startsWith('5')) ||
    // Many a client, git for one, shows its proxy credentials only when it is asked for them.
    (outcome === 'proxy_unauthenticated' && keyHash === undefined)
  return isQuiet ? 'info' : 'warn'
}

/** Such as `GET /ng/api/projects 200 harness/prod read 11ms`, and whatever was unusual. */
function readable(line: AccessLine): string {
  const { method, path, status, upstream, account, class: name, outcome, reason, attempts, waitMs, heldBy } = line
  const words = method === undefined ? ['(no request)', status] : [method, path, status]
  if (upstream !== undefined) words.push(account === undefined ? upstream : `${upstream}/${account}`)
  if (name !== undefined) words.push(name)
  words.push(`${Math.round(line.durationMs)}ms`)
  const held = heldBy === undefined ? '' : ` for ${heldBy}`
  if (waitMs >= 1) words.push(`(waited ${Math.round(waitMs)}ms${held})`)
  if (attempts > 1) words.push(`(${attempts} attempts)`)
  if (outcome !== 'delivered') words.push(reason === undefined ? outcome : `${outcome}: ${reason}`)
  return words.join(' ')
}

/** Writes the same lines as pino, in less time: a fixed shape for JSON.stringify, and many lines in one write. */
function jsonAccess(logger: Logger, output: LineOutput, base: object): Log['access'] {
  const starts = { info: startOf('info'), warn: startOf('warn') }
  const isEnabled = { info: logger.isLevelEnabled('info'), warn: logger.isLevelEnabled('warn') }
  const end = `,${JSON.stringify({ ...base, msg: 'call' }).slice(1)}\n`
  return (line, text, at) => {
    const level = levelOf(line)
    if (!isEnabled[level]) return
    output.hold(`${starts[level]}${at},`, text.slice(1, -1), end)
  }
}

function startOf(level: 'info' | 'warn'): string {
  return `{"level":${pino.levels.values[level]},"time":`
}

/**
 * The parts of an error that may be logged. ioredis attaches the command that failed, which may be an AUTH with the
 * password.
 */
function describeError(error: unknown): unknown {
  if (!(error instanceof Error)) return error
  const { type, message, stack } = pino.stdSerializers.err(error)
  const { code } = error as NodeJS.ErrnoException
  return { type, message, ...(code === undefined ? {} : { code }), stack }
}
