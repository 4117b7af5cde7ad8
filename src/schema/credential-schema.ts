import Type from 'typebox'
import {
  addedHeader,
  duration,
  headerName,
  hidden,
  httpUrl,
  moment,
  name,
  object,
  percent,
  queryParameter,
  secret,
  text,
  url,
} from './schema-parts.ts'

/** The fields that each type of credential needs, and those that it may have. All others belong to other types. */
export const CREDENTIAL_TYPES = {
  header: { needs: ['value'], takes: ['header'] },
  bearer: { needs: ['value'], takes: [] },
  basic: { needs: ['username', 'password'], takes: [] },
  query: { needs: ['parameter', 'value'], takes: [] },
  oauth2: {
    needs: ['tokenUrl', 'clientId'],
    takes: 'clientSecret clientAuth key keyId algorithm issuer scopes audience parameters skew'.split(' '),
  },
  jwt: {
    needs: ['key'],
    takes: ['keyId', 'algorithm', 'issuer', 'subject', 'audience', 'claims', 'lifetime', 'skew'],
  },
  sigv4: { needs: ['accessKeyId', 'secretAccessKey', 'region', 'service'], takes: ['sessionToken'] },
} as const satisfies Record<string, { needs: readonly string[]; takes: readonly string[] }>

export type CredentialType = keyof typeof CREDENTIAL_TYPES

/** Fields that every type may have. */
export const COMMON_CREDENTIAL_FIELDS = ['type', 'expires', 'next', 'canary', 'name'] as const

const FIELDS = {
  type: Type.Optional(
    Type.Enum(Object.keys(CREDENTIAL_TYPES) as [CredentialType, ...CredentialType[]], {
      description:
        'How the account is proven: header (default), bearer and basic as Authorization, query as a parameter of the URL, oauth2 by a token that the gateway obtains with client credentials, jwt by a token that the gateway signs, sigv4 by a signature of each request for AWS.',
    }),
  ),
  header: Type.Optional(
    addedHeader('The request header that carries the credential. Default: the upstream’s credentialHeader.'),
  ),
  value: Type.Optional(
    secret(
      'The value of the header (with any text around it, such as "Token ${env:NAME}"), the bearer token, or the value of the parameter; write a reference rather than the secret itself.',
    ),
  ),
  username: Type.Optional(
    hidden(Type.String({ pattern: '^[^:]*$', expected: 'a text without ":"', description: 'For basic.' })),
  ),
  password: Type.Optional(secret('For basic.')),
  parameter: Type.Optional(
    queryParameter('For query: the parameter of the URL. What a client sends under this name is dropped.'),
  ),
  tokenUrl: Type.Optional(
    url('an http:// or https:// URL without user or fragment', {
      pattern: '^https?://[^\\s\\\\/?#@]+(/[^\\s\\\\#]*)?$',
      description: 'For oauth2: the token endpoint. The `proxy` of the upstream does not lead to it.',
    }),
  ),
  clientId: Type.Optional(secret('For oauth2.')),
  clientSecret: Type.Optional(secret('For oauth2, unless key proves the client.')),
  clientAuth: Type.Optional(
    Type.Enum(['basic', 'post'], {
      description: 'For oauth2: whether the client secret goes in the Authorization header (default) or in the body.',
    }),
  ),
  scopes: Type.Optional(Type.Array(Type.String({ minLength: 1 }), { minItems: 1, description: 'For oauth2.' })),
  audience: Type.Optional(text('For oauth2 a parameter of the request, for jwt its claim aud.')),
  parameters: Type.Optional(
    Type.Record(Type.String(), Type.String(), {
      description: 'For oauth2: what else the token endpoint wants, such as resource.',
    }),
  ),
  key: Type.Optional(
    secret('PEM of the private key that signs the token (jwt), or proves the client to the token endpoint (oauth2).'),
  ),
  keyId: Type.Optional(text('The id of `key`: the kid of what it signs.')),
  algorithm: Type.Optional(
    Type.Enum(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA'], {
      description: 'What `key` signs with. Default: RS256, EdDSA, or what its curve needs.',
    }),
  ),
  issuer: Type.Optional(
    text('For jwt its claim iss; for oauth2 with a key the aud of the client’s assertion. Default: tokenUrl.'),
  ),
  subject: Type.Optional(text('For jwt: its claim sub.')),
  claims: Type.Optional(Type.Record(Type.String(), Type.Unknown(), { description: 'For jwt: further claims.' })),
  lifetime: Type.Optional(duration('For jwt: how long each token is valid. Default: 5m.', { min: '10s', max: '24h' })),
  skew: Type.Optional(
    duration('How long before its end a token is renewed, but not before half of its life. Default: 30s.', {
      min: '0s',
    }),
  ),
  accessKeyId: Type.Optional(
    hidden(Type.String({ pattern: '^\\w{16,128}$', expected: 'an access key id', description: 'For sigv4.' })),
  ),
  secretAccessKey: Type.Optional(secret('For sigv4.')),
  sessionToken: Type.Optional(secret('For sigv4, with temporary credentials.')),
  region: Type.Optional(
    Type.String({ pattern: '^[a-z0-9-]+$', expected: 'a region', description: 'For sigv4, such as eu-west-1.' }),
  ),
  service: Type.Optional(
    Type.String({
      pattern: '^[a-z0-9-]+$',
      expected: 'a service',
      description: 'For sigv4: its signing name, such as s3 or execute-api.',
    }),
  ),
  expires: Type.Optional(
    moment(
      'When the vendor stops taking it, if that is known: shown as a metric, with an alert before. A day alone is its end, in UTC.',
    ),
  ),
}

export const CredentialSchema = object(
  {
    ...FIELDS,
    next: Type.Optional(
      object(FIELDS, {
        description: 'The credential that is to follow: it gets a part of the calls, and none once it is refused.',
      }),
    ),
    canary: Type.Optional(
      percent(
        'Part of the calls that the next credential gets, also one that `credentials rotate` put into the store. Default: 5%.',
      ),
    ),
  },
  { description: 'How the account is proven to the upstream. Default: its calls go without a credential.' },
)

/** A member of a pool. It has no `next`: to rotate, a member is added and another removed. */
export const PoolMemberSchema = object({
  name: name({ description: 'By which logs and limits with scope: credential tell it from the others.' }),
  ...FIELDS,
})

export const PoolSchema = object(
  {
    choose: Type.Optional(
      Type.Enum(['expires-first', 'least-used', 'round-robin'], {
        description:
          'Of those that can serve the call now: the one whose unused quota comes back soonest (default), the one with the fewest calls in flight, or each in turn.',
      }),
    ),
    affinity: Type.Optional(
      object(
        {
          header: Type.Optional(
            headerName(
              'The request header whose value names the conversation. Default: X-Sluice-Session, which never goes upstream; any other goes there as the client sent it.',
            ),
          ),
          maxWait: Type.Optional(
            duration(
              'So long a call waits for the quota of its conversation’s credential before another one serves it. Default: 5s.',
              { min: '0s' },
            ),
          ),
        },
        {
          description:
            'Keeps the calls of one conversation on one credential, at all gateways. Default: it is not kept.',
        },
      ),
    ),
    quarantine: Type.Optional(
      duration(
        'How long one that was answered 401, 403 or 429 is left out; with a Retry-After, that long, at most throttle.maxPause. Default: 60s.',
      ),
    ),
  },
  { description: 'How one of several credentials is chosen.' },
)

const VaultSchema = object(
  {
    url: httpUrl('Address of the server.'),
    token: Type.Optional(secret('A token; instead of an AppRole. It is renewed if it can be.')),
    roleId: Type.Optional(secret('role_id of an AppRole.')),
    secretId: Type.Optional(secret('Its secret_id, which must be good for more than one log-in.')),
    approlePath: Type.String({ default: 'approle', description: 'Where the AppRole method is mounted.' }),
    namespace: Type.Optional(text('Namespace, with Vault Enterprise.')),
    refresh: duration('How often secrets are asked for again.', { default: '60s', min: '1s' }),
    ca: Type.Optional(Type.String({ description: 'PEM of the authorities to trust instead of the system’s.' })),
  },
  { description: 'HashiCorp Vault, key/value engine version 2: where ${vault:MOUNT/PATH#FIELD} comes from.' },
)

export const SecretsSchema = object(
  {
    key: Type.Optional(
      secret('Master key of the store: 32 random bytes in Base64 or hex, such as `openssl rand -base64 32` prints.'),
    ),
    oldKeys: Type.Optional(
      Type.Array(secret('A master key.'), {
        description: 'Master keys that still open what was sealed with them, until `credentials rotate --key`.',
      }),
    ),
    file: Type.Optional(
      text(
        'File of the store, from the folder that the gateway is started in. Default: secrets.json in store.dir; with Redis, the store is there instead.',
      ),
    ),
    vault: Type.Optional(VaultSchema),
  },
  {
    default: {},
    description: 'Where ${secret:NAME}, of the store that `credentials set` fills, and ${vault:…} come from.',
  },
)
