import type { FastifyInstance } from 'fastify'
import type { BreakerState } from '../resilience/breaker.ts'
import type { Controls } from './admin.ts'

/** One breaker, as `GET /v1/breakers` lists it. */
export interface BreakerRow {
  readonly upstream: string
  /** Undefined for the one of all calls that are in no group. */
  readonly group: string | undefined
  readonly state: BreakerState
  /** It stays open until somebody closes it. */
  readonly byHand: boolean
  /** Undefined where calls are not refused. */
  readonly retryAfterMs: number | undefined
}

/** To open a breaker until it is closed, or to close it. */
export interface BreakerOrder {
  readonly upstream: string
  readonly group: string | undefined
  readonly state: 'open' | 'closed'
}

/** `GET /breakers` lists them; `POST /upstreams/{name}/breaker` with `{"state":"open"}` or `closed`, and perhaps `group`. */
export function breakerRoutes(
  api: FastifyInstance,
  { breakers, setBreaker }: Pick<Controls, 'breakers' | 'setBreaker'>,
): void {
  api.get('/breakers', async () => ({ data: await breakers() }))
  api.post<{ Params: { name: string } }>('/upstreams/:name/breaker', async ({ params, body }, reply) => {
    const { state, group } = (body ?? {}) as { state?: unknown; group?: unknown }
    if ((state !== 'open' && state !== 'closed') || (group !== undefined && typeof group !== 'string')) {
      const message =
        'the body must be {"state":"open"} or {"state":"closed"}, with "group" for the breaker of one group'
      return reply.code(400).send({ code: 'INVALID_REQUEST', message })
    }
    if (!(await setBreaker({ upstream: params.name, group, state }))) return reply.code(404).send({ code: 'NOT_FOUND' })
    const data = (await breakers()).find((row) => row.upstream === params.name && row.group === group)
    return { data }
  })
}
