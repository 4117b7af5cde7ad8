import type { StaticEncode } from 'typebox'
import { configOf, findConfig, type FoundConfig } from './config/find.ts'
import { ConfigError } from './config/problem.ts'
import { allWarnings } from './config/warnings.ts'
import { createLog, type Log } from './observe/log.ts'
import type { Reloaded } from './server/admin/status.ts'
import { runGateway, type Running } from './process/run.ts'
import { StartError } from './process/start-error.ts'
import type { ConfigSchema } from './schema/schema.ts'

export { ConfigError, StartError }
export type { Reloaded }

type Optional<T> = T extends readonly (infer Item)[]
  ? readonly Optional<Item>[]
  : T extends object
    ? { readonly [Key in keyof T]?: Optional<T[Key]> | undefined }
    : T
type WholeConfig = Optional<StaticEncode<typeof ConfigSchema>>

/**
 * What stands in a `sluice.yaml`, as an object: the same fields, units, defaults and references (`'${env:NAME}'`). docs/reference.md and
 * `npx sluice schema` describe each field.
 */
export type GatewayConfig = WholeConfig & { readonly upstreams: NonNullable<WholeConfig['upstreams']> }

/** Where a gateway listens: base URLs, with the ports that port 0 became. */
export interface Addresses {
  /** For clients. */
  readonly url: string
  /** For health, readiness, metrics and the admin API. */
  readonly adminUrl: string
}

/** A gateway in this process. */
export interface Gateway extends AsyncDisposable {
  /**
   * Checks the configuration and serves it. Resolves once both ports accept connections; called again, says the same. Rejects with a
   * `ConfigError` that lists everything wrong with the configuration, a `StartError` if the store can't be used, or the system's
   * error (such as `EADDRINUSE`) if a port can't be had. Nothing stays behind then, and `listen` may be called again.
   */
  listen(): Promise<Addresses>
  /**
   * Puts `config` in force for calls that come from now on, or reads anew what the one in force refers to. Never drops a
   * connection. If anything is wrong, nothing changes, and the result has every problem. Rejects only before `listen`.
   */
  reload(config?: GatewayConfig | string): Promise<Reloaded>
  /**
   * After `server.shutdownDelay` takes no new connections, finishes what was accepted for at most `server.drain`, and gives back
   * ports, files and connections. Safe to call twice, and before `listen`. A gateway that was closed does not listen again.
   */
  close(): Promise<void>
}

const NEEDED_NODE = 26

/**
 * Makes a gateway to run inside another program, of a configuration or the name of a file with one. Throws in a Node that is too old.
 * Opens nothing before `listen`. It handles no signals, watches no file, and logs to standard output unless `log: { level: 'silent' }` is set.
 */
export function createGateway(config: GatewayConfig | string): Gateway {
  const { node } = process.versions
  // Node 24 can read this program, and would fail at the first method that it lacks.
  if (Number.parseInt(node) < NEEDED_NODE) {
    throw new Error(`sluice needs Node ${NEEDED_NODE} or later, and this is ${node}: see https://nodejs.org/download`)
  }
  let isClosed = false
  let listening: Promise<Listening> | undefined
  const listen = async (): Promise<Listening> => {
    if (isClosed) throw new Error('this gateway was closed: create another one')
    listening ??= start(config)
    try {
      return await listening
    } catch (error) {
      listening = undefined
      throw error
    }
  }
  const close = async (): Promise<void> => {
    isClosed = true
    const { running, log } = (await listening?.catch(() => undefined)) ?? {}
    await running?.stop()
    await log?.close(LAST_WORDS_MS)
  }
  return {
    async listen() {
      const { running } = await listen()
      return { url: running.url, adminUrl: running.adminUrl }
    },
    async reload(next) {
      if (listening === undefined) throw new Error('this gateway does not listen: there is nothing to reload')
      const { running } = await listening
      return running.reload(undefined, next === undefined ? undefined : () => find(next))
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}

/** How long a reader of the log that is slow may take for the rest. */
const LAST_WORDS_MS = 1_000

interface Listening {
  readonly running: Running
  readonly log: Log
}

async function start(wanted: GatewayConfig | string): Promise<Listening> {
  const found = await find(wanted)
  const log = createLog(found.config.log)
  const running = await runGateway(found.config, { log, load: () => find(wanted) })
  log.logger.info({ url: running.url, admin: running.adminUrl, config: found.source }, 'listening')
  for (const warning of allWarnings(found)) log.logger.warn(warning)
  return { running, log }
}

/** Reads it as a file would be read, so that references and defaults mean the same. */
async function find(wanted: GatewayConfig | string): Promise<FoundConfig> {
  const found = typeof wanted === 'string' ? await findConfig(wanted) : await fromObject(wanted)
  if (found!.config.server.workers > 1) {
    const message = 'must be 1 in an embedded gateway: only the program, `npx sluice start`, runs several processes'
    throw new ConfigError(found!.source, [{ path: ['server', 'workers'], message }])
  }
  return found!
}

const SOURCE = 'config'

async function fromObject(wanted: GatewayConfig): Promise<FoundConfig> {
  try {
    return { config: await configOf(SOURCE, JSON.stringify(wanted ?? {})), source: SOURCE }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    // Line and column would be those of a text that nobody wrote.
    const problems = error.problems.map(({ path, message }) => ({ path, message }))
    throw new ConfigError(SOURCE, problems)
  }
}
