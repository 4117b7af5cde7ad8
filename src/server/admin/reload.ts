import type { FastifyInstance } from 'fastify'
import type { Change } from '../../audit/audit.ts'
import type { Management } from './management.ts'
import { AdminProblem } from './problem.ts'
import type { Controls, Reloaded } from './status.ts'

/** `POST /reload`: reads the configuration anew, as SIGHUP does. 422 with every problem if it stays as it was. */
export function reloadRoute(
  api: FastifyInstance,
  { reload }: Pick<Controls, 'reload'>,
  { audit }: Pick<Management, 'audit'>,
): void {
  api.post('/reload', async ({ actor }) => {
    const reloaded = await reload()
    await audit.record(actor, reloadChange(reloaded))
    if (reloaded.result === 'rejected') {
      const errors = reloaded.problems.map((message) => ({ path: [], message }))
      throw new AdminProblem(422, 'INVALID_CONFIG', 'the configuration before stays in force', errors)
    }
    return { data: reloaded }
  })
}

/** A reload as the audit trail has it. */
export function reloadChange(after: Reloaded): Change {
  return { action: 'config.reload', target: 'config', name: 'config', before: null, after }
}
