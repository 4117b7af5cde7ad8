import { hash } from 'node:crypto'
import type { Clock, Random } from '../time/clock.ts'
import type { CredentialConfig } from '../schema/schema.ts'
import { ofNewValue, whyNoLine } from '../http/fields.ts'
import type { Logger } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { Credential } from './credential.ts'
import { signToken } from './jwt.ts'
import { requestToken, TokenEndpointAwayError } from './oauth2.ts'
import { Secret, secretsIn } from '../schema/secret.ts'
import { SecretLook } from './secret-look.ts'
import { faultOfKey } from './signing-key.ts'
import { type SigV4Config, SigV4Credential } from './sigv4.ts'
import { BasicCredential, HeaderCredential, QueryCredential } from './static.ts'
import { type Token, TokenKeeper } from './token-keeper.ts'
import type { TokenShare } from './token-share.ts'

/** What the program provides to credentials. */
export interface CredentialServices {
  readonly clock: Clock
  readonly random: Random
  readonly metrics: Metrics
  readonly logger?: Logger
  /** Where instances share tokens; undefined if each gets its own. */
  readonly tokens?: TokenShare | undefined
}

/** The account that a credential belongs to. */
export interface CredentialPlace {
  readonly upstream: string
  readonly account: string
  /** The header in which the upstream takes its credential. */
  readonly header: string
  /** The host of its URL, with the port unless that is the default. */
  readonly host: string
}

/** Makes the credential that a configuration describes, which must have passed `checkCredentials`. */
export function buildCredential(
  place: CredentialPlace,
  config: CredentialConfig,
  services: CredentialServices,
): Credential {
  const { type = 'header', value } = config
  const { clock } = services
  const name = `${place.upstream}/${place.account}`
  const tokenCredential = (obtain: Obtain): Credential => {
    const look = new SecretLook(secretsIn(config), clock)
    return byToken(name, keepToken(place, config, services, look, obtain), look)
  }
  switch (type) {
    case 'header':
      return new HeaderCredential(name, value!, clock, config.header ?? place.header)
    case 'bearer':
      return new HeaderCredential(name, value!, clock, 'Authorization', 'Bearer ')
    case 'basic':
      return new BasicCredential(name, config.password!, clock, config.username!)
    case 'query':
      return new QueryCredential(name, value!, clock, config.parameter!)
    case 'oauth2':
      return tokenCredential((isWanted) => sharedToken(config, services, isWanted))
    case 'sigv4':
      return new SigV4Credential(name, { ...(config as SigV4Config), host: place.host, clock })
    case 'jwt':
      return tokenCredential(() => signToken(config, clock))
  }
}

/**
 * Returns a hash that is the same for all configurations that the vendor takes for one credential. It does not depend on
 * `expires`, `next` and `canary`. It reveals nothing of the secret.
 */
export function identityOf(config: CredentialConfig, defaultHeader: string): string {
  const { type = 'header', header = defaultHeader, expires: _, next: _next, canary: _share, ...rest } = config
  const fields: Record<string, unknown> = { ...rest, type, header: header.toLowerCase() }
  const names = Object.keys(fields).toSorted()
  const values = names.map((name) => {
    const value = fields[name]
    return value instanceof Secret ? value.reveal() : value
  })
  return hash('sha256', JSON.stringify([names, values]), 'hex')
}

/** A token that expires and is renewed, sent as `Authorization: Bearer` (RFC 6750 §2.1). */
function byToken(name: string, keeper: TokenKeeper, look: SecretLook): Credential {
  return {
    name,
    headerNames: ['authorization'],
    isRenewable: true,
    get version() {
      return keeper.version
    },
    get exposed() {
      return keeper.text ?? ''
    },
    ready: () => keeper.ready(),
    addTo: ({ headers }) => void headers.push('Authorization', `Bearer ${keeper.text}`),
    refused(status, version) {
      if (status !== 401 || !keeper.refused(version)) return false
      // The upstream may have refused the token because the secret behind it was replaced. So the secret is read again.
      if (version === keeper.version) look.begin()
      return true
    },
  }
}

type Obtain = (isWanted: (token: Token) => boolean) => Promise<Token>

function keepToken(
  { upstream, account }: CredentialPlace,
  config: CredentialConfig,
  { clock, random, metrics, logger }: CredentialServices,
  look: SecretLook,
  obtain: Obtain,
): TokenKeeper {
  const renewed = metrics.credentialRenewals.of({ upstream, account, result: 'ok' })
  const failed = metrics.credentialRenewals.of({ upstream, account, result: 'failed' })
  const keeper = new TokenKeeper({
    clock,
    random,
    look,
    obtain,
    onRenewal(error) {
      if (error === undefined) return renewed.increment()
      failed.increment()
      // The endpoint may refuse the secret because it was replaced. So the secret is read again.
      if (!(error instanceof TokenEndpointAwayError)) look.begin()
      const reason = error instanceof Error ? error.message : undefined
      logger?.warn({ credential: `${upstream}/${account}`, reason }, 'no new token could be had')
    },
  })
  const { key, algorithm } = config
  for (const secret of secretsIn(config)) {
    secret.whyNot = secret === key ? (pem) => ofNewValue(faultOfKey(pem, algorithm)?.message) : whyNoLine
    secret.onChange(() => keeper.renewSoon())
  }
  return keeper
}

function sharedToken(
  config: CredentialConfig,
  { clock, tokens }: CredentialServices,
  isWanted: (token: Token) => boolean,
): Promise<Token> {
  const issue = (): Promise<Token> => requestToken(config, clock)
  if (tokens === undefined) return issue()
  const key = (config.clientSecret ?? config.key!).reveal()
  return tokens.obtain({ identity: identityOf(config, ''), key }, isWanted, issue)
}
