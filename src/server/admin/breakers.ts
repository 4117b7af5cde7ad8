import type { FastifyInstance } from 'fastify'
import type { Management } from './management.ts'
import { invalid, notFound } from './problem.ts'
import type { BreakerRow, Controls } from './status.ts'

/** `GET /breakers` lists them; `POST /upstreams/{name}/breaker` with `{"state":"open"}` or `closed`, and perhaps `group`. */
export function breakerRoutes(
  api: FastifyInstance,
  { breakers, setBreaker }: Pick<Controls, 'breakers' | 'setBreaker'>,
  { audit }: Pick<Management, 'audit'>,
): void {
  api.get('/breakers', async () => ({ data: await breakers() }))
  api.post<{ Params: { name: string } }>('/upstreams/:name/breaker', async ({ params, body, actor }) => {
    const { state, group } = (body ?? {}) as { state?: unknown; group?: unknown }
    if ((state !== 'open' && state !== 'closed') || (group !== undefined && typeof group !== 'string')) {
      throw invalid(
        'the body must be {"state":"open"} or {"state":"closed"}, with "group" for the breaker of one group',
      )
    }
    const find = async (): Promise<BreakerRow | undefined> =>
      (await breakers()).find((row) => row.upstream === params.name && row.group === group)
    const before = (await find()) ?? null
    const name = group === undefined ? params.name : `${params.name} ${group}`
    if (!(await setBreaker({ upstream: params.name, group, state }))) throw notFound('breaker', name)
    const data = (await find()) ?? null
    await audit.record(actor, { action: 'breaker.set', target: 'breaker', name, before, after: data })
    return { data }
  })
}
