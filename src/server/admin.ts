import { hash, timingSafeEqual } from 'node:crypto'
import Fastify, { type FastifyInstance, type onRequestAsyncHookHandler } from 'fastify'
import type { Secret } from '../credentials/secret.ts'
import { CODE_OF } from '../gateway/failure.ts'
import { OPENMETRICS } from '../observe/metrics.ts'
import type { Reloaded } from '../reload.ts'
import { type BreakerOrder, type BreakerRow, breakerRoutes } from './admin-breakers.ts'
import { reloadRoute } from './admin-reload.ts'

/** One limit of one account, as `GET /v1/quota` lists it. */
export interface QuotaRow {
  readonly upstream: string
  readonly account: string
  readonly class: string
  readonly window: string
  readonly limit: number
  readonly used: number
  readonly remaining: number
  readonly resetMs: number
  readonly waiting: number
}

/** What the admin port shows: of one process, or of all workers together. */
export interface Vitals {
  /** In the OpenMetrics format. */
  metrics(): Promise<string>
  /** Undefined while calls can be served, else why not. */
  notReady(): Promise<string | undefined>
  /** Undefined while all is as it should be, else what calls have to do without. */
  degraded(): Promise<string | undefined>
  /** Undefined while the quota store can't be asked. */
  quota(): Promise<QuotaRow[] | undefined>
}

/** What operators can have done. */
export interface Controls {
  reload(): Promise<Reloaded>
  breakers(): Promise<BreakerRow[]>
  /** Whether there is such a breaker. */
  setBreaker(order: BreakerOrder): Promise<boolean>
}

/** The server for operators and Prometheus, on a port of its own. Everything below /v1 wants the token, if there is one. */
export function buildAdmin(vitals: Vitals, controls: Controls, token: Secret | undefined): FastifyInstance {
  const app = Fastify({ logger: false, forceCloseConnections: true })
  app.get('/healthz', () => ({ status: 'ok' }))
  app.get('/readyz', async (_, reply) => {
    const reason = await vitals.notReady()
    if (reason !== undefined) return reply.code(503).send({ status: 'not ready', reason })
    // Still 200: taking all gateways out of service because Redis is away would be the greater outage.
    const degraded = await vitals.degraded()
    return { status: 'ready', ...(degraded === undefined ? {} : { degraded }) }
  })
  app.get('/metrics', async (_, reply) => reply.type(OPENMETRICS).send(await vitals.metrics()))
  // The token belongs to the routes, not to a look at the URL: the router decodes `/%761/quota` to the same route.
  app.register(
    async (api) => {
      if (token !== undefined) api.addHook('onRequest', wants(token))
      api.get('/quota', async (_, reply) => {
        const data = await vitals.quota()
        return data === undefined ? reply.code(503).send({ code: CODE_OF.store_unavailable }) : { data }
      })
      reloadRoute(api, controls)
      breakerRoutes(api, controls)
      api.setNotFoundHandler((_, reply) => reply.code(404).send({ code: 'NOT_FOUND' }))
    },
    { prefix: '/v1' },
  )
  return app
}

function wants(token: Secret): onRequestAsyncHookHandler {
  return async (request, reply) => {
    if (isBearerOf(request.headers.authorization, token)) return
    await reply.code(401).header('WWW-Authenticate', 'Bearer realm="sluice-admin"').send({ code: 'INVALID_TOKEN' })
  }
}

function isBearerOf(authorization: string | undefined, token: Secret): boolean {
  const given = authorization?.replace(/^bearer +/i, '') ?? ''
  // Hashes have one length, which is what a comparison in constant time needs.
  return timingSafeEqual(hash('sha256', given, 'buffer'), hash('sha256', token.reveal(), 'buffer'))
}
