import type { IncomingMessage } from 'node:http'
import { startUpstream } from './gateway.ts'

export interface TokenRequest {
  readonly authorization: string | undefined
  readonly parameters: URLSearchParams
}

export interface TokenServer {
  readonly url: string
  /** Every request so far. */
  readonly requests: readonly TokenRequest[]
  /** The tokens that it has given, the newest last. */
  readonly issued: readonly string[]
  /** While false it answers 503. */
  isUp: boolean
  /** While it is there, answers wait for it. */
  hold: Promise<void> | undefined
  /** What it answers besides the token, or instead of it. */
  extra: object
  status: number
  headers: Record<string, string>
}

/** A token endpoint for client credentials (RFC 6749 §4.4) on a free port; each token is another one. */
export async function startTokenServer(expiresIn: number | undefined = 60): Promise<TokenServer> {
  const requests: TokenRequest[] = []
  const issued: string[] = []
  const server: TokenServer = {
    url: '',
    requests,
    issued,
    isUp: true,
    hold: undefined,
    extra: {},
    status: 200,
    headers: {},
  }
  const { url } = await startUpstream(async ({ headers, body }, response) => {
    requests.push({ authorization: headers.authorization, parameters: new URLSearchParams(body) })
    await server.hold
    response.setHeader('content-type', 'application/json')
    if (!server.isUp) return response.writeHead(503).end('{"error":"temporarily_unavailable"}')
    const token = `token-${issued.length + 1}-secret`
    issued.push(token)
    return response
      .writeHead(server.status, server.headers)
      .end(JSON.stringify({ access_token: token, token_type: 'Bearer', expires_in: expiresIn, ...server.extra }))
  })
  return Object.assign(server, { url: `${url}/token` })
}

/** The token that a request brings. */
export function bearerOf(headers: IncomingMessage['headers']): string | undefined {
  return /^Bearer (.*)$/.exec(headers.authorization ?? '')?.[1]
}
