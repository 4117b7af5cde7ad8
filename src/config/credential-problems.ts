import { faultOfHeaderValue, faultOfLine } from '../http/fields.ts'
import { COMMON_CREDENTIAL_FIELDS, CREDENTIAL_TYPES } from '../schema/credential-schema.ts'
import type { Path, Report } from './problem.ts'
import { Secret } from '../schema/secret.ts'
import { faultOfKey } from '../credentials/signing-key.ts'
import { parseMasterKey } from '../secrets/master-keys.ts'
import type { AccountConfig, CredentialConfig, SecretsConfig, UpstreamConfig } from '../schema/schema.ts'
import { checkAuthorities } from './tls-problems.ts'

/** Finds what a credential lacks, and what belongs to another type of credential. Never shows a value. */
function checkCredential(path: Path, credential: CredentialConfig, report: Report): void {
  const { type = 'header', value } = credential
  const { needs, takes }: { needs: readonly (keyof CredentialConfig)[]; takes: readonly string[] } =
    CREDENTIAL_TYPES[type]
  for (const key of needs) if (credential[key] === undefined) report([...path, key], `the key "${key}" is missing`)
  const known = new Set<string>([...needs, ...takes, ...COMMON_CREDENTIAL_FIELDS])
  for (const key of Object.keys(credential)) {
    if (!known.has(key)) report([...path, key], `${key} does not belong to a credential of type ${type}`)
  }
  const { sessionToken } = credential
  const inHeader = type === 'header' || type === 'bearer' ? { value } : { sessionToken }
  for (const [key, secret] of Object.entries(inHeader)) checkHeaderValue([...path, key], secret, report)
  checkKeys(path, credential, report)
  if (credential.next !== undefined) checkCredential([...path, 'next'], credential.next, report)
}

export function checkHeaderValue(path: Path, secret: Secret | undefined, report: Report): void {
  const fault = secret && faultOfHeaderValue(secret.reveal())
  if (fault !== undefined) report(path, fault)
}

/** Secrets that may have several lines, such as PEM, and URLs, of which a line end is no part. */
const OF_LINES = new Set<string | number | undefined>(['key', 'oldKeys', 'url', 'proxy'])

/** Finds line ends and other control characters in all secrets below a place. They come from files and from editors, and nothing takes them. */
export function checkLines(path: Path, value: unknown, report: Report): void {
  if (value instanceof Secret) {
    const fault = path.slice(-2).some((key) => OF_LINES.has(key)) ? undefined : faultOfLine(value.reveal())
    if (fault !== undefined) report(path, fault)
  } else if (Array.isArray(value)) {
    for (const [index, inner] of value.entries()) checkLines([...path, index], inner, report)
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, inner] of Object.entries(value)) checkLines([...path, key], inner, report)
  }
}

/** One credential, or a pool of them. */
export function checkCredentials(
  path: Path,
  { credential, credentials, pool }: Pick<AccountConfig, 'credential' | 'credentials' | 'pool'>,
  report: Report,
): void {
  if (credential !== undefined) checkCredential([...path, 'credential'], credential, report)
  if (credential !== undefined && credentials !== undefined) {
    report([...path, 'credentials'], 'only one of credential and credentials may be given')
  }
  if (credentials === undefined && pool !== undefined) report([...path, 'pool'], 'pool belongs to credentials')
  const names = new Set<string>()
  for (const [i, member] of (credentials ?? []).entries()) {
    const { name, ...config } = member
    checkCredential([...path, 'credentials', i], config, report)
    if (names.has(name)) report([...path, 'credentials', i, 'name'], 'another credential of the account has this name')
    names.add(name)
  }
}

/** Finds a header or a parameter that is to carry both the account's id and its credential. */
export function checkPlaceOfId(path: Path, upstream: UpstreamConfig, report: Report): void {
  const { accounts, accountHeader, accountQuery, credentialHeader, routes } = upstream
  const credentials = Object.values(accounts)
    .flatMap(({ credential, credentials }) => [credential ?? [], credentials ?? []].flat())
    .flatMap((one: CredentialConfig) => [one, one.next ?? []].flat())
  const headers = new Set([credentialHeader, ...credentials.flatMap(headersOf)].map((header) => header.toLowerCase()))
  if (routes.some(({ credential }) => credential === 'bearer')) headers.add('authorization')
  if (accountHeader !== undefined && headers.has(accountHeader.toLowerCase()))
    report([...path, 'accountHeader'], 'is a header of the credential, and can not carry both: name another one')
  if (credentials.some(({ parameter }) => parameter !== undefined && parameter === accountQuery?.name))
    report([...path, 'accountQuery', 'name'], 'is the parameter of the credential, and can not carry both')
}

function headersOf({ type = 'header', header }: CredentialConfig): readonly string[] {
  if (type === 'header') return header === undefined ? [] : [header]
  if (type === 'query') return []
  return type === 'sigv4' ? ['authorization', 'x-amz-date', 'x-amz-security-token'] : ['authorization']
}

function checkKeys(path: Path, { type, key, clientSecret, ...credential }: CredentialConfig, report: Report): void {
  if (type === 'oauth2' && (key === undefined) === (clientSecret === undefined)) {
    report([...path, 'clientSecret'], 'either clientSecret or key proves the client: one of them is needed')
  }
  for (const field of ['keyId', 'algorithm'] as const) {
    if (type === 'oauth2' && key === undefined && credential[field] !== undefined) {
      report([...path, field], `${field} belongs to key`)
    }
  }
  if (key === undefined) return
  if (credential.clientAuth !== undefined) report([...path, 'clientAuth'], 'clientAuth belongs to clientSecret')
  const fault = faultOfKey(key.reveal(), credential.algorithm)
  if (fault !== undefined) report([...path, fault.field], fault.message)
}

export function checkSecrets({ key, oldKeys = [], vault }: SecretsConfig, report: Report): void {
  if (vault !== undefined && (vault.token === undefined) === (vault.roleId === undefined)) {
    report(['secrets', 'vault', 'token'], 'either token or roleId says how to log in: one of them is needed')
  }
  if (vault?.token !== undefined && vault.secretId !== undefined) {
    report(['secrets', 'vault', 'secretId'], 'secretId belongs to roleId')
  }
  checkAuthorities(['secrets', 'vault', 'ca'], vault?.ca, report)
  const message = 'must be 32 bytes in Base64 or hex, such as `openssl rand -base64 32` prints'
  if (key !== undefined && !isMasterKey(key)) report(['secrets', 'key'], message)
  if (key === undefined && oldKeys.length > 0) report(['secrets', 'oldKeys'], 'without a key there are no older ones')
  for (const [i, old] of oldKeys.entries()) if (!isMasterKey(old)) report(['secrets', 'oldKeys', i], message)
}

function isMasterKey(key: Secret): boolean {
  return parseMasterKey(key.reveal()) !== undefined
}
