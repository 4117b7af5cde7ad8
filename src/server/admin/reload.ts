import type { FastifyInstance } from 'fastify'
import type { Controls } from '../admin.ts'
import type { Management } from './management.ts'

/** `POST /reload`: reads the configuration anew, as SIGHUP does. 422 with every problem if it stays as it was. */
export function reloadRoute(
  api: FastifyInstance,
  { reload }: Pick<Controls, 'reload'>,
  { audit }: Pick<Management, 'audit'>,
): void {
  api.post('/reload', async (request, reply) => {
    const reloaded = await reload()
    await audit.record(request.actor, {
      action: 'config.reload',
      target: 'config',
      name: 'config',
      before: null,
      after: reloaded,
    })
    if (reloaded.result === 'rejected') {
      return reply.code(422).send({ code: 'INVALID_CONFIG', problems: reloaded.problems })
    }
    return { data: reloaded }
  })
}
