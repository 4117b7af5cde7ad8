import type { FastifyInstance } from 'fastify'
import Type from 'typebox'
import { object } from '../../schema/schema-parts.ts'
import type { Management } from './management.ts'
import { notFound } from './problem.ts'
import type { BreakerRow, Controls } from './status.ts'
import { readBody } from './validate.ts'

const OrderSchema = object({ state: Type.Enum(['open', 'closed']), group: Type.Optional(Type.String()) })

/** `GET /breakers` lists them; `POST /upstreams/{name}/breaker` with `{"state":"open"}` or `closed`, and perhaps `group`. */
export function breakerRoutes(
  api: FastifyInstance,
  { breakers, setBreaker }: Pick<Controls, 'breakers' | 'setBreaker'>,
  { audit }: Pick<Management, 'audit'>,
): void {
  api.get('/breakers', async () => ({ data: await breakers() }))
  api.post<{ Params: { name: string } }>('/upstreams/:name/breaker', async ({ params, body, actor }) => {
    const { state, group } = readBody(OrderSchema, body)
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
