import Type from 'typebox'
import { duration, hidden, hostAndPort, name, object, percent, record, secret, url, whole } from './schema-parts.ts'
import { TlsSchema } from './upstream-schema.ts'

/** Where a Redis is. */
const PLACE = {
  // It may hold a password.
  url: Type.Optional(
    hidden(
      url('a redis:// or rediss:// URL; percent-encode "%", "/", "?" and "#" in its password', {
        // With one of these characters in the password, the part before it would be read as host and port.
        pattern: '^rediss?://[^\\s/?#]+(/\\d*)?(\\?[^#@]*)?$',
        description: 'One Redis server. Special characters in its password must be percent-encoded.',
      }),
    ),
  ),
  sentinels: Type.Optional(
    Type.Array(hostAndPort, { minItems: 1, description: 'host:port of the sentinels of one monitored Redis.' }),
  ),
  master: Type.Optional(Type.String({ description: 'Name of the monitored Redis. Default: mymaster.' })),
}

/** How to log in to it. */
const LOGIN = {
  username: Type.Optional(Type.String({ description: 'Redis ACL user, unless the url names one.' })),
  password: Type.Optional(secret('Redis password, unless the url has one.')),
  sentinelUsername: Type.Optional(Type.String({ description: 'ACL user of the sentinels.' })),
  sentinelPassword: Type.Optional(secret('Password of the sentinels.')),
  // Without it, a rediss:// URL trusts the authorities of the system.
  tls: Type.Optional(TlsSchema),
}

const RegionsSchema = object(
  {
    name: name({ description: 'The region of this gateway, one of weights.' }),
    weights: record(
      whole('Its part, beside those of the others.', { minimum: 1, maximum: 1_000 }),
      'All regions, the same in each of them, with how much of what all want each is due.',
    ),
    home: object(
      { ...PLACE, ...LOGIN },
      { description: 'The one Redis that divides quotas among the regions. No call waits for it.' },
    ),
    reserve: percent(
      'The part of each limit that is divided by weight once and for all. A region without home has its part of that.',
      '30%',
    ),
    lease: duration('For how long a region keeps its share without home.', { default: '10s', min: '3s', max: '5m' }),
    longestCall: duration(
      'No call counts for longer than that while it is not answered, or in flight. The share of a region that is lost comes back this long after its lease and the window.',
      { default: '5m', min: '1s' },
    ),
  },
  { description: 'Splits every limit over regions, each with a Redis of its own, by shares that follow the demand.' },
)

export const StoreSchema = object(
  {
    kind: Type.Enum(['memory', 'redis'], {
      default: 'memory',
      description: 'Where quotas are counted: in this process (kept over restarts in dir), or in Redis for many.',
    }),
    dir: Type.Optional(
      Type.String({
        description:
          'Folder of the embedded store, from the folder that the gateway is started in. Default: .sluice. Only with memory.',
      }),
    ),
    ...PLACE,
    cluster: Type.Optional(Type.Array(hostAndPort, { minItems: 1, description: 'host:port of cluster nodes.' })),
    ...LOGIN,
    // Braces would be taken for those that say which node of a cluster has the key.
    prefix: Type.String({
      pattern: '^[^{}]*$',
      expected: 'a text without "{" and "}"',
      default: 'sluice',
      description: 'Beginning of every key in Redis.',
    }),
    commandTimeout: duration('Longest wait for an answer of Redis.', { default: '50ms' }),
    onOutage: Type.Enum(['lease', 'closed', 'open'], {
      default: 'lease',
      description:
        'While Redis is away, or the disk of the embedded store can not be written: lease spends what this gateway holds in lease (embedded: counts in memory), closed refuses calls that need a quota, open lets everything pass.',
    }),
    regions: Type.Optional(RegionsSchema),
  },
  { default: {}, description: 'Where quotas are counted.' },
)
