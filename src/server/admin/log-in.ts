import { hash, timingSafeEqual } from 'node:crypto'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Actor } from '../../audit/audit.ts'
import type { GuessGuard } from '../../clients/guess-guard.ts'
import { hashKey } from '../../clients/keys.ts'
import { whyNoHeaderValue } from '../../http/fields.ts'
import { isLoopback } from '../../net/address.ts'
import { retryAfterSeconds } from '../../http/retry-after.ts'
import type { Config } from '../../schema/schema.ts'
import type { Secret } from '../../schema/secret.ts'
import type { AddressOf } from '../client-address.ts'
import { AdminProblem } from './problem.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Who makes a request to the admin API. */
    actor: Actor
  }
}

/** Admits a request only with a token. If no token is configured, it admits programs of this machine and nobody else. */
export function wantLogIn(
  api: FastifyInstance,
  tokens: readonly Token[],
  { guard, addressOf }: { guard: GuessGuard; addressOf: AddressOf },
): void {
  api.decorateRequest('actor', undefined as unknown as Actor)
  api.addHook('onRequest', async (request, reply) => {
    const address = addressOf(request.raw) ?? 'unknown'
    if (tokens.length === 0) {
      request.actor = { actor: programOfThisMachine(request), address }
      return
    }
    const token = request.headers.authorization?.replace(/^bearer +/i, '') ?? ''
    const { owner: actor, blockedMs } = await ownerOfToken(token, tokens, { guard, address })
    if (blockedMs > 0) {
      reply.header('Retry-After', retryAfterSeconds(blockedMs))
      throw new AdminProblem(429, 'TOO_MANY_ATTEMPTS', 'too many wrong tokens came from this address')
    }
    if (actor === undefined) {
      reply.header('WWW-Authenticate', 'Bearer realm="sluice-admin"')
      throw new AdminProblem(401, 'INVALID_TOKEN', 'this needs an admin token, as Authorization: Bearer')
    }
    request.actor = { actor, address }
  })
}

/** The owner of the token that a request presents, and for how long its address is blocked. */
export async function ownerOfToken(
  token: string,
  tokens: readonly Token[],
  { guard, address }: { guard: GuessGuard; address: string },
): Promise<{ owner: string | undefined; blockedMs: number }> {
  const blockedMs = guard.blockedMs(address)
  // A blocked address learns nothing: its token is not compared at all, so that the right one is refused too.
  if (blockedMs > 0) return { owner: undefined, blockedMs }
  const owner = ownerOf(token, tokens)
  if (owner !== undefined || token === '') return { owner, blockedMs: 0 }
  return { owner: undefined, blockedMs: await guard.count(address, hashKey(token)) }
}

export interface Token {
  /** Whose it is. */
  readonly label: string
  readonly secret: Secret
}

/** A hash of its value at this moment: a token that gets a new one, and each session that was begun with it, ends at once. */
export function digestOf({ secret }: Token): Buffer {
  return hash('sha256', secret.reveal(), 'buffer')
}

/** The tokens for everything below `/v1`. */
export function adminTokens({ token, tokens }: Config['admin']): Token[] {
  return [
    ...(token === undefined ? [] : [tokenOf('admin', token)]),
    ...Object.entries(tokens).map(([label, secret]) => tokenOf(label, secret)),
  ]
}

/** The tokens for `/metrics`: undefined while it is open to all. */
export function metricsTokens(admin: Config['admin']): Token[] | undefined {
  const { metricsToken } = admin
  return metricsToken && [...adminTokens(admin), tokenOf('metrics', metricsToken)]
}

function tokenOf(label: string, secret: Secret): Token {
  secret.whyNot = whyNoHeaderValue
  return { label, secret }
}

/** Compares with every token, by hashes of one length in constant time. The time that it takes tells nothing about the tokens. */
function ownerOf(token: string, tokens: readonly Token[]): string | undefined {
  const digest = hash('sha256', token, 'buffer')
  let owner: string | undefined
  for (const known of tokens) if (timingSafeEqual(digestOf(known), digest)) owner = known.label
  return owner
}

/**
 * Refuses what a browser says that it sends for a page of another site. It may be a link that somebody follows: then the other page
 * does not see the answer.
 */
export function refuseWebPages({ headers }: FastifyRequest): void {
  const site = headers['sec-fetch-site']
  const isOwn =
    site === undefined || site === 'none' || site === 'same-origin' || headers['sec-fetch-mode'] === 'navigate'
  if (headers.origin === undefined && isOwn) return
  throw new AdminProblem(403, 'ACCESS_DENIED', 'this answers no web pages: ask by a program, or open it in a browser')
}

/**
 * Refuses what a browser sent for a web page. Such a page may send requests with its own Origin, or under a name of its
 * own that resolves to 127.0.0.1. They come from this machine, but must not count as requests of its programs. `lacking` is the
 * setting that would let others ask, too.
 */
export function programOfThisMachine(request: FastifyRequest, lacking = 'admin.token'): string {
  refuseWebPages(request)
  const host = request.headers.host?.replace(/:\d+$/, '') ?? ''
  if (!isLoopback(host)) {
    throw new AdminProblem(
      403,
      'ACCESS_DENIED',
      `without ${lacking} this is for programs that call it by 127.0.0.1 or localhost`,
    )
  }
  return 'anonymous'
}
