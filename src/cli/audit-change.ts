import { hostname, userInfo } from 'node:os'
import pino from 'pino'
import type { Change } from '../audit/audit.ts'
import { systemClock } from '../time/clock.ts'
import type { StoreConfig } from '../schema/schema.ts'
import { openAudit } from '../process/management.ts'

/**
 * Records a change of the command line in the audit trail, beside those of the admin API. The actor is the user of this
 * machine, and the origin is the name of the machine. The change has been made by then: if it can't be recorded, this prints a
 * warning and does not throw.
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

/** The name of the user. In a container a user may have only a number. */
function userName(): string {
  try {
    return userInfo().username
  } catch {
    return `uid ${process.getuid?.() ?? 'unknown'}`
  }
}
