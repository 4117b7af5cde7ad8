import type { FastifyInstance } from 'fastify'
import type { Controls } from './admin.ts'

/** `POST /reload`: reads the configuration anew, as SIGHUP does. 422 with every problem if it stays as it was. */
export function reloadRoute(api: FastifyInstance, { reload }: Pick<Controls, 'reload'>): void {
  api.post('/reload', async (_, reply) => {
    const reloaded = await reload()
    if (reloaded.result === 'rejected') {
      return reply.code(422).send({ code: 'INVALID_CONFIG', problems: reloaded.problems })
    }
    return { data: reloaded }
  })
}
