import type { FastifyInstance } from 'fastify'
import type { Change } from '../../audit/audit.ts'
import type { Management } from './management.ts'
import { AdminProblem } from './problem.ts'
import type { Controls, Reloaded } from './status.ts'

/**
 * Serves `POST /reload`, which reads the configuration again, as SIGHUP does. If the new one has problems, the old one stays in
 * force, and the answer is 422 with every problem.
 */
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

/** A reload as the audit trail records it. */
export function reloadChange(after: Reloaded): Change {
  return { action: 'config.reload', target: 'config', name: 'config', before: null, after }
}
