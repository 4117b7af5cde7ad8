import { hostname, userInfo } from 'node:os'
import pino from 'pino'
import type { Change } from '../audit/audit.ts'
import { systemClock } from '../time/clock.ts'
import type { StoreConfig } from '../schema/schema.ts'
import { openAudit } from '../process/management.ts'

/**
 * Notes a change that was made at the command line, beside those of the admin API: who is the user of this machine, from where
 * is its name. The change is done by then, so where it can't be noted that is only said.
 */
export async function auditChange(store: StoreConfig | undefined, change: Change): Promise<void> {
  if (store === undefined) return warn('the configuration does not say here where it is')
  const audit = openAudit(store, { clock: systemClock, logger: pino({ level: 'silent' }) })
  try {
    await audit.record({ actor: `cli:${userName()}`, address: hostname() }, change)
  } catch (error) {
    warn((error as Error).message)
  } finally {
    await audit.close()
  }
}

function warn(why: string): void {
  process.stderr.write(`warning: the change is made, but the audit trail can't be written: ${why}\n`)
}

/** In a container the user may have no name. */
function userName(): string {
  try {
    return userInfo().username
  } catch {
    return `uid ${process.getuid?.() ?? 'unknown'}`
  }
}
