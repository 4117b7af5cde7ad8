import { createRequire } from 'node:module'
import type * as OAuth from 'oauth4webapi'
import type { Clock } from '../time/clock.ts'
import { isObject, parsedJson } from '../schema/json.ts'
import type { CredentialConfig } from '../schema/schema.ts'
import { codeOf } from '../upstream/error-code.ts'
import { isMalformed } from '../upstream/malformed.ts'
import { importSigningKey } from './signing-key.ts'
import type { Token } from './token-keeper.ts'

/** How long the token endpoint may take to answer. */
const ANSWER_WITHIN_MS = 10_000
/**
 * The form of an error code (RFC 6749 §5.2). Nothing else of an answer is repeated in errors, because the answer may
 * contain the secret that was sent.
 */
const ERROR_CODE = /^[a-z_]{1,64}$/
/** The lifetime of a token whose answer does not state one. */
const USUAL_LIFETIME_MS = 300_000

/**
 * Gets a token by the client credentials grant (RFC 6749 §4.4). The client authenticates by its secret, or by a JWT
 * that it signs (RFC 7523). Redirects are not followed. Errors contain the endpoint's error code and nothing else of
 * its answer.
 */
export async function requestToken(config: CredentialConfig, clock: Clock): Promise<Token> {
  const tokenUrl = new URL(config.tokenUrl!)
  const server: OAuth.AuthorizationServer = { issuer: config.issuer ?? tokenUrl.href, token_endpoint: tokenUrl.href }
  const client: OAuth.Client = { client_id: config.clientId!.reveal() }
  // Loaded only here, so that a gateway without such credentials does not load it.
  const oauth = createRequire(import.meta.url)('oauth4webapi') as typeof OAuth
  const authentication = await authenticationOf(config, oauth)
  const requestedAt = clock.now()
  try {
    const response = await oauth.clientCredentialsGrantRequest(server, client, authentication, parametersOf(config), {
      signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
      // The configuration chose the URL; `check` warns of http.
      [oauth.allowInsecureRequests]: tokenUrl.protocol === 'http:',
    })
    const { text, lifetimeMs } = await readToken(response)
    // Some endpoints return the same token until it expires, and state a lifetime of 0 in its last second. It still
    // works then.
    const leastMs = clock.now() - requestedAt + LEAST_LIFETIME_MS
    return tokenOf(text, requestedAt, Math.max(lifetimeMs, leastMs), config.skew)
  } catch (error) {
    const message = `the token endpoint ${whatFailed(error)}`
    throw isAway(error) ? new TokenEndpointAwayError(message, { cause: error }) : new Error(message, { cause: error })
  }
}

/** The endpoint's answer is no token. The message contains none of the endpoint's own words. */
class NoTokenError extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

/** The endpoint is down, failing, or asked too often. The credential that asked is not to blame. */
export class TokenEndpointAwayError extends Error {}

/** The 4xx statuses that say nothing about the request itself. */
const PASSING = new Set([408, 425, 429])

function isAway(error: unknown): boolean {
  return !(error instanceof NoTokenError) || error.status >= 500 || PASSING.has(error.status)
}

/**
 * Reads the token in an answer (RFC 6749 §5.1) leniently: any 2xx is accepted, `token_type` may be missing, and
 * `scope`, `refresh_token` and `id_token` may hold anything. The library's own function is too strict for that. For a
 * 401 with a challenge, which every refused client gets (§5.2), it would also report the challenge and not the error.
 */
async function readToken(response: Response): Promise<{ text: string; lifetimeMs: number }> {
  const content = parsedJson(await response.text())
  const { access_token: text, token_type: type, expires_in: expiresIn, error } = isObject(content) ? content : {}
  if (!response.ok || typeof text !== 'string' || !/^[\x21-\x7e]+$/.test(text)) {
    const code = typeof error === 'string' && ERROR_CODE.test(error) ? error : 'and no token'
    throw new NoTokenError(response.status, `answered ${response.status} ${code}`)
  }
  // As a bearer token, a token of another type would be refused, or accepted without the proof that its type demands.
  if (typeof type === 'string' && !/^\s*(?:bearer(?:token)?\s*)?$/i.test(type)) {
    throw new NoTokenError(response.status, 'answered with a token of another type than Bearer')
  }
  return { text, lifetimeMs: lifetimeOf(expiresIn) }
}

/** Reads a lifetime, which may be a number or a text. Anything else counts as not stated. */
function lifetimeOf(expiresIn: unknown): number {
  const seconds = typeof expiresIn === 'string' && expiresIn.trim() !== '' ? Number(expiresIn) : expiresIn
  if (typeof seconds !== 'number' || !Number.isFinite(seconds) || seconds < 0) return USUAL_LIFETIME_MS
  return Math.min(seconds * 1_000, MOST_LIFETIME_MS)
}

/** The shortest lifetime that a new token is assumed to have. */
const LEAST_LIFETIME_MS = 1_000
/** A lifetime above a year is a mistake of the endpoint. */
const MOST_LIFETIME_MS = 365 * 86_400_000

const USUAL_SKEW_MS = 30_000

/** A token that is renewed `skewMs` before it expires, but not before half of its lifetime. */
export function tokenOf(
  text: string,
  issuedAt: number,
  lifetimeMs: number,
  skewMs = USUAL_SKEW_MS,
): Omit<Token, 'wallAheadMs'> {
  const expiresAt = issuedAt + lifetimeMs
  return { text, expiresAt, renewAt: expiresAt - Math.min(skewMs, lifetimeMs / 2) }
}

async function authenticationOf(config: CredentialConfig, oauth: typeof OAuth): Promise<OAuth.ClientAuth> {
  if (config.key !== undefined) {
    const key = await importSigningKey(config.key, config.algorithm)
    return oauth.PrivateKeyJwt(config.keyId === undefined ? key : { key, kid: config.keyId })
  }
  const secret = config.clientSecret!.reveal()
  return config.clientAuth === 'post' ? oauth.ClientSecretPost(secret) : clientSecretBasic(secret)
}

/**
 * Encodes the client's id and secret like a form (RFC 6749 §2.3.1), but only the characters that need it. The library
 * also encodes "-", "." and "_". Many endpoints do not decode id and secret, and would see another secret then.
 */
function clientSecretBasic(secret: string): OAuth.ClientAuth {
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
  if (isMalformed(cause)) return `gave an answer that is no well-formed HTTP${code}`
  return code === '' ? 'gave no answer that is a token' : `could not be reached${code}`
}
