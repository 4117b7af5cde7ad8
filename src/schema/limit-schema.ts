import Type, { type TSchema } from 'typebox'
import { duration, headerName, name, object, percent, POINTER_PATTERN, units } from './schema-parts.ts'

const VALUE_NAME = '^[a-z_][a-zA-Z0-9_]*$'
const pointer = Type.String({ pattern: POINTER_PATTERN, expected: 'a JSON pointer such as /usage/total_tokens' })

const formula = Type.Optional(
  Type.String({
    minLength: 1,
    description: 'How the values make units: + - * / and parentheses. Default: their sum. Rounded up.',
  }),
)

const places = Type.Union([pointer, Type.Array(pointer, { minItems: 1 })], {
  description: 'A JSON pointer into the body, or several of which the first that is there counts.',
  expected: 'a JSON pointer such as /usage/total_tokens, or a list of them',
})

const otherwise = Type.Optional(
  Type.Number({ minimum: 0, description: 'The value where it is missing. Default: then the price is not known.' }),
)

const values = <T extends TSchema>(value: T, description: string) =>
  Type.Record(Type.String(), value, { description, minProperties: 1, propertyNames: { pattern: VALUE_NAME } })

const PriceSchema = object(
  {
    values: values(
      object({
        header: Type.Optional(headerName('A response header, or a trailer.')),
        body: Type.Optional(places),
        default: otherwise,
      }),
      'What the answer says, by name. Of a stream of events, or of lines of JSON, the last one that has it counts.',
    ),
    formula,
  },
  { description: 'What a call costs, by its answer.' },
)

const ReserveSchema = Type.Union(
  [
    units('That much for every call: the most that one can cost.'),
    object({
      values: Type.Optional(
        values(object({ body: places, default: otherwise }), 'What the JSON of the request’s body says, by name.'),
      ),
      formula: Type.Optional(
        Type.String({
          minLength: 1,
          description: 'How the values, and `bytes` of the request’s body, make units. Default: the sum of the values.',
        }),
      ),
      most: units('The most that is reserved, and what is reserved where the request does not tell.'),
    }),
    object({
      missRate: percent('At most this share of the calls may cost more than was reserved: from 0.2% to 50%.'),
      most: units('The most that is reserved, and what is reserved until enough was learned.'),
    }),
  ],
  {
    description:
      'What is charged from the dispatch until the price is known. It is learned by route and client where it has a missRate.',
    expected: 'a whole number, `{ values, formula, most }` of the request, or `{ missRate, most }` to learn it',
  },
)

const CostSchema = Type.Union(
  [
    object({ response: PriceSchema, reserve: ReserveSchema }),
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
      'a whole number, `route`, `{ bytes: 1000 }`, `{ response, reserve }`, or units by method such as `{ GET: 1, default: 5 }`',
  },
)

const scope = Type.String({ pattern: '^(account|credential|upstream|route|client|\\{[^{}/]+\\})$' })

const ScopeSchema = Type.Union([scope, Type.Array(scope, { minItems: 1 })], {
  description:
    'What has a count of its own: each account (default), each credential, or the upstream as a whole; within that, each route, client, or text of a {name} in the route’s path; several as a list.',
  expected: 'account, credential, upstream, route, client, a "{name}" of the routes’ paths, or a list of these',
})

export const LimitSchema = object({
  requests: Type.Optional(units('How many calls, or units, the upstream allows in a window of that length.')),
  window: Type.Optional(duration('Length of the window.', { min: '100ms' })),
  kind: Type.Optional(
    Type.Enum(['rolling', 'calendar'], {
      description:
        'rolling (default): in any window; calendar: in each that begins at a multiple of its length, in UTC.',
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
      'With pace: so many units may go at once. Default: a hundredth of the limit, or what it has in 100 ms if that is more.',
    ),
  ),
  concurrent: Type.Optional(units('Instead of requests and window: how many calls may be in flight at once.')),
  cost: Type.Optional(CostSchema),
  scope: Type.Optional(ScopeSchema),
  when: Type.Optional(
    object(
      {
        bodyOver: Type.Integer({
          minimum: 0,
          description:
            'Only calls with a request body of more bytes than this are charged. A request that does not declare its length is refused.',
        }),
      },
      { description: 'Which calls of the class are charged. Default: all of them.' },
    ),
  ),
  counts: Type.Optional(
    object(
      {
        except: Type.Array(
          Type.Union([Type.Integer({ minimum: 200, maximum: 599 }), Type.Enum(['2xx', '3xx', '4xx', '5xx'])], {
            expected: 'a status from 200 to 599, or 2xx, 3xx, 4xx or 5xx',
          }),
          { minItems: 1, description: 'Statuses of answers that the upstream does not count.' },
        ),
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
