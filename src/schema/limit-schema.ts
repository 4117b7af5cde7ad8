import Type from 'typebox'
import { amount, currency, finish, reserveSchema, ResponseSchema, statuses } from './price-schema.ts'
import {
  calendarProperties,
  limitWindow,
  name,
  object,
  percent,
  POINTER_PATTERN,
  units,
  whole,
} from './schema-parts.ts'

const CostSchema = Type.Union(
  [
    object({
      response: Type.Optional(ResponseSchema),
      reserve: reserveSchema(units, 'a whole number'),
      finish,
    }),
    units('That much for every call.'),
    Type.Literal('route', { description: 'The `cost` of the call’s route.' }),
    object({
      bytes: units(
        'One unit for every so many bytes of the request body, begun ones included. A request that does not declare its length is refused.',
      ),
    }),
    Type.Record(Type.String({ pattern: '^([A-Z][A-Z-]*|default)$' }), units('Units; 0 leaves such calls out.', 0), {
      description: 'By method; `default` (1 unless given) is for all others.',
      additionalProperties: false,
    }),
  ],
  {
    description: 'Units that a call is charged. Default: 1.',
    expected:
      'a whole number, `route`, `{ bytes: 1000 }`, `{ response, reserve }`, `{ reserve }`, or units by method such as `{ GET: 1, default: 5 }`',
  },
)

const scope = Type.String({
  pattern: `^(account|credential|upstream|route|client|\\{[^{}/]+\\}|${POINTER_PATTERN.slice(1, -1)})$`,
})

const ScopeSchema = Type.Union([scope, Type.Array(scope, { minItems: 1 })], {
  description:
    'What has a count of its own: each account (default), each credential, or the upstream as a whole; within that, each route, client, text of a {name} in the route’s path, or text at a JSON pointer of the request’s body, such as /model; several as a list.',
  expected:
    'account, credential, upstream, route, client, a "{name}" of the routes’ paths, a JSON pointer such as /model, or a list of these',
})

export const LimitSchema = object({
  requests: Type.Optional(units('How many calls, or units, the upstream allows in a window of that length.')),
  amount: Type.Optional(amount('Instead of requests: how much money, by the `price` of the upstream.')),
  unit: Type.Optional(currency('The currency of the amount.')),
  window: Type.Optional(limitWindow('Length of the window.', '100ms')),
  ...calendarProperties,
  kind: Type.Optional(
    Type.Enum(['rolling', 'calendar'], {
      description:
        'rolling (default of a duration): in any window; calendar: in each that begins at a multiple of its length, in UTC.',
    }),
  ),
  pace: Type.Optional(
    Type.Enum(['even'], {
      description:
        'even: calls are spread over the window instead of all being let through at its start. Default: they are not.',
    }),
  ),
  burst: Type.Optional(
    units(
      'With pace: so many units may go at once, or what the limit has in 1 ms if that is more. Default: a hundredth of the limit, or what it has in 100 ms.',
    ),
  ),
  concurrent: Type.Optional(units('Instead of requests and window: how many calls may be in flight at once.')),
  cost: Type.Optional(CostSchema),
  scope: Type.Optional(ScopeSchema),
  when: Type.Optional(
    object(
      {
        bodyOver: whole(
          'Only calls with a request body of more bytes than this are charged. A request that does not declare its length is refused.',
          { minimum: 0 },
        ),
      },
      { description: 'Which calls of the class are charged. Default: all of them.' },
    ),
  ),
  counts: Type.Optional(
    object(
      {
        except: statuses({ minItems: 1, description: 'Statuses of answers that the upstream does not count.' }),
      },
      { description: 'Which answers count. The units of the others come back when their head is here. Default: all.' },
    ),
  ),
  name: Type.Optional(name({ description: 'Tells it from another limit of the same class, window and scope.' })),
  headroom: Type.Optional(percent('Part of the limit that is left to others. Default: the upstream’s.')),
  enforce: Type.Optional(
    Type.Boolean({ description: 'false: counted and reported, but nothing waits or is refused. Default: true.' }),
  ),
})
