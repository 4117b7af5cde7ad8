import type { FastifyInstance } from 'fastify'
import type { AuditFilter } from '../../audit/audit.ts'
import { readListQuery, textOf, timeOf } from './list.ts'
import type { Management } from './management.ts'

const FILTERS = ['actor', 'action', 'target', 'since', 'until'] as const

/** Serves `GET /v1/audit`: every change, the newest first. */
export function auditRoutes(api: FastifyInstance, { audit }: Management): void {
  api.get('/audit', async ({ query }) => {
    const { search, limit, offset } = readListQuery(query, FILTERS)
    return { data: await audit.read(readFilter(query as Record<string, unknown>, search), { limit, offset }) }
  })
}

function readFilter(query: Record<string, unknown>, search: string | undefined): AuditFilter {
  const filter: Record<string, string> = search === undefined ? {} : { search }
  for (const name of FILTERS) {
    const text = textOf(query, name)
    if (text !== undefined) filter[name] = name === 'since' || name === 'until' ? timeOf(name, text) : text
  }
  return filter
}
