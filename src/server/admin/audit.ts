import type { FastifyInstance } from 'fastify'
import type { AuditFilter } from '../../audit/audit.ts'
import { momentOf, readListQuery, readTexts, TAKES_QUERY } from './list.ts'
import type { Management } from './management.ts'

const FILTERS = ['actor', 'action', 'target', 'since', 'until'] as const

/** Serves `GET /v1/audit`: every change, the newest first. */
export function auditRoutes(api: FastifyInstance, { audit, clock }: Management): void {
  api.get('/audit', TAKES_QUERY, async ({ query }) => {
    const { search, limit, offset } = readListQuery(query, FILTERS)
    const { since, until, ...texts } = readTexts(query as Record<string, unknown>, FILTERS)
    const filter: AuditFilter = {
      ...texts,
      ...(search !== undefined && { search }),
      ...(since !== undefined && { since: new Date(momentOf('since', since, clock)).toISOString() }),
      ...(until !== undefined && { until: new Date(momentOf('until', until, clock)).toISOString() }),
    }
    return { data: await audit.read(filter, { limit, offset }) }
  })
}
