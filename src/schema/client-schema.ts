import Type, { type StaticDecode } from 'typebox'
import { budget } from './budget-schema.ts'
import { method, moment, name, networkAccess, object, percent, routePath } from './schema-parts.ts'

/** Who may call, and what: an entry of `clients`. */

const KEY_HASH = '"sha256:" and 64 hex digits, as `npx sluice keys create` prints'
export const keyHash = (options: object = {}) =>
  Type.String({ pattern: '^sha256:[0-9a-f]{64}$', expected: KEY_HASH, ...options })

export const keyLabel = Type.String({
  minLength: 1,
  maxLength: 128,
  pattern: '^[^\\u0000-\\u001F\\u007F-\\u009F]*$',
  description: 'For people: where this key is used.',
  expected: 'a text of 1 to 128 characters, none of them a control character',
})

export const KeySchema = Type.Union(
  [
    keyHash(),
    object({
      hash: keyHash({ description: 'Hash of the key.' }),
      label: Type.Optional(keyLabel),
      expires: Type.Optional(
        moment('When it is refused from. A day alone is its end, in UTC. Default: it does not expire.'),
      ),
    }),
  ],
  { expected: `${KEY_HASH}, or { hash, label, expires }` },
)

export const ClientSchema = object({
  keys: Type.Array(KeySchema, {
    default: [],
    description: 'Hashes of the keys that this client may present: several, so that they can overlap while rotating.',
  }),
  tokens: Type.Optional(
    Type.Array(
      object({
        issuer: Type.String({ description: 'Name of one of the `tokenIssuers`.' }),
        claims: Type.Record(
          Type.String(),
          Type.Union([Type.String({ minLength: 1 }), Type.Array(Type.String({ minLength: 1 }), { minItems: 1 })], {
            expected: 'a text, or a list of texts of which one must be it',
          }),
          { minProperties: 1, description: 'What its claims must be; of a claim that is a list, one entry.' },
        ),
      }),
      { minItems: 1, description: 'Signed tokens that this client may present instead of a key.' },
    ),
  ),
  certificates: Type.Optional(
    Type.Array(
      Type.Refine(
        object({
          subject: Type.Optional(
            Type.Record(Type.String(), Type.String({ minLength: 1 }), {
              minProperties: 1,
              description: 'Fields that its subject must have, such as { CN: deploy-bot, O: Acme }.',
            }),
          ),
          san: Type.Optional(
            Type.String({
              pattern: '^(DNS|URI|email|IP Address):.+$',
              expected: 'a subject alternative name such as DNS:bot.example or URI:spiffe://example/bot',
              description: 'A subject alternative name that it must have.',
            }),
          ),
        }),
        ({ subject, san }) => subject !== undefined || san !== undefined,
        () => 'needs subject or san',
      ),
      {
        minItems: 1,
        description:
          'Client certificates, of an authority of server.tls.clientCa, that prove this client instead of a key.',
      },
    ),
  ),
  upstreams: Type.Optional(
    Type.Array(Type.String(), { minItems: 1, description: 'The upstreams it may use. Default: all.' }),
  ),
  accounts: Type.Optional(
    Type.Array(Type.String({ pattern: '^[^/]+/[^/]+$', expected: 'upstream/account, such as harness/prod' }), {
      minItems: 1,
      description: 'The accounts it may use, as upstream/account. Default: all.',
    }),
  ),
  classes: Type.Optional(
    Type.Array(Type.String(), { minItems: 1, description: 'The classes of calls it may make. Default: all.' }),
  ),
  methods: Type.Optional(
    Type.Array(method, { minItems: 1, description: 'The methods it may use; GET includes HEAD. Default: all.' }),
  ),
  paths: Type.Optional(
    Type.Array(routePath, {
      minItems: 1,
      description:
        'The paths below an upstream’s URL that it may call, written like those of routes; but `/admin/*` includes `/admin`. Default: all.',
    }),
  ),
  weight: Type.Optional(
    Type.Number({
      minimum: 0.001,
      maximum: 1000,
      description: 'Its part of what calls wait for, beside the weights of the other clients that wait. Default: 1.',
    }),
  ),
  share: Type.Optional(percent('Its part of each quota at least, whatever the weights, while others want it too.')),
  priority: Type.Optional(
    Type.Enum(['interactive', 'normal', 'batch'], {
      description:
        'How urgent its calls are, and the most that X-Sluice-Priority may ask for. An interactive call that waits ' +
        'counts four times the weight, a batch call a quarter. Default: normal.',
    }),
  ),
  budget: budget('What it may use'),
  team: Type.Optional(name({ description: 'The team whose budget its calls count against, too. Default: none.' })),
  networkAccess: networkAccess('What it may reach'),
})

const { keys: _, ...scope } = ClientSchema.properties
/** A client without its keys, as the admin API stores it. */
export const ClientScopeSchema = object(scope)

export type KeyConfig = StaticDecode<typeof KeySchema>
export type ClientConfig = StaticDecode<typeof ClientSchema>
export type ClientScope = StaticDecode<typeof ClientScopeSchema>
