import Type, { type StaticDecode } from 'typebox'
import { duration, object, whole } from './schema-parts.ts'

const rule = {
  scope: Type.Optional(
    Type.Enum(['client', 'account'], {
      description:
        'For whom an answer is kept: the client that asked (default), or every client that may use the account.',
    }),
  ),
  private: Type.Optional(
    Type.Boolean({
      description:
        'Also keep answers that are for one user only: marked private, or to a request whose credential travels in Authorization. The user is the account, so with `scope: account` its clients share them. Default: false.',
    }),
  ),
  freshFor: Type.Optional(
    duration('How long an answer is fresh that does not say so itself. Default: not at all.', { min: '0s' }),
  ),
  staleIfError: Type.Optional(
    duration(
      'How long an answer that is not fresh any more may stand in for an error, unless it says so itself or forbids it. Default: 5m.',
      { min: '0s' },
    ),
  ),
  staleWhileRevalidate: Type.Optional(
    duration(
      'How long it may be given while it is asked for anew in the background, unless it says so itself or forbids it. Default: not at all.',
      { min: '0s' },
    ),
  ),
  staleOn: Type.Optional(
    Type.Array(Type.Enum(['throttled']), {
      description:
        'throttled: for the time of `staleIfError` it may also stand in for a 429 and for a refusal because the quota is used up.',
    }),
  ),
}

export const CacheRuleSchema = object(rule)

/** The `cache` of a route. */
export const RouteCacheSchema = Type.Union([Type.Boolean(), CacheRuleSchema], {
  description:
    'Whether answers to GET are cached (RFC 9111), and how where that differs from the upstream’s `cache`. Default: what the upstream’s `cache.routes` says.',
  expected: 'true, false, or settings such as { scope: account }',
})

/** The `cache` of an upstream, for all its cached routes. */
export const UpstreamCacheSchema = object(
  {
    routes: Type.Enum(['marked', 'proposed'], {
      default: 'marked',
      description: 'Which routes are cached: those marked with `cache`, or also those that the preset proposes.',
    }),
    ...rule,
  },
  { description: 'What is cached of this upstream, and how. Each route may differ.' },
)

export const CacheSchema = object(
  {
    store: Type.Enum(['memory', 'redis'], {
      default: 'memory',
      description: 'Where answers are kept: in each gateway process, or in the Redis of `store` for all of them.',
    }),
    maxBytes: Type.Optional(
      whole(
        'Most bytes of answers in each process; what was used least lately goes first. Default: 67108864. Only with memory.',
        { minimum: 65_536 },
      ),
    ),
    maxEntryBytes: whole('Largest answer that is kept; a larger one is only passed on.', {
      minimum: 1024,
      default: 1_048_576,
    }),
  },
  { default: {}, description: 'Where answers of cached routes are kept.' },
)

export type CacheRule = StaticDecode<typeof CacheRuleSchema>
export type CacheConfig = StaticDecode<typeof CacheSchema>
