/*
 * src/server/admin: the port for operators: health, metrics, and the admin API.
 * It imports what .oxlintrc.ts lists; what it shows and does is typed in status.ts and provided by process.
 * A change here must prove that nothing works without the token, and that each change is in the audit trail
 * (test/server/admin).
 */

import { pipeline, Readable } from 'node:stream'
import { createGzip } from 'node:zlib'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import Negotiator from 'negotiator'
import type { Config } from '../../schema/schema.ts'
import { FAILURES } from '../../gateway/failure.ts'
import { isLoopback } from '../../net/address.ts'
import { NO_SCHEMAS } from '../no-schemas.ts'
import { OPENMETRICS } from '../../observe/metrics.ts'
import { inTextFormat, TEXT_FORMAT } from '../../observe/text-format.ts'
import { auditRoutes } from './audit.ts'
import { findings } from './causes.ts'
import { clientRoutes } from './clients.ts'
import { inventoryRoutes } from './inventory.ts'
import { refuseQueries } from './list.ts'
import { adminTokens, metricsTokens, programOfThisMachine, refuseWebPages, wantLogIn } from './log-in.ts'
import type { AdminParts } from './management.ts'
import { pageRoutes } from './page.ts'
import { presetRoutes } from './presets.ts'
import { AdminProblem, answerBadPath, answerNoRequest, answerNotFound, answerProblems } from './problem.ts'
import { reloadRoute } from './reload.ts'
import { requestRoutes } from './requests.ts'
import { usageRoutes } from './usage.ts'
import { breakerRoutes } from './breakers.ts'

const LARGEST_BODY = 65_536
/** Room for a correlation id of 128 characters, each of which may be percent-encoded. */
const LONGEST_PARAMETER = 3 * 128

/** Makes the server for operators and Prometheus, on a port of its own. With tokens, everything below /v1 needs one. */
export function buildAdmin(admin: Config['admin'], parts: AdminParts): FastifyInstance {
  const { status, controls, management, requests, addressOf } = parts
  const { guard } = management
  const app = Fastify({
    logger: false,
    forceCloseConnections: true,
    bodyLimit: LARGEST_BODY,
    routerOptions: { maxParamLength: LONGEST_PARAMETER },
    schemaController: NO_SCHEMAS,
    frameworkErrors: answerBadPath,
    clientErrorHandler: answerNoRequest,
  })
  // Text would be a body like any other, and refused for what it is not.
  app.removeContentTypeParser('text/plain')
  answerNotFound(app)
  answerProblems(app, management.logger)
  app.get('/healthz', () => ({ status: 'ok' }))
  app.get('/readyz', async (_, reply) => {
    const reason = await status.notReady()
    if (reason !== undefined) return reply.code(503).send({ status: 'not ready', reason })
    // The status is 200 even when degraded. Otherwise all gateways would be taken out of service when Redis is away, which
    // would be the greater outage.
    const degraded = await status.degraded()
    return { status: 'ready', ...(degraded.length > 0 && { degraded: degraded.map(({ why }) => why).join('; ') }) }
  })
  app.register(async (open) => {
    const tokens = metricsTokens(admin)
    if (tokens !== undefined) wantLogIn(open, tokens, { guard, addressOf })
    else {
      // Where the port can be reached by others, a scraper calls it by whatever name it was told.
      const isForThisMachine = isLoopback(admin.host)
      open.addHook('onRequest', async (request) => {
        if (isForThisMachine) programOfThisMachine(request, 'admin.metricsToken')
        else refuseWebPages(request)
      })
    }
    open.get('/metrics', (request, reply) => sendMetrics(request, reply, status.metrics()))
  })
  app.register(async (page) => {
    pageRoutes(page, admin, parts)
  })
  // The hook belongs to the routes. A check of the URL's text could be passed by: the router decodes `/%761/quota` to `/v1/quota`.
  app.register(
    async (api) => {
      answerNotFound(api)
      wantLogIn(api, adminTokens(admin), { guard, addressOf })
      refuseQueries(api)
      api.get('/quota', async () => {
        const data = await status.quota()
        if (data === undefined)
          throw new AdminProblem(
            503,
            FAILURES.store_unavailable.code,
            (await status.notReady()) ?? 'the quota store does not answer',
          )
        return { data }
      })
      api.get('/causes', async () => {
        const { causes, away } = await findings(parts, (question) => requests.ask(question))
        return { data: causes, away }
      })
      api.get('/queue', async () => ({ data: await status.queue() }))
      usageRoutes(api, parts)
      requestRoutes(api, { requests, clock: management.clock })
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

/** A scrape mostly repeats the same words. A megabyte of it compresses to a few dozen kilobytes. */
function sendMetrics(request: FastifyRequest, reply: FastifyReply, metrics: AsyncIterable<string>): FastifyReply {
  const wanted = new Negotiator(request.raw)
  // Without a wish, as from a person with curl, it is OpenMetrics, which has the correlation ids.
  const type = wanted
    .mediaTypes()
    .find((one) => /^(?:application\/openmetrics-text|\*\/\*|text\/(?:plain|\*))$/.test(one))
  const isText = type?.startsWith('text/') === true
  reply.type(isText ? TEXT_FORMAT : OPENMETRICS).header('vary', 'accept, accept-encoding')
  const text = Readable.from(isText ? inTextFormat(metrics) : metrics)
  if (wanted.encodings(['gzip', 'identity'])[0] !== 'gzip') return reply.send(text)
  // Compression runs on another thread, so that calls go on meanwhile. The fastest level does.
  const zipped = createGzip({ level: 1 })
  pipeline(text, zipped, () => undefined)
  return reply.header('content-encoding', 'gzip').send(zipped)
}
