import { hash, timingSafeEqual } from 'node:crypto'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Actor } from '../../audit/audit.ts'
import { isLoopback } from '../../config/loopback.ts'
import type { Config } from '../../config/schema.ts'
import { AdminProblem } from './problem.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Who makes a request to the admin API. */
    actor: Actor
  }
}

/** Lets nobody in without a token; where none is configured, only programs of this machine. */
export function wantLogIn(api: FastifyInstance, admin: Config['admin']): void {
  const tokens = tokensOf(admin)
  api.decorateRequest('actor', undefined as unknown as Actor)
  api.addHook('onRequest', async (request, reply) => {
    const actor = tokens.length === 0 ? withoutToken(request) : ownerOf(request.headers.authorization, tokens)
    if (actor === undefined) {
      reply.header('WWW-Authenticate', 'Bearer realm="sluice-admin"')
      throw new AdminProblem(401, 'INVALID_TOKEN', 'this needs an admin token, as Authorization: Bearer')
    }
    request.actor = { actor, address: request.socket.remoteAddress ?? 'unknown' }
  })
}

interface Token {
  readonly label: string
  readonly digest: Buffer
}

function tokensOf({ token, tokens }: Config['admin']): Token[] {
  const all = [...(token === undefined ? [] : [['admin', token] as const]), ...Object.entries(tokens)]
  return all.map(([label, secret]) => ({ label, digest: hash('sha256', secret.reveal(), 'buffer') }))
}

/** Every token is compared, and hashes of one length in constant time: how long it takes tells nothing. */
function ownerOf(authorization: string | undefined, tokens: readonly Token[]): string | undefined {
  const digest = hash('sha256', authorization?.replace(/^bearer +/i, '') ?? '', 'buffer')
  let owner: string | undefined
  for (const token of tokens) if (timingSafeEqual(token.digest, digest)) owner = token.label
  return owner
}

/**
 * A web page may let a browser of this machine send requests here, under a name of its own that stands for 127.0.0.1 or
 * with its Origin: those are no programs of this machine.
 */
function withoutToken({ headers }: FastifyRequest): string {
  const host = headers.host?.replace(/:\d+$/, '') ?? ''
  if (headers.origin !== undefined || !isLoopback(host)) {
    throw new AdminProblem(
      403,
      'ACCESS_DENIED',
      'without admin.token this is for programs that call it by 127.0.0.1 or localhost',
    )
  }
  return 'anonymous'
}
