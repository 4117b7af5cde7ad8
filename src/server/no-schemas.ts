import type { FastifyServerOptions } from 'fastify'

/**
 * Keeps Fastify from loading its schema compilers, which are many modules, at each start. It is for a server whose routes have no
 * schemas: a route with a schema throws when it is added.
 */
export const NO_SCHEMAS: NonNullable<FastifyServerOptions['schemaController']> = {
  compilersFactory: { buildValidator: refuse, buildSerializer: refuse },
}

function refuse(): never {
  throw new Error('no route may have a schema here: see src/server/no-schemas.ts')
}
