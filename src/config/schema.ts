import { formatDuration, parseDuration } from './units.ts'
import Type, { type StaticDecode } from 'typebox'
import { ClientSchema } from './client-schema.ts'
import { IssuerSchema } from './issuer-schema.ts'
import { CacheSchema, RouteCacheSchema, UpstreamCacheSchema } from './cache-schema.ts'
import { CredentialSchema, PoolMemberSchema, PoolSchema, SecretsSchema } from './credential-schema.ts'
import {
  addedHeader,
  duration,
  headerName,
  hidden,
  hostAndPort,
  NAME_PATTERN,
  networkAccess,
  object,
  method,
  percent,
  port,
  record,
  routePath,
  secret,
  url,
} from './schema-parts.ts'

/**
 * The whole configuration file, described once: the types below, the checks at load, the defaults, the JSON Schema for
 * editors and the reference documentation all come from here.
 */

const pathPattern = (description: string) =>
  Type.String({ pattern: '^/', description, expected: 'a path that begins with "/"' })

const units = (description: string, minimum = 1) =>
  Type.Integer({ minimum, maximum: 0xffff_ffff, expected: `a whole number, at least ${minimum}`, description })

// Of 501 and 505 a repeat would bring more; 401 is for credentials.
const repeatableStatus = Type.Refine(
  Type.Integer({ minimum: 400, maximum: 599 }),
  (status) => ![401, 501, 505].includes(status),
  () => 'must be the status of an error that may pass by itself: from 400 to 599, but not 401, 501 or 505',
)

const CostSchema = Type.Union(
  [
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
    expected: 'a whole number, `route`, `{ bytes: 1000 }`, or units by method such as `{ GET: 1, default: 5 }`',
  },
)

const scope = Type.String({ pattern: '^(account|credential|upstream|route|client|\\{[^{}/]+\\})$' })

const ScopeSchema = Type.Union([scope, Type.Array(scope, { minItems: 1 })], {
  description:
    'What has a count of its own: each account (default), each credential, or the upstream as a whole; within that, each route, client, or text of a {name} in the route’s path; several as a list.',
  expected: 'account, credential, upstream, route, client, a "{name}" of the routes’ paths, or a list of these',
})

const LimitSchema = object({
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
  name: Type.Optional(
    Type.String({
      pattern: NAME_PATTERN,
      expected: 'a name of lower-case letters, digits, ".", "_" and "-"',
      description: 'Tells it from another limit of the same class, window and scope.',
    }),
  ),
  headroom: Type.Optional(percent('Part of the limit that is left to others. Default: the upstream’s.')),
  enforce: Type.Optional(
    Type.Boolean({ description: 'false: counted and reported, but nothing waits or is refused. Default: true.' }),
  ),
})

const RouteSchema = object({
  method: Type.Optional(
    Type.Union([method, Type.Array(method, { minItems: 1 })], {
      description: 'The methods that this route takes. Default: every method.',
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
  retry: Type.Optional(
    Type.Enum(['safe', 'unsafe'], {
      description:
        'Whether a call may be repeated after it reached the upstream. Default: by method (RFC 9110 §9.2.2).',
    }),
  ),
  breaker: Type.Optional(
    Type.String({
      pattern: NAME_PATTERN,
      expected: 'a name of lower-case letters, digits, ".", "_" and "-"',
      description: 'Name of a breaker for the routes that name it, in place of the one for all calls.',
    }),
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

const AccountSchema = object({
  id: Type.Optional(
    Type.String({ minLength: 1, description: 'The vendor’s id of the account; calls that claim another are refused.' }),
  ),
  credential: Type.Optional(CredentialSchema),
  credentials: Type.Optional(
    Type.Array(PoolMemberSchema, { minItems: 1, description: 'Instead of one: several, of which each call gets one.' }),
  ),
  pool: Type.Optional(PoolSchema),
})

const TlsSchema = object(
  {
    ca: Type.Optional(Type.String({ description: 'PEM of the authorities to trust instead of the system’s.' })),
    cert: Type.Optional(Type.String({ description: 'PEM of the client certificate chain.' })),
    key: Type.Optional(secret('PEM of the client certificate’s private key.')),
    servername: Type.Optional(Type.String({ description: 'The name to expect in the server’s certificate.' })),
  },
  { description: 'For a server that the system’s trust store does not know, or that wants a client certificate.' },
)

const ListenerTlsSchema = object(
  {
    cert: Type.String({ minLength: 1, description: 'PEM of the certificate and its chain.' }),
    key: secret('PEM of its private key.'),
    clientCa: Type.Optional(
      Type.String({
        minLength: 1,
        description: 'PEM of the authorities whose certificates clients may prove themselves with.',
      }),
    ),
    requireClientCertificate: Type.Boolean({
      default: false,
      description: 'Whether a connection without such a certificate is refused; else its client needs a key or token.',
    }),
  },
  { description: 'TLS for clients. Without it the port speaks plain HTTP.' },
)

const ClaimsSchema = object(
  {
    headers: Type.Optional(
      Type.Array(headerName('A header name.'), { description: 'Request headers that name the account.' }),
    ),
    query: Type.Optional(Type.Array(Type.String(), { description: 'Query parameters that name the account.' })),
    paths: Type.Optional(
      Type.Array(pathPattern('A path with {account} in it.'), {
        description: 'Paths whose {account} segment names it.',
      }),
    ),
  },
  { description: 'Where a call may say which account it means. Every claim must agree with the account chosen.' },
)

export const UpstreamSchema = object({
  preset: Type.Optional(
    Type.Enum(['harness', 'everruns', 'github', 'slack', 'pagerduty', 'jira', 'cloudflare'], {
      description: 'Built-in knowledge of a vendor: URL, classes, limits, routes, account claims, error dialect.',
    }),
  ),
  limitSet: Type.Optional(
    Type.String({ description: 'Which of the preset’s sets of limits is kept, such as published with harness.' }),
  ),
  url: Type.Optional(
    url('an http:// or https:// URL without user, query or fragment', {
      pattern: '^https?://[^/?#@]+(/[^?#]*)?$',
      description: 'Base URL of the vendor’s API. Required unless the preset has one.',
    }),
  ),
  hosts: Type.Array(Type.String({ minLength: 1 }), {
    default: [],
    description: 'Host names by which clients reach this upstream without its name as path prefix.',
  }),
  accounts: record(AccountSchema, 'The accounts at the vendor, by a name of your choice.'),
  limits: record(
    Type.Array(LimitSchema),
    'Per class, the quotas to keep: several at once, [] for none. Every call is charged to those of `all`, too.',
    { default: {} },
  ),
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
      { name: Type.String(), paths: Type.Array(pathPattern('A path prefix.')) },
      { description: 'Query parameter added upstream with the account’s id where a call below these paths lacks it.' },
    ),
  ),
  errors: Type.Enum(['harness', 'problem'], {
    default: 'harness',
    description: 'Shape of the gateway’s own refusals: Harness’s JSON, or RFC 9457 problem details.',
  }),
  queue: object(
    {
      maxWait: duration('Longest time that a call may wait for quota.', { default: '10s', min: '0s' }),
      maxWaiting: Type.Integer({
        minimum: 0,
        default: 1000,
        description: 'Most calls that may wait at once, per account and class.',
      }),
      maxWaitingPerAccount: Type.Optional(
        Type.Integer({ minimum: 0, description: 'Most of all classes of an account. Default: no bound of its own.' }),
      ),
      maxWaitingPerClient: Type.Optional(
        Type.Integer({ minimum: 0, description: 'Most of one client, per account and class. Default: maxWaiting.' }),
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
      pause: duration('How long all calls of the account wait after such an answer that does not say how long.', {
        default: '1s',
        min: '0s',
      }),
      maxPause: duration('Longest time that they wait because a Retry-After says so.', { default: '5m' }),
    },
    { default: {}, description: 'What is done when the upstream refuses calls because there were too many.' },
  ),
  retry: object(
    {
      retries: Type.Integer({ minimum: 0, maximum: 20, default: 5, description: 'Most repeats of one call.' }),
      baseDelay: duration('Upper bound of the first random delay; it doubles with every repeat.', { default: '1s' }),
      maxDelay: duration('Upper bound of every random delay; a Retry-After of the upstream may be longer.', {
        default: '60s',
      }),
      jitter: Type.Enum(['full', 'equal', 'decorrelated'], {
        default: 'full',
        description:
          'How much of a delay is random: all of it, half of it, or from baseDelay to three times the delay before.',
      }),
      statuses: Type.Array(repeatableStatus, {
        default: [429, 500, 502, 503, 504],
        description: 'Statuses of responses after which a call that is safe to repeat is repeated; never 501 and 505.',
      }),
      idempotencyKey: Type.Enum(['forwarded', 'honoured'], {
        default: 'forwarded',
        description:
          'honoured: the upstream does a call with the same Idempotency-Key once, so a call that has one is safe to repeat.',
      }),
      budget: percent('Share of the traffic that repeats may add, besides ten at once and one a second.', '20%'),
      bodyLimit: Type.Integer({
        minimum: 0,
        default: 1_048_576,
        description: 'Largest request body in bytes that is kept in memory so that it can be sent again.',
      }),
    },
    { default: {}, description: 'Repeating calls that failed and are safe to repeat.' },
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
      failures: Type.Integer({ minimum: 1, default: 5, description: 'Failures in a row that open the breaker.' }),
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
      probes: Type.Integer({
        minimum: 1,
        default: 1,
        description: 'Calls that may probe the upstream at once; it closes when so many were answered.',
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
      headers: duration('From the dispatch to the response headers, a wait for a connection included.', {
        default: '60s',
      }),
      idle: duration('Between two pieces of a body, in either direction.', { default: '300s' }),
      total: duration(
        'From the first attempt to the response headers of the last, delays between them included; a wait for quota before it is not, unless the client sends X-Sluice-Timeout.',
        { default: '120s' },
      ),
    },
    { default: {}, description: 'How long each part of a call may take.' },
  ),
  concurrency: record(
    Type.Integer({ minimum: 1 }),
    'Most calls in flight at once, per account and class, in each gateway process. Default: unlimited.',
    { default: {} },
  ),
  connections: Type.Integer({
    minimum: 1,
    default: 256,
    description: 'Most connections to the upstream, in each gateway process.',
  }),
  http2: Type.Boolean({
    default: false,
    description: 'Whether the upstream is spoken to in HTTP/2: where it agrees with https, always (h2c) with http.',
  }),
  maxWebSockets: Type.Integer({
    minimum: 0,
    default: 100,
    description: 'Most WebSockets to the upstream that are open at once, in each gateway process. 0 for none.',
  }),
  minBodyRate: Type.Integer({
    minimum: 0,
    default: 100,
    description:
      'Bytes a second of a request body that a client has to send on average, after timeouts.idle; 0 for any.',
  }),
  maxBody: Type.Optional(
    Type.Integer({ minimum: 0, description: 'Largest request body in bytes that is let through. Default: no limit.' }),
  ),
  scrub: Type.Boolean({
    default: true,
    description: 'Whether the account’s credential is removed from responses that repeat it.',
  }),
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

export const ConfigSchema = object({
  server: object(
    {
      host: Type.String({ default: '127.0.0.1', description: 'Address to listen on for clients.' }),
      port: port('Port for clients; everything on it is proxy traffic.', 8080),
      workers: Type.Integer({
        minimum: 1,
        maximum: 256,
        default: 1,
        description: 'Processes that share the port. More than one needs store.kind: redis.',
      }),
      watch: Type.Boolean({
        default: true,
        description:
          'Whether a changed file, also one that is referenced by ${file:…}, is put in force as SIGHUP does.',
      }),
      maxWaiting: Type.Integer({
        minimum: 0,
        default: 20_000,
        description: 'Most calls that may wait for quota in a process, of all accounts together.',
      }),
      drain: duration('Longest time to finish running calls after SIGTERM.', { default: '30s', min: '0s' }),
      wrongKeys: object(
        {
          perAddress: Type.Integer({
            minimum: 1,
            default: 20,
            description: 'Most different wrong keys of one address (of an IPv6 network of 64 bits) in the window.',
          }),
          overall: Type.Integer({
            minimum: 1,
            default: 1000,
            description: 'Most different wrong keys of all addresses together.',
          }),
          window: duration('Length of the window.', { default: '1m', min: '1s', max: '1h' }),
        },
        { default: {}, description: 'Who tries more client keys than that is not let try others for the rest of it.' },
      ),
      connectionsPerAddress: Type.Integer({
        minimum: 1,
        default: 10_000,
        description: 'Most connections of one address at once, in each gateway process; others are closed at once.',
      }),
      tls: Type.Optional(ListenerTlsSchema),
      http2: Type.Boolean({
        default: false,
        description: 'Whether clients may speak HTTP/2 too: by ALPN with tls, else if they begin with it (h2c).',
      }),
      headTimeout: duration('Longest time for the head of a request to come in.', { default: '30s', min: '100ms' }),
      maxHeaderBytes: Type.Integer({
        minimum: 4096,
        maximum: 1_048_576,
        default: 16_384,
        description: 'Largest request head that is accepted.',
      }),
    },
    { default: {}, description: 'The listener for clients.' },
  ),
  admin: object(
    {
      host: Type.String({ default: '127.0.0.1', description: 'Address of the admin port.' }),
      port: port('Port of health, readiness, metrics and the admin API.', 9090),
      token: Type.Optional(secret('Bearer token for /v1; required when host is not loopback.')),
      tokens: record(
        secret('Another bearer token for /v1.'),
        'Tokens by the names under which their changes stand in the audit trail.',
        { default: {} },
      ),
    },
    { default: {}, description: 'The listener for operators and Prometheus.' },
  ),
  store: object(
    {
      kind: Type.Enum(['memory', 'redis'], {
        default: 'memory',
        description: 'Where quotas are counted: in this process (kept over restarts in dir), or in Redis for many.',
      }),
      dir: Type.Optional(
        Type.String({ description: 'Folder of the embedded store. Default: .sluice. Only with memory.' }),
      ),
      // It may hold a password.
      url: Type.Optional(
        hidden(
          url('a redis:// or rediss:// URL; percent-encode "%", "/", "?" and "#" in its password', {
            // With one of these in the password, what is before it would be taken for host and port.
            pattern: '^rediss?://[^\\s/?#]+(/\\d*)?(\\?[^#@]*)?$',
            description: 'One Redis server. Special characters in its password must be percent-encoded.',
          }),
        ),
      ),
      sentinels: Type.Optional(
        Type.Array(hostAndPort, { minItems: 1, description: 'host:port of the sentinels of one monitored Redis.' }),
      ),
      master: Type.Optional(Type.String({ description: 'Name of the monitored Redis. Default: mymaster.' })),
      cluster: Type.Optional(Type.Array(hostAndPort, { minItems: 1, description: 'host:port of cluster nodes.' })),
      username: Type.Optional(Type.String({ description: 'Redis ACL user, unless the url names one.' })),
      password: Type.Optional(secret('Redis password, unless the url has one.')),
      sentinelUsername: Type.Optional(Type.String({ description: 'ACL user of the sentinels.' })),
      sentinelPassword: Type.Optional(secret('Password of the sentinels.')),
      // Without it, a rediss:// URL trusts the system's authorities.
      tls: Type.Optional(TlsSchema),
      prefix: Type.String({ default: 'sluice', description: 'Beginning of every key in Redis.' }),
      commandTimeout: duration('Longest wait for an answer of Redis.', { default: '50ms' }),
      onOutage: Type.Enum(['lease', 'closed', 'open'], {
        default: 'lease',
        description:
          'While Redis is away: lease spends what this gateway holds in lease, closed refuses calls that need a quota, open lets everything pass.',
      }),
    },
    { default: {}, description: 'Where quotas are counted.' },
  ),
  secrets: SecretsSchema,
  cache: CacheSchema,
  log: object(
    {
      level: Type.Enum(['debug', 'info', 'warn', 'error', 'silent'], {
        default: 'info',
        description: 'What is less important is left out; the line of each call is of level info.',
      }),
      format: Type.Enum(['auto', 'json', 'pretty'], {
        default: 'auto',
        description: 'auto is pretty at a terminal and JSON elsewhere.',
      }),
    },
    { default: {}, description: 'The log on standard output.' },
  ),
  defaultUpstream: Type.Optional(
    Type.String({ description: 'The upstream of calls whose path begins with no upstream’s name.' }),
  ),
  upstreams: record(UpstreamSchema, 'The vendor APIs, by the name that clients put first in the path.'),
  networkAccess: networkAccess('What calls of all clients to all upstreams may reach'),
  tokenIssuers: record(IssuerSchema, 'Whose signed tokens clients may present, by a name of your choice.', {
    default: {},
  }),
  clients: Type.Optional(record(ClientSchema, 'The tools that may call. Without it, anyone on loopback may.')),
})

export type Config = StaticDecode<typeof ConfigSchema>
export type UpstreamConfig = StaticDecode<typeof UpstreamSchema>
export type CredentialConfig = StaticDecode<typeof CredentialSchema>
export type ListenerTls = NonNullable<Config['server']['tls']>
export type LimitConfig = StaticDecode<typeof LimitSchema>
export type AccountConfig = StaticDecode<typeof AccountSchema>
export type VaultConfig = NonNullable<Config['secrets']['vault']>
export type SecretsConfig = Config['secrets']
export type StoreConfig = Config['store']
