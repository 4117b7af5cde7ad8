import Type from 'typebox'
import { RouteCacheSchema } from './cache-schema.ts'
import { name, object, method, routePath, units } from './schema-parts.ts'

export const RouteSchema = object({
  method: Type.Optional(
    Type.Union([method, Type.Array(method, { minItems: 1 })], {
      description: 'The methods that this route takes; GET includes HEAD. Default: every method.',
      expected: 'an HTTP method in capitals, such as GET, or a list of them',
    }),
  ),
  path: routePath,
  class: Type.String({ description: 'The class in which calls of this route wait, are counted and shown.' }),
  charges: Type.Optional(
    Type.Array(Type.String(), {
      minItems: 1,
      description: 'The classes whose limits such a call is charged to. Default: its own class.',
    }),
  ),
  cost: Type.Optional(units('Units charged to limits with `cost: route`; 0 for none. Default: 1.', 0)),
  price: Type.Optional(
    Type.String({ description: 'The entry of price.list that its calls cost. Default: that of their model.' }),
  ),
  retry: Type.Optional(
    Type.Enum(['safe', 'unsafe'], {
      description: 'Whether a call may be retried after it reached the upstream. Default: by method (RFC 9110 §9.2.2).',
    }),
  ),
  breaker: Type.Optional(
    name({ description: 'Name of a breaker for the routes that name it, in place of the one for all calls.' }),
  ),
  credential: Type.Optional(
    Type.Enum(['inject', 'bearer', 'none'], {
      description:
        'How the account’s credential is added: in its header, as Authorization: Bearer, or not. Default: inject.',
    }),
  ),
  redact: Type.Optional(
    Type.Array(Type.String(), {
      description: 'Names of `{name}` segments that hold a secret, to be left out of logs.',
    }),
  ),
  cache: Type.Optional(RouteCacheSchema),
})
