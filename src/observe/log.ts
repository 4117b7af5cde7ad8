import { hostname } from 'node:os'
import pino, { type DestinationStream, type Logger } from 'pino'
import { isColorSupported, prettyFactory } from 'pino-pretty'
import type { Config } from '../schema/schema.ts'
import { LineOutput } from './output.ts'

export type { Logger } from 'pino'

/** An attempt as the access log shows it: the status of its response, or why there was none. */
export interface Try {
  readonly status?: number | undefined
  /** How it failed, with the code of the error, as in `unreachable (ECONNREFUSED)`. */
  readonly error?: string | undefined
  /** From the dispatch to the response's headers, or to the failure. */
  readonly ms: number
  /** The name of the credential with which it was sent. */
  readonly credential: string | undefined
  /** The vendor's id of the request. */
  readonly requestId: string | undefined
}

/** The line that the access log gets for a call. The names are those of the JSON. */
export interface AccessLine {
  readonly correlationId: string
  readonly client: string | undefined
  /** The address of the client; undefined if the connection is closed. */
  readonly address: string | undefined
  readonly upstream: string | undefined
  readonly account: string | undefined
  readonly class: string | undefined
  /** The path in the route table that decided the class; undefined if a rule did. */
  readonly route: string | undefined
  readonly method: string | undefined
  readonly path: string
  readonly status: string
  readonly outcome: string
  readonly attempts: number
  /** How each attempt was answered. Attempts that nobody waited for any more are left out. */
  readonly tries: readonly Try[] | undefined
  /** The credential of the last attempt, and the vendor's id of it. */
  readonly credential: string | undefined
  readonly upstreamRequestId: string | undefined
  /** Bytes of the bodies. */
  readonly requestBytes: number
  readonly responseBytes: number
  readonly waitMs: number
  /** The wait that was forecast when it began to wait; undefined if it did not. */
  readonly expectedMs: number | undefined
  readonly upstreamMs: number
  /** Time between attempts. */
  readonly backoffMs: number
  readonly gatewayMs: number
  readonly durationMs: number
  /** Why the gateway refused it. */
  readonly reason: string | undefined
  /** Limits with `enforce: false` that would have delayed or refused it. */
  readonly wouldDeny: readonly string[] | undefined
  /** What the cache did; undefined for a call that is not cached. */
  readonly cache: string | undefined
}

export interface Log {
  readonly logger: Logger
  /** Writes the line that every call gets. */
  access(line: AccessLine): void
  /** Calls `listener` for every line that is dropped because nobody reads the log. */
  onDropped(listener: () => void): void
  /** Writes what is buffered, as far as the reader takes it now. */
  flush(): void
  /** Writes the rest, and waits at most this long for a slow reader. */
  close(withinMs: number): Promise<void>
}

/** Makes the program's log: readable lines for a terminal, JSON for everything else. It never waits for its reader. */
export function createLog({ level, format, instance }: Config['log'], isTerminal = process.stdout.isTTY): Log {
  const output = new LineOutput((dropped) => {
    logger.warn({ dropped }, 'lines of the log were dropped, because nobody read standard output')
  })
  const isPretty = format === 'pretty' || (format === 'auto' && isTerminal)
  const base = { instance: instance ?? `${hostname()}:${process.pid}`, pid: process.pid }
  const logger = build(level, base, isPretty ? readableStream(output) : output)
  return {
    logger,
    access: isPretty ? readableAccess(logger) : jsonAccess(logger, output, base),
    onDropped: (listener) => void (output.onDropped = listener),
    flush: () => output.flush(),
    close: (withinMs) => output.close(withinMs),
  }
}

function readableStream(output: LineOutput): DestinationStream {
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
function levelOf({ outcome, status }: AccessLine): 'info' | 'warn' {
  const isQuiet = outcome === 'client_gone' || (outcome === 'delivered' && !status.startsWith('5'))
  return isQuiet ? 'info' : 'warn'
}

/** Such as `GET /ng/api/projects 200 harness/prod read 11ms`, and whatever was unusual. */
function readable(line: AccessLine): string {
  const { method, path, status, upstream, account, class: name, outcome, reason, attempts, waitMs } = line
  const words = method === undefined ? ['(no request)', status] : [method, path, status]
  if (upstream !== undefined) words.push(account === undefined ? upstream : `${upstream}/${account}`)
  if (name !== undefined) words.push(name)
  words.push(`${Math.round(line.durationMs)}ms`)
  if (waitMs >= 1) words.push(`(waited ${Math.round(waitMs)}ms)`)
  if (attempts > 1) words.push(`(${attempts} attempts)`)
  if (outcome !== 'delivered') words.push(reason === undefined ? outcome : `${outcome}: ${reason}`)
  return words.join(' ')
}

/**
 * Writes the same lines as pino at a third of the cost: a fixed shape for JSON.stringify, and many lines in one write.
 */
function jsonAccess(logger: Logger, output: LineOutput, base: object): Log['access'] {
  const starts = { info: startOf('info'), warn: startOf('warn') }
  const isEnabled = { info: logger.isLevelEnabled('info'), warn: logger.isLevelEnabled('warn') }
  const end = `,${JSON.stringify({ ...base, msg: 'call' }).slice(1)}\n`
  return (line) => {
    const level = levelOf(line)
    if (!isEnabled[level]) return
    output.hold(`${starts[level]}${Date.now()},${JSON.stringify(line).slice(1, -1)}${end}`)
  }
}

function startOf(level: 'info' | 'warn'): string {
  return `{"level":${pino.levels.values[level]},"time":`
}

function build(level: string, base: object, stream: DestinationStream): Logger {
  return pino({ level, base, serializers: { err: describeError } }, stream)
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
