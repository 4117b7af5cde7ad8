import Type from 'typebox'
import { addedHeader, object, secret } from './schema-parts.ts'

/** Which fields a type of credential needs, and which it may have besides; all others belong to other types. */
export const CREDENTIAL_TYPES = {
  header: { needs: ['value'], takes: ['header'] },
  bearer: { needs: ['value'], takes: [] },
  basic: { needs: ['username', 'password'], takes: [] },
  query: { needs: ['parameter', 'value'], takes: [] },
} as const satisfies Record<string, { needs: readonly string[]; takes: readonly string[] }>

export type CredentialType = keyof typeof CREDENTIAL_TYPES

/** What every type may have. */
export const COMMON_CREDENTIAL_FIELDS = ['type', 'expires'] as const

const FIELDS = {
  type: Type.Optional(
    Type.Enum(Object.keys(CREDENTIAL_TYPES) as [CredentialType, ...CredentialType[]], {
      description:
        'How the account is proven: header (default), bearer and basic as Authorization, query as a parameter of the URL.',
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
    Type.String({ pattern: '^[^:]*$', expected: 'a text without ":"', description: 'For basic.' }),
  ),
  password: Type.Optional(secret('For basic.')),
  parameter: Type.Optional(
    Type.String({
      pattern: '^[A-Za-z0-9._~-]+$',
      expected: 'a name of letters, digits, ".", "_", "~" and "-"',
      description: 'For query: the parameter of the URL. What a client sends under this name is dropped.',
    }),
  ),
  expires: Type.Optional(
    Type.Refine(
      Type.String({
        pattern: '^\\d{4}-\\d{2}-\\d{2}(T.+)?$',
        expected: 'a date such as 2027-01-31, or 2027-01-31T12:00:00Z',
        description: 'When the vendor stops taking it, if that is known: shown as a metric, with an alert before.',
      }),
      (text) => !Number.isNaN(Date.parse(text)),
      () => 'must be a date such as 2027-01-31, or 2027-01-31T12:00:00Z',
    ),
  ),
}

export const CredentialSchema = object({
  ...FIELDS,
})

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
      Type.String({
        minLength: 1,
        description: 'File of the store. Default: secrets.json in store.dir; with Redis, the store is there instead.',
      }),
    ),
  },
  { default: {}, description: 'Where ${secret:NAME} comes from: a store that `credentials set` fills.' },
)
