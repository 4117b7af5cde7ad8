import * as oauth from 'oauth4webapi'
import type { Clock } from '../time/clock.ts'
import type { CredentialConfig } from '../schema/schema.ts'
import { codeOf } from '../upstream/error-code.ts'
import { importSigningKey } from './signing-key.ts'
import type { Token } from './token-keeper.ts'

/** How long to wait for the token endpoint. */
const ANSWER_WITHIN_MS = 10_000
/** The form of an error code (RFC 6749 §5.2). An endpoint may repeat what it was sent, so nothing else is passed on. */
const ERROR_CODE = /^[a-z_]{1,64}$/
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
  const authentication = await authenticationOf(config)
  const requestedAt = clock.now()
  try {
    const response = await oauth.clientCredentialsGrantRequest(server, client, authentication, parametersOf(config), {
      signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
      // The configuration says where; `check` warns of a plain one.
      [oauth.allowInsecureRequests]: tokenUrl.protocol === 'http:',
    })
    const { text, lifetimeMs } = await readToken(response)
    // An endpoint that repeats its token until the end says 0 in the last second of it, and it is still good.
    const leastMs = clock.now() - requestedAt + LEAST_LIFETIME_MS
    return tokenOf(text, requestedAt, Math.max(lifetimeMs, leastMs), config.skew)
  } catch (error) {
    const message = `the token endpoint ${whatFailed(error)}`
    throw isAway(error) ? new TokenEndpointAwayError(message, { cause: error }) : new Error(message, { cause: error })
  }
}

/** An answer that is no token; its message holds nothing that the endpoint says in its own words. */
class NoTokenError extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

/** The endpoint gave no token, and that is not for what proves the client: it is away, ails, or is asked too often. */
export class TokenEndpointAwayError extends Error {}

/** Of 4xx, what says nothing of the request. */
const PASSING = new Set([408, 425, 429])

function isAway(error: unknown): boolean {
  return !(error instanceof NoTokenError) || error.status >= 500 || PASSING.has(error.status)
}

/**
 * The token in an answer (RFC 6749 §5.1), taken leniently: any 2xx will do, `token_type` may be missing, and fields of which
 * nothing is needed here (`scope`, `refresh_token`, `id_token`) may hold anything. Not by the library, which is strict, and of
 * a 401 with a challenge, as every refused client gets it (§5.2), tells the challenge instead of the error.
 */
async function readToken(response: Response): Promise<{ text: string; lifetimeMs: number }> {
  const { access_token: text, token_type: type, expires_in: expiresIn, error } = fieldsIn(await response.text())
  if (!response.ok || typeof text !== 'string' || !/^[\x21-\x7e]+$/.test(text)) {
    const code = typeof error === 'string' && ERROR_CODE.test(error) ? error : 'and no token'
    throw new NoTokenError(response.status, `answered ${response.status} ${code}`)
  }
  // Sent as a bearer, a token of another type would be refused, or believed without its proof.
  if (typeof type === 'string' && !/^\s*(?:bearer(?:token)?\s*)?$/i.test(type)) {
    throw new NoTokenError(response.status, 'answered with a token of another type than Bearer')
  }
  return { text, lifetimeMs: lifetimeOf(expiresIn) }
}

/** None where it is no JSON object. */
function fieldsIn(json: string): Record<string, unknown> {
  try {
    return (JSON.parse(json) ?? {}) as Record<string, unknown>
  } catch {
    return {}
  }
}

/** Of a number, or a text that is one; anything else tells nothing. */
function lifetimeOf(expiresIn: unknown): number {
  const seconds = typeof expiresIn === 'string' && expiresIn.trim() !== '' ? Number(expiresIn) : expiresIn
  if (typeof seconds !== 'number' || !Number.isFinite(seconds) || seconds < 0) return USUAL_LIFETIME_MS
  return Math.min(seconds * 1_000, MOST_LIFETIME_MS)
}

/** How long a token that was just given is good for at least. */
const LEAST_LIFETIME_MS = 1_000
/** An end that is further away than a year is not meant. */
const MOST_LIFETIME_MS = 365 * 86_400_000

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

function whatFailed(error: unknown): string {
  if (error instanceof NoTokenError) return error.message
  const { name, cause } = error as Error
  if (name === 'TimeoutError') return `did not answer within ${ANSWER_WITHIN_MS} ms`
  const code = codeOf(cause)
  return code === '' ? 'gave no answer that is a token' : `could not be reached${code}`
}
