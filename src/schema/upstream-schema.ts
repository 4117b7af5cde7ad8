import { formatDuration, parseDuration } from './units.ts'
import Type, { type StaticDecode } from 'typebox'
import { UpstreamCacheSchema } from './cache-schema.ts'
import { CredentialSchema, PoolMemberSchema, PoolSchema } from './credential-schema.ts'
import { DisguiseSchema } from './disguise-schema.ts'
import { LimitSchema } from './limit-schema.ts'
import { MoneySchema } from './price-schema.ts'
import { RouteSchema } from './route-schema.ts'
import {
  addedHeader,
  duration,
  flag,
  headerName,
  host,
  httpUrl,
  networkAccess,
  object,
  percent,
  queryParameter,
  record,
  routePath,
  secret,
  text,
  whole,
} from './schema-parts.ts'

/** It is compared as it is, so that another one would never apply. */
const pathPrefix = Type.String({
  pattern: '^/[^*?#{}]*$',
  description: 'A path prefix.',
  expected: 'the beginning of paths, such as /api: from "/" on, without "*", braces and query',
})

/** Without its account it would find none, and no claim would be compared. */
const claimPath = Type.Refine(
  routePath,
  (path) => path.includes('{account}'),
  () => 'must have {account} where the account stands, such as /v1/accounts/{account}/*',
)

// A retry would be answered 501 or 505 again; 401 is for credentials.
const retryableStatus = Type.Refine(
  Type.Integer({ minimum: 400, maximum: 599 }),
  (status) => ![401, 501, 505].includes(status),
  () => 'must be the status of an error that may pass by itself: from 400 to 599, but not 401, 501 or 505',
)

export const AccountSchema = object({
  id: Type.Optional(text('The vendor’s id of the account; calls that claim another are refused.')),
  credential: Type.Optional(CredentialSchema),
  credentials: Type.Optional(
    Type.Array(PoolMemberSchema, { minItems: 1, description: 'Instead of one: several, of which each call gets one.' }),
  ),
  pool: Type.Optional(PoolSchema),
})

export const TlsSchema = object(
  {
    ca: Type.Optional(Type.String({ description: 'PEM of the authorities to trust instead of the system’s.' })),
    cert: Type.Optional(Type.String({ description: 'PEM of the client certificate chain.' })),
    key: Type.Optional(secret('PEM of the client certificate’s private key.')),
    servername: Type.Optional(Type.String({ description: 'The name to expect in the server’s certificate.' })),
  },
  { description: 'For a server that the system’s trust store does not know, or that wants a client certificate.' },
)

/** The same as options of Node. The private key is revealed. */
export function tlsOptions({ key, ...rest }: StaticDecode<typeof TlsSchema> = {}) {
  return key === undefined ? rest : { ...rest, key: key.reveal() }
}

const ClaimsSchema = object(
  {
    headers: Type.Optional(
      Type.Array(headerName('A header name.'), { description: 'Request headers that name the account.' }),
    ),
    query: Type.Optional(Type.Array(Type.String(), { description: 'Query parameters that name the account.' })),
    paths: Type.Optional(
      Type.Array(claimPath, {
        description: 'Paths whose {account} segment names it.',
      }),
    ),
  },
  { description: 'Where a call may say which account it means. Every claim must agree with the account chosen.' },
)

const PRESETS =
  'harness everruns github slack pagerduty jira cloudflare confluence gitlab shopify hubspot datadog openai anthropic azure-openai'.split(
    ' ',
  )
const ERROR_SHAPES = [
  ...(['harness', 'problem', 'github', 'slack', 'jira', 'pagerduty', 'cloudflare'] as const),
  ...(['confluence', 'gitlab', 'shopify', 'hubspot', 'datadog', 'openai', 'anthropic'] as const),
] as const

export const UpstreamSchema = object({
  preset: Type.Optional(
    Type.Enum(PRESETS, {
      description: 'Built-in knowledge of a vendor: URL, classes, limits, routes, account claims, error dialect.',
    }),
  ),
  limitSet: Type.Optional(
    Type.String({ description: 'Which of the preset’s sets of limits is kept, such as published with harness.' }),
  ),
  url: Type.Optional(httpUrl('Base URL of the vendor’s API. Required unless the preset has one.')),
  hosts: Type.Array(host, {
    default: [],
    description: 'Host names by which clients reach this upstream without its name as path prefix.',
  }),
  accounts: record(AccountSchema, 'The accounts at the vendor, by a name of your choice.'),
  limits: record(
    Type.Array(LimitSchema),
    'Per class, the quotas to keep: several at once, [] for none. Every call is charged to those of `all`, too.',
    { default: {} },
  ),
  price: Type.Optional(MoneySchema),
  headroom: percent('Part of every limit that is left to others, but for one unit; a limit can have its own.', '0%'),
  slack: duration('How long after a call was given up the upstream may still count it.', { default: '1s', min: '0s' }),
  routes: Type.Array(RouteSchema, {
    default: [],
    description: 'Which calls belong to which class; the most specific path wins, and these win over the preset’s.',
  }),
  credentialHeader: addedHeader(
    'Request header in which this upstream takes its credential, and in which clients may present their key.',
    { default: 'authorization' },
  ),
  accountClaims: Type.Optional(ClaimsSchema),
  accountHeader: Type.Optional(addedHeader('Header set upstream to the account’s id.')),
  accountQuery: Type.Optional(
    object(
      {
        name: queryParameter(),
        paths: Type.Array(pathPrefix, { description: 'How the paths begin where it is added.' }),
      },
      { description: 'Query parameter added upstream with the account’s id where a call below these paths lacks it.' },
    ),
  ),
  forward: Type.Array(Type.Enum(['trace', 'client']), {
    default: [],
    description:
      'Which of the request fields that tell of the inside of the house go upstream: those of traces (traceparent, tracestate, baggage, …), and those of who the client is and how it came (X-Forwarded-*, Forwarded, X-Real-IP, names in Via, …).',
  }),
  ownLinks: Type.Enum(['rewrite', 'keep'], {
    default: 'rewrite',
    description:
      'rewrite: Location, Content-Location and Link of a response lead to the gateway, as the client addressed it, where they led to the origin of url; bodies stay as they are. keep: they go on as they came.',
  }),
  requestIdHeaders: Type.Array(headerName('A header name.'), {
    default: ['x-request-id', 'x-correlation-id', 'request-id', 'cf-ray'],
    description: 'Response headers with the vendor’s own id of a request, for the log; the first that is there counts.',
  }),
  errors: Type.Enum(ERROR_SHAPES, {
    default: 'harness',
    description:
      'Shape of the gateway’s own refusals: RFC 9457 problem details, or as SDKs of that vendor read errors.',
  }),
  queue: object(
    {
      maxWait: duration('Longest time that a call may wait for quota.', { default: '10s', min: '0s' }),
      maxWaiting: whole('Most calls that may wait at once, per account and class.', { minimum: 0, default: 1000 }),
      maxWaitingPerAccount: Type.Optional(
        whole('Most of all classes of an account. Default: no bound of its own.', { minimum: 0 }),
      ),
      maxWaitingPerClient: Type.Optional(
        whole('Most of one client, per account and class. Default: maxWaiting.', { minimum: 0 }),
      ),
    },
    { default: {}, description: 'Waiting for quota instead of failing.' },
  ),
  throttle: object(
    {
      statuses: Type.Array(Type.Integer({ minimum: 400, maximum: 599 }), {
        default: [429],
        description:
          'Statuses by which the upstream says that it takes no more calls for now; those other than 429 only with a Retry-After, or with a header by which nothing remains.',
      }),
      when: Type.Array(DisguiseSchema, {
        default: [],
        description:
          'Answers of other statuses, such as 200, by which the upstream says the same. Each is treated as a 429 in every respect; a client that gets it all the same gets it as it was sent.',
      }),
      pause: duration('How long all calls of the account wait after such an answer that does not say how long.', {
        default: '1s',
        min: '0s',
      }),
      maxPause: duration('Longest time that they wait because a Retry-After says so.', { default: '5m' }),
      retry: Type.Enum(['any', 'safe'], {
        default: 'safe',
        description:
          'Which calls go back into their queue after such an answer, if it is a 4xx and their body was kept: safe, those that are safe to retry; any, all of them, because the upstream refuses before it acts. Presets of vendors that say so have any.',
      }),
    },
    { default: {}, description: 'What is done when the upstream refuses calls because there were too many.' },
  ),
  retry: object(
    {
      retries: whole('Most retries of one call.', { minimum: 0, maximum: 20, default: 5 }),
      baseDelay: duration('Upper bound of the first random delay; it doubles with every retry.', { default: '1s' }),
      maxDelay: duration('Upper bound of every random delay; a Retry-After of the upstream may be longer.', {
        default: '60s',
      }),
      jitter: Type.Enum(['full', 'equal', 'decorrelated'], {
        default: 'full',
        description:
          'How much of a delay is random: all of it, half of it, or from baseDelay to three times the delay before.',
      }),
      statuses: Type.Array(retryableStatus, {
        default: [429, 500, 502, 503, 504],
        description: 'Statuses of responses after which a call that is safe to retry is retried; never 501 and 505.',
      }),
      idempotencyKey: Type.Enum(['forwarded', 'honoured'], {
        default: 'forwarded',
        description:
          'honoured: the upstream does a call with the same Idempotency-Key once, so a call that has one is safe to retry.',
      }),
      budget: percent('Share of the traffic that retries may add, besides ten at once and one a second.', '20%'),
      bodyLimit: whole('Largest request body in bytes that is kept in memory so that it can be sent again.', {
        minimum: 0,
        default: 1_048_576,
      }),
    },
    { default: {}, description: 'Retrying calls that failed and are safe to retry.' },
  ),
  hedge: Type.Optional(
    object(
      {
        after: Type.Codec(
          Type.String({
            pattern: '^(p[5-9]\\d|[1-9]\\d*(ms|s|m|h))$',
            expected: 'a duration such as 200ms, or a part of the calls such as p95',
            description:
              'A time; or p50 to p99, the time in which so many in a hundred calls of a class lately had theirs.',
          }),
        )
          .Decode((text) =>
            text.startsWith('p') ? { quantile: Number(text.slice(1)) / 100 } : { ms: parseDuration(text) },
          )
          .Encode((after) => ('ms' in after ? formatDuration(after.ms) : `p${Math.round(after.quantile * 100)}`)),
      },
      {
        description:
          'Sends a call that only reads once more if it has no response headers after some time; the first answer counts. Default: off.',
      },
    ),
  ),
  breaker: object(
    {
      failures: whole('Failures in a row that open the breaker.', { minimum: 1, default: 5 }),
      slow: Type.Optional(
        duration('A call that has to wait longer for its response headers counts as a failure. Default: none does.'),
      ),
      reset: duration('How long it stays open before calls may probe the upstream.', { default: '60s' }),
      maxReset: duration(
        'It stays open twice as long each time it opens again soon, up to this, never less than reset.',
        {
          default: '10m',
        },
      ),
      probes: whole('Calls that may probe the upstream at once; it closes when so many were answered.', {
        minimum: 1,
        default: 1,
      }),
      per: Type.Enum(['upstream', 'class'], {
        default: 'upstream',
        description: 'What has a breaker of its own: the upstream as a whole, or each class of calls to it.',
      }),
    },
    { default: {}, description: 'Refusing calls at once while the upstream is failing, in each gateway process.' },
  ),
  timeouts: object(
    {
      connect: duration('To have a TCP connection.', { default: '5s' }),
      tls: duration('For the TLS handshake on it.', { default: '5s' }),
      headers: duration(
        'To have the response headers, once the upstream could have the whole request. Before that, a wait for one of `connections` may take as long.',
        { default: '60s' },
      ),
      idle: duration('Between two pieces of a body, in either direction.', { default: '300s' }),
      total: duration(
        'From the first attempt to the response headers of the last, delays between them included; a wait for quota before it is not, unless the client sends X-Sluice-Timeout.',
        { default: '120s' },
      ),
    },
    { default: {}, description: 'How long each part of a call may take.' },
  ),
  concurrency: record(
    Type.Union(
      [
        Type.Integer({ minimum: 1 }),
        Type.Object(
          {
            min: whole('The fewest that may be in flight; it begins with so many.', { minimum: 1 }),
            max: whole('The most that may be in flight.', { minimum: 1 }),
          },
          { additionalProperties: false },
        ),
      ],
      { expected: 'a number from 1, or { min, max }' },
    ),
    'Most calls in flight at once, per account and class, in each gateway process: a number, or { min, max }, between which it follows what the upstream can take. Default: unlimited.',
    { default: {} },
  ),
  connections: whole('Most connections to the upstream, in each gateway process.', { minimum: 1, default: 256 }),
  proxy: Type.Optional(
    secret(
      'URL of an HTTP proxy to reach the upstream through (CONNECT), as http://user:password@host:port; TLS is still with the upstream.',
    ),
  ),
  http2: flag(
    'Whether the upstream is spoken to in HTTP/2: where it agrees with https, always (h2c) with http.',
    false,
  ),
  maxWebSockets: whole('Most WebSockets to the upstream that are open at once, in each gateway process. 0 for none.', {
    minimum: 0,
    default: 100,
  }),
  minBodyRate: whole(
    'Bytes a second of a request body that a client has to send on average, after timeouts.idle; 0 for any.',
    { minimum: 0, default: 100 },
  ),
  maxBody: Type.Optional(
    whole('Largest request body in bytes that is let through. Default: no limit.', { minimum: 0 }),
  ),
  scrub: flag('Whether the account’s credential is removed from responses that repeat it.', true),
  cache: Type.Optional(UpstreamCacheSchema),
  tls: Type.Optional(TlsSchema),
  networkAccess: networkAccess('What calls to this upstream may reach'),
  privateAddresses: Type.Optional(
    Type.Enum(['allow', 'deny'], {
      description:
        'Whether its host may have an address of a private network, this machine or the cloud’s metadata. Default: only a host that is written as such an address, or localhost.',
    }),
  ),
})
