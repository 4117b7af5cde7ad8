/*
 * src/schema: the TypeBox schemas of the configuration, and what their values mean: units, limits, secrets,
 * differences.
 * It imports only http and time. Reading and checking a file is the job of config, far above.
 * A change here must be in deploy/sluice.schema.json and docs/reference.md, which are generated (docs/contributing.md).
 */

import { availableParallelism } from 'node:os'
import Type, { type StaticDecode } from 'typebox'
import { OrganisationSchema, TeamSchema } from './budget-schema.ts'
import { CacheSchema } from './cache-schema.ts'
import { ClientSchema } from './client-schema.ts'
import { type CredentialSchema, SecretsSchema } from './credential-schema.ts'
import { ForwardProxySchema } from './forward-proxy-schema.ts'
import { IssuerSchema } from './issuer-schema.ts'
import type { LimitSchema } from './limit-schema.ts'
import {
  addressRange,
  duration,
  flag,
  host,
  networkAccess,
  object,
  ownHost,
  percent,
  port,
  record,
  secret,
  text,
  whole,
} from './schema-parts.ts'
import { StoreSchema } from './store-schema.ts'
import { TelemetrySchema } from './telemetry-schema.ts'
import { type AccountSchema, UpstreamSchema } from './upstream-schema.ts'
import { WebhookSchema } from './webhook-schema.ts'

/**
 * The configuration file. This schema, and those of its parts, are the only description of it: the types, the checks at
 * load, the defaults, the JSON Schema for editors and the reference documentation come from here.
 */

const ListenerTlsSchema = object(
  {
    cert: text('PEM of the certificate and its chain.'),
    key: secret('PEM of its private key.'),
    clientCa: Type.Optional(text('PEM of the authorities whose certificates clients may prove themselves with.')),
    requireClientCertificate: flag(
      'Whether a connection without such a certificate is refused; else its client needs a key or token.',
      false,
    ),
  },
  { description: 'TLS for clients. Without it the port speaks plain HTTP.' },
)

const MOST_WORKERS = 256

export const ConfigSchema = object({
  server: object(
    {
      host: ownHost('Address to listen on for clients.'),
      port: port('Port for clients; everything on it is proxy traffic.', 8080),
      hosts: Type.Array(host, {
        default: [],
        description:
          'Host names of the gateway itself, for request targets that are whole URLs, and without clients for every call. One that names another host is refused, unless an upstream owns it.',
      }),
      workers: Type.Codec(
        Type.Union([Type.Integer({ minimum: 1, maximum: MOST_WORKERS }), Type.Enum(['auto'])], {
          default: 1,
          expected: `a number from 1 to ${MOST_WORKERS}, or auto`,
          description: 'Processes that share the port. auto: as many as there are cores that the gateway may use.',
        }),
      )
        .Decode((workers) => (workers === 'auto' ? Math.min(availableParallelism(), MOST_WORKERS) : workers))
        .Encode((workers) => workers),
      watch: flag(
        'Whether a changed file, also one that is referenced by ${file:…}, is put in force as SIGHUP does.',
        true,
      ),
      maxWaiting: whole('Most calls that may wait for quota in a process, of all accounts together.', {
        minimum: 0,
        default: 20_000,
      }),
      shutdownDelay: duration(
        'How long new connections are still taken after SIGTERM, while /readyz answers 503: longer than the load balancer takes to notice. `drain` begins after it.',
        { default: '0s', min: '0s', max: '10m' },
      ),
      drain: duration('Longest time to finish running calls after SIGTERM.', { default: '30s', min: '0s' }),
      wrongKeys: object(
        {
          perAddress: whole('Most different wrong keys of one address (of an IPv6 network of 64 bits) in the window.', {
            minimum: 1,
            default: 20,
          }),
          overall: whole('Most different wrong keys of all addresses together.', { minimum: 1, default: 1000 }),
          window: duration('Length of the window.', { default: '1m', min: '1s', max: '1h' }),
        },
        { default: {}, description: 'Who tries more client keys than that is not let try others for the rest of it.' },
      ),
      connectionsPerAddress: whole(
        'Most connections of one address at once, in each gateway process; others are closed at once.',
        { minimum: 1, default: 10_000 },
      ),
      trustedProxies: Type.Array(addressRange('A load balancer, or a network of them, such as 10.0.0.0/8.'), {
        default: [],
        description:
          'From where X-Forwarded-For, or without it Forwarded, is believed: the address that it names counts for the log and for limits on wrong keys and admin tokens.',
      }),
      proxyProtocol: flag(
        'Whether every connection of trustedProxies begins with a header of the PROXY protocol, version 1 or 2, that names the client; without one it is closed.',
        false,
      ),
      tls: Type.Optional(ListenerTlsSchema),
      http2: flag('Whether clients may speak HTTP/2 too: by ALPN with tls, else if they begin with it (h2c).', false),
      headTimeout: duration('Longest time for the head of a request to come in.', { default: '30s', min: '100ms' }),
      maxHeaderBytes: whole('Largest request head that is accepted.', {
        minimum: 4096,
        maximum: 1_048_576,
        default: 16_384,
      }),
    },
    { default: {}, description: 'The listener for clients.' },
  ),
  forwardProxy: Type.Optional(ForwardProxySchema),
  admin: object(
    {
      host: ownHost('Address of the admin port.'),
      port: port('Port of health, readiness, metrics and the admin API.', 9090),
      token: Type.Optional(secret('Bearer token for /v1; required when host is not loopback.')),
      tokens: record(
        secret('Another bearer token for /v1.'),
        'Tokens by the names under which their changes stand in the audit trail.',
        { default: {} },
      ),
      metricsToken: Type.Optional(
        secret(
          'Bearer token that reads /metrics and nothing else. Without it, /metrics is open to whoever can connect, and refuses web pages, but beyond loopback not those that use DNS rebinding.',
        ),
      ),
    },
    { default: {}, description: 'The listener for operators and Prometheus.' },
  ),
  store: StoreSchema,
  secrets: SecretsSchema,
  cache: CacheSchema,
  log: object(
    {
      level: Type.Enum(['debug', 'info', 'warn', 'error', 'silent'], {
        default: 'info',
        description: 'What is less important is left out; the line of each call is of level info.',
      }),
      instance: Type.Optional(
        text('Name of this gateway on every line. Default: the host’s name and the number of the process.'),
      ),
      sample: percent(
        'Part of the calls that went well whose lines are written; those of all others always are.',
        '100%',
      ),
      format: Type.Enum(['auto', 'json', 'pretty'], {
        default: 'auto',
        description: 'auto is pretty at a terminal and JSON elsewhere.',
      }),
    },
    { default: {}, description: 'The log on standard output.' },
  ),
  requests: object(
    {
      keep: whole(
        'Most calls of each gateway process of which it keeps in memory what became of them, for `npx sluice request` and /v1/requests. 0 keeps none.',
        { minimum: 0, maximum: 1_000_000, default: 10_000 },
      ),
      maxBytes: whole('About so much memory they take at most; the oldest make way.', {
        minimum: 65_536,
        default: 33_554_432,
      }),
    },
    { default: {}, description: 'What is kept of the latest calls.' },
  ),
  metrics: object(
    {
      maxClients: whole(
        'Most clients that metrics name, in the order of their first calls, or, where it is about budgets, by how full those are; the others together are `other`. 0 leaves the label `client` out.',
        { minimum: 0, maximum: 100_000, default: 100 },
      ),
      maxAccounts: whole('Most accounts that metrics name, of all upstreams; the others together are `other`.', {
        minimum: 1,
        maximum: 100_000,
        default: 100,
      }),
    },
    { default: {}, description: 'Bounds for the number of series.' },
  ),
  telemetry: TelemetrySchema,
  defaultUpstream: Type.Optional(
    Type.String({ description: 'The upstream of calls whose path begins with no upstream’s name.' }),
  ),
  upstreams: record(UpstreamSchema, 'The vendor APIs, by the name that clients put first in the path.'),
  networkAccess: networkAccess('What calls of all clients to all upstreams may reach'),
  tokenIssuers: record(IssuerSchema, 'Whose signed tokens clients may present, by a name of your choice.', {
    default: {},
  }),
  webhooks: record(WebhookSchema, 'Who is told when something is wrong, by a name of your choice.', { default: {} }),
  organisations: record(OrganisationSchema, 'What teams belong to, by a name of your choice.', { default: {} }),
  teams: record(TeamSchema, 'What clients belong to, by a name of your choice.', { default: {} }),
  clients: Type.Optional(record(ClientSchema, 'The tools that may call. Without it, anyone on loopback may.')),
})

export type Config = StaticDecode<typeof ConfigSchema>
export type UpstreamConfig = StaticDecode<typeof UpstreamSchema>
export type CredentialConfig = StaticDecode<typeof CredentialSchema>
export type ListenerTls = NonNullable<Config['server']['tls']>
export type DisguiseConfig = UpstreamConfig['throttle']['when'][number]
export type LimitConfig = StaticDecode<typeof LimitSchema>
export type AccountConfig = StaticDecode<typeof AccountSchema>
export type VaultConfig = NonNullable<Config['secrets']['vault']>
export type SecretsConfig = Config['secrets']
export type TracesConfig = NonNullable<Config['telemetry']['traces']>
export type StoreConfig = Config['store']
