import type { ManagedClients } from '../clients/managed.ts'
import { clashesOf } from '../config/both-clients.ts'
import type { Actor, AuditTrail } from '../audit/audit.ts'
import { findContradictions } from '../config/contradictions.ts'
import { differences, takeValues, withKept } from '../schema/difference.ts'
import type { FoundConfig } from '../config/find.ts'
import { ConfigError } from '../config/problem.ts'
import type { Config, ListenerTls } from '../schema/schema.ts'
import { allWarnings } from '../config/warnings.ts'
import type { Logger } from '../observe/log.ts'
import type { ReloadCounts } from '../observe/reload-counts.ts'
import { reloadChange } from '../server/admin/reload.ts'
import type { Reloaded } from '../server/admin/status.ts'

export interface ReloadParts {
  /** Reads the configuration anew; throws a `ConfigError` if it is wrong. */
  load(): FoundConfig | Promise<FoundConfig>
  /** Puts a configuration in force as a whole, or leaves everything as it is. */
  apply(found: FoundConfig): Promise<Reloaded>
  /** The clients of the admin API. */
  readonly clients: Pick<ManagedClients, 'active'>
  readonly counts: ReloadCounts
  readonly logger: Logger
}

/** Reloads one at a time, and says in the log and in metrics what became of each. */
export class Reloader {
  readonly #parts: ReloadParts
  /** How a reload reads the configuration, unless it is told another way. */
  #load: ReloadParts['load']
  #last: Promise<unknown> = Promise.resolve()
  /** The result of the latest reload. */
  latest: Reloaded | undefined

  constructor(parts: ReloadParts) {
    this.#parts = parts
    this.#load = parts.load
  }

  /**
   * Reloads when all earlier reloads have ended. Never rejects: a failure is the result `rejected`. If `load` is given and the result
   * is not `rejected`, later reloads use it, too. It is kept here, because only here the order of waiting reloads is known.
   */
  reload(load?: ReloadParts['load']): Promise<Reloaded> {
    const reloaded = this.#last.then(() => this.#reload(load ?? this.#load))
    this.#last = reloaded.catch(() => undefined)
    return reloaded
  }

  async #reload(load: ReloadParts['load']): Promise<Reloaded> {
    const { apply, clients, counts, logger } = this.#parts
    let warnings: readonly string[] = []
    const reloaded = await applied(async () => {
      const found = await load()
      warnings = [...(found.warnings ?? allWarnings(found)), ...clashesOf(found.config, clients.active)]
      const result = await apply(found)
      return result.result === 'applied' && warnings.length > 0 ? { ...result, warnings } : result
    })
    this.latest = reloaded
    if (reloaded.result !== 'rejected') this.#load = load
    counts.count(reloaded.result)
    switch (reloaded.result) {
      case 'applied':
        logger.info({ changed: reloaded.changed }, 'the configuration was reloaded')
        for (const warning of warnings) logger.warn(warning)
        break
      case 'unchanged':
        if (reloaded.needRestart.length === 0) logger.info('the configuration is what it was')
        break
      case 'rejected':
        logger.error(
          { problems: reloaded.problems },
          'the configuration was not reloaded: the one before stays in force',
        )
    }
    if (reloaded.result !== 'rejected' && reloaded.needRestart.length > 0) {
      logger.warn({ needRestart: reloaded.needRestart }, 'some settings only change with a restart')
    }
    return reloaded
  }
}

/** A gateway that has been told to stop takes no other configuration. */
export const STOPS: Reloaded = { result: 'rejected', problems: ['the gateway stops'] }

/** The actor in the audit trail when the program reloads by itself. */
export const SELF: Actor = { actor: 'gateway', address: 'local' }

/** Reloads, and records the result in the audit trail, unless nothing changed. */
export async function reloadFor(
  by: Actor,
  reloader: Pick<Reloader, 'reload'>,
  { audit, logger }: { audit: Pick<AuditTrail, 'record'>; logger: Logger },
  load?: ReloadParts['load'],
): Promise<Reloaded> {
  const reloaded = await reloader.reload(load)
  if (reloaded.result === 'unchanged') return reloaded
  await audit.record(by, reloadChange(reloaded)).catch((error: Error) => {
    logger.error({ err: error }, 'a reload could not be noted in the audit trail')
  })
  return reloaded
}

/** The result of `apply`, or `rejected` if it throws. Neither an error of the system nor a bug is a reason to end calls. */
export async function applied(apply: () => Promise<Reloaded>): Promise<Reloaded> {
  try {
    return await apply()
  } catch (error) {
    return { result: 'rejected', problems: problemsOf(error as Error) }
  }
}

/** What to do when the system has run out of something, by the code of its error. */
const ADVICE: Readonly<Record<string, string>> = {
  EMFILE: '; let the gateway open more files (ulimit -n), since each connection is one, too',
  ENFILE: '; other programs of the machine have too many files open',
}

function problemsOf(error: Error & { code?: string }): readonly string[] {
  if (error instanceof ConfigError) return error.message.split('\n')
  // Error codes of the system look like EACCES. Those of Node begin with ERR_.
  const isOfSystem = /^E(?!RR_)[A-Z0-9]+$/.test(error.code ?? '')
  if (!isOfSystem) return [`a mistake of the program: ${error.message}`]
  return [`the system refused it: ${error.message}${ADVICE[error.code ?? ''] ?? ''}`]
}

/**
 * The configuration as it can be put in force while the gateway runs: listeners, workers, stores and log stay as they are.
 * Throws a `ConfigError` if it contradicts these.
 */
export function reloadable(
  { config: found, source }: FoundConfig,
  inForce: Config,
): { config: Config; changed: string[]; needRestart: string[] } {
  const { admin, store, cache, log, metrics, requests, forwardProxy } = inForce
  // Tokens take the new values of their references: that needs no restart.
  takeValues(admin, found.admin)
  const { forwardProxy: _, ...wanted } = found
  const config = withKept(inForce, {
    ...wanted,
    admin,
    store,
    cache,
    log,
    metrics,
    requests,
    ...(forwardProxy === undefined ? {} : { forwardProxy }),
    server: {
      ...inForce.server,
      shutdownDelay: wanted.server.shutdownDelay,
      drain: wanted.server.drain,
      ...renewed(inForce.server.tls, wanted.server.tls),
    },
  })
  const needRestart = differences(found, config)
  const problems = needRestart.length === 0 ? [] : findContradictions(config)
  if (problems.length > 0) throw new ConfigError(source, problems)
  return { config, changed: differences(inForce, config), needRestart }
}

/** The server's certificate and key can be renewed at any time. All other TLS settings need a restart. */
function renewed(tls: ListenerTls | undefined, wanted: ListenerTls | undefined): { tls?: ListenerTls } {
  return tls === undefined || wanted === undefined ? {} : { tls: { ...tls, cert: wanted.cert, key: wanted.key } }
}
