import * as oauth from 'oauth4webapi'
import type { Clock } from '../clock.ts'
import type { CredentialConfig } from '../config/schema.ts'
import { importSigningKey } from './signing-key.ts'
import type { Token } from './token-keeper.ts'

/** How long to wait for the token endpoint. */
const ANSWER_WITHIN_MS = 10_000
/** Of a token whose end the endpoint does not tell. */
const USUAL_LIFETIME_MS = 300_000

/**
 * Gets a token by the client credentials grant (RFC 6749 §4.4), where the client is proven by its secret or by a JWT that
 * it signs (RFC 7523). Redirects are not followed. Errors hold the endpoint's code, and nothing that it says besides.
 */
export async function requestToken(config: CredentialConfig, clock: Clock): Promise<Token> {
  const tokenUrl = new URL(config.tokenUrl!)
  const server: oauth.AuthorizationServer = { issuer: config.issuer ?? tokenUrl.href, token_endpoint: tokenUrl.href }
  const client: oauth.Client = { client_id: config.clientId! }
  const requestedAt = clock.now()
  try {
    const response = await oauth.clientCredentialsGrantRequest(
      server,
      client,
      await authenticationOf(config),
      parametersOf(config),
      {
        signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
        // The configuration says where; `check` warns of a plain one.
        [oauth.allowInsecureRequests]: tokenUrl.protocol === 'http:',
      },
    )
    const { access_token, expires_in } = await oauth.processClientCredentialsResponse(server, client, response)
    const lifetimeMs = expires_in === undefined ? USUAL_LIFETIME_MS : expires_in * 1_000
    return tokenOf(access_token, requestedAt, lifetimeMs, config.skew)
  } catch (error) {
    throw new Error(`the token endpoint ${whatFailed(error)}`, { cause: error })
  }
}

const USUAL_SKEW_MS = 30_000

/** Renewed that much earlier than it expires, but not before half of its life. */
export function tokenOf(
  text: string,
  issuedAt: number,
  lifetimeMs: number,
  skewMs = USUAL_SKEW_MS,
): Omit<Token, 'wallAheadMs'> {
  const expiresAt = issuedAt + lifetimeMs
  return { text, expiresAt, renewAt: expiresAt - Math.min(skewMs, lifetimeMs / 2) }
}

async function authenticationOf(config: CredentialConfig): Promise<oauth.ClientAuth> {
  if (config.key !== undefined) {
    const key = await importSigningKey(config.key, config.algorithm)
    return oauth.PrivateKeyJwt(config.keyId === undefined ? key : { key, kid: config.keyId })
  }
  const secret = config.clientSecret!.reveal()
  return config.clientAuth === 'post' ? oauth.ClientSecretPost(secret) : clientSecretBasic(secret)
}

/**
 * Encoded like a form (RFC 6749 §2.3.1), but only what must be: many endpoints do not decode, and for them the library's own,
 * which also encodes "-", "." and "_", would be another secret.
 */
function clientSecretBasic(secret: string): oauth.ClientAuth {
  return (_server, client, _body, headers) => {
    const pair = `${encodeForm(client.client_id)}:${encodeForm(secret)}`
    headers.set('authorization', `Basic ${Buffer.from(pair).toString('base64')}`)
  }
}

function encodeForm(text: string): string {
  return new URLSearchParams({ '': text }).toString().slice(1)
}

function parametersOf({ scopes, audience, parameters = {} }: CredentialConfig): URLSearchParams {
  const params = new URLSearchParams(parameters)
  if (scopes !== undefined) params.set('scope', scopes.join(' '))
  if (audience !== undefined) params.set('audience', audience)
  return params
}

/** An endpoint may repeat what it was sent, so only what has a fixed form is passed on. */
function whatFailed(error: unknown): string {
  if (error instanceof oauth.ResponseBodyError && /^[a-z_]{1,64}$/.test(error.error)) {
    return `answered ${error.status} ${error.error}`
  }
  const { name, cause } = error as Error
  if (name === 'TimeoutError') return `did not answer within ${ANSWER_WITHIN_MS} ms`
  if (cause instanceof Response) return `answered ${cause.status}, and no token`
  const code = (cause as { code?: unknown } | undefined)?.code
  return typeof code === 'string' ? `could not be reached (${code})` : 'gave no answer that is a token'
}
