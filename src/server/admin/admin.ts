import { pipeline, Readable } from 'node:stream'
import { createGzip } from 'node:zlib'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import Negotiator from 'negotiator'
import type { Config } from '../../schema/schema.ts'
import { CODE_OF } from '../../gateway/failure.ts'
import { OPENMETRICS } from '../../observe/metrics.ts'
import type { Reloaded } from '../../process/reload.ts'
import { auditRoutes } from './audit.ts'
import { clientRoutes } from './clients.ts'
import { inventoryRoutes } from './inventory.ts'
import { adminTokens, metricsTokens, wantLogIn } from './log-in.ts'
import type { Management } from './management.ts'
import { presetRoutes } from './presets.ts'
import { AdminProblem, answerNotFound, answerProblems } from './problem.ts'
import { reloadRoute } from './reload.ts'
import { type QueueRow, queueRoute } from './queue.ts'
import type { AddressOf } from '../client-address.ts'
import { type BreakerOrder, type BreakerRow, breakerRoutes } from './breakers.ts'

/** One limit of one account, as `GET /v1/quota` lists it. */
export interface QuotaRow {
  readonly upstream: string
  readonly account: string
  readonly class: string
  readonly window: string
  readonly limit: number
  /** Less than that while the upstream lets less through, or others use it. */
  readonly effective: number
  readonly used: number
  readonly remaining: number
  readonly resetMs: number
  readonly waiting: number
}

/** What the admin port shows: of one process, or of all workers together. */
export interface Vitals {
  /** In the OpenMetrics format, in pieces. */
  metrics(): AsyncIterable<string>
  /** Undefined while calls can be served, else why not. */
  notReady(): Promise<string | undefined>
  /** Undefined while all is as it should be, else what calls have to do without. */
  degraded(): Promise<string | undefined>
  /** Undefined while the quota store can't be asked. */
  quota(): Promise<QuotaRow[] | undefined>
  queue(): Promise<QueueRow[]>
}

/** What operators can have done. */
export interface Controls {
  reload(): Promise<Reloaded>
  breakers(): Promise<BreakerRow[]>
  /** Whether there is such a breaker. */
  setBreaker(order: BreakerOrder): Promise<boolean>
}

export interface AdminParts {
  readonly vitals: Vitals
  readonly controls: Controls
  readonly management: Management
  readonly addressOf: AddressOf
}

const LARGEST_BODY = 65_536

/** The server for operators and Prometheus, on a port of its own. Everything below /v1 wants the token, if there is one. */
export function buildAdmin(admin: Config['admin'], parts: AdminParts): FastifyInstance {
  const { vitals, controls, management, addressOf } = parts
  const { guard } = management
  const app = Fastify({ logger: false, forceCloseConnections: true, bodyLimit: LARGEST_BODY })
  // Text would be a body like any other, and refused for what it is not.
  app.removeContentTypeParser('text/plain')
  answerNotFound(app)
  app.get('/healthz', () => ({ status: 'ok' }))
  app.get('/readyz', async (_, reply) => {
    const reason = await vitals.notReady()
    if (reason !== undefined) return reply.code(503).send({ status: 'not ready', reason })
    // Still 200: taking all gateways out of service because Redis is away would be the greater outage.
    const degraded = await vitals.degraded()
    return { status: 'ready', ...(degraded === undefined ? {} : { degraded }) }
  })
  app.register(async (open) => {
    const tokens = metricsTokens(admin)
    if (tokens !== undefined) {
      answerProblems(open, management.logger)
      wantLogIn(open, tokens, { guard, addressOf })
    }
    open.get('/metrics', (request, reply) => sendMetrics(request, reply, vitals.metrics()))
  })
  // The token belongs to the routes, not to a look at the URL: the router decodes `/%761/quota` to the same route.
  app.register(
    async (api) => {
      answerProblems(api, management.logger)
      answerNotFound(api)
      wantLogIn(api, adminTokens(admin), { guard, addressOf })
      api.get('/quota', async () => {
        const data = await vitals.quota()
        if (data === undefined)
          throw new AdminProblem(503, CODE_OF.store_unavailable, 'the quota store does not answer')
        return { data }
      })
      queueRoute(api, vitals)
      reloadRoute(api, controls, management)
      clientRoutes(api, management)
      inventoryRoutes(api, management)
      presetRoutes(api, management)
      auditRoutes(api, management)
      breakerRoutes(api, controls, management)
    },
    { prefix: '/v1' },
  )
  return app
}

/** A scrape is mostly the same words again and again: compressed, a megabyte is a few dozen kilobytes. */
function sendMetrics(request: FastifyRequest, reply: FastifyReply, metrics: AsyncIterable<string>): FastifyReply {
  reply.type(OPENMETRICS).header('vary', 'accept-encoding')
  const text = Readable.from(metrics)
  const encodings = new Negotiator(request.raw).encodings(['gzip', 'identity'])
  if (encodings[0] !== 'gzip') return reply.send(text)
  // The fastest level, and on a thread of its own: calls go on meanwhile.
  const zipped = createGzip({ level: 1 })
  pipeline(text, zipped, () => undefined)
  return reply.header('content-encoding', 'gzip').send(zipped)
}
