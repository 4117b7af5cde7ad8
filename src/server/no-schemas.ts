import type { FastifyServerOptions } from 'fastify'

/**
 * For a server none of whose routes has a schema. Otherwise Fastify would load the compilers of schemas (more than 100 modules) at
 * each start. A route with a schema throws when it is added.
 */
export const NO_SCHEMAS: NonNullable<FastifyServerOptions['schemaController']> = {
  compilersFactory: { buildValidator: refuse, buildSerializer: refuse },
}

function refuse(): never {
  throw new Error('no route may have a schema here: see src/server/no-schemas.ts')
}
