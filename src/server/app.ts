/*
 * src/server: the port for clients: listeners, TLS, HTTP/2, upgrades and refusals.
 * It imports what .oxlintrc.ts lists, and hands each call to gateway.
 * A change here must prove itself with real sockets: broken, slow and hostile ones (test/server, test/system).
 */

import type { Socket } from 'node:net'
import { createSecureContext, Server as TlsServer, type TlsOptions } from 'node:tls'
import { httpProxy } from '../packages/http-proxy.ts'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { METHODS } from '../http/node-http.ts'
import { Failure } from '../gateway/failure.ts'
import { proxiedOn } from '../gateway/proxied.ts'
import type { Config, ListenerTls } from '../schema/schema.ts'
import { takeProxyHeaders } from './balanced.ts'
import { isTrusted } from './client-address.ts'
import { boundConnections, closeWithServer } from './connections.ts'
import { addHttp2 } from './http2.ts'
import { NO_SCHEMAS } from './no-schemas.ts'
import type { Proxy } from './proxy.ts'
import { isProxyHeader } from './proxy-protocol.ts'
import { HEAD_TOO_LARGE } from './well-formed.ts'
import { ExactResponse } from './response.ts'
import { asksForWebSocket, type ConnectListener, refuseConnect, takeUpgrades } from './upgrade.ts'

/** The longest time between two searches for connections whose head takes too long. */
const LOOK_AT_HEADS_MS = 5_000
/**
 * How long an idle connection stays open. Load balancers usually keep it for less, so that they close it first and never send a
 * call on a closed one.
 */
const KEEP_ALIVE_MS = 75_000

/**
 * Makes the server for clients, or the forward proxy if `onConnect` is given. Every request is proxy traffic, which
 * `@fastify/http-proxy` hands to `proxy`.
 */
export function buildApp(proxy: Proxy, server: Config['server'], onConnect?: ConnectListener): FastifyInstance {
  const app = fastifyFor(proxy, server)
  const methods = METHODS.filter((method) => method !== 'CONNECT')
  // Fastify must not expect a body with any method: it would refuse content types that it does not know.
  for (const method of methods) app.addHttpMethod(method, { hasBody: false, overrideExisting: true })
  app.setErrorHandler((error, request, reply) => refuseRequest(proxy, request, reply, error))
  // Without this listener Node would send 100 Continue at once. The call sends it when it is admitted and needs its body.
  app.server.on('checkContinue', (request, response) => app.server.emit('request', request, response))
  app.server.on('checkExpectation', (request, response) => {
    const message = 'of the values of Expect only 100-continue is understood'
    void proxy.serve(request, response, new Failure('invalid_request', message))
  })
  takeUpgrades(app.server, proxy, onConnect)
  addConnectionLayers(app, proxy, server)
  closeWithServer(app.server)
  app.register(httpProxy, {
    // The plugin demands a URL and never uses it. It only provides the routes; the gateway decides where a call goes.
    upstream: 'http://upstream.invalid',
    preRewrite: () => '/',
    httpMethods: methods,
    proxyPayloads: false,
    // With `undici: false` the plugin makes no HTTP client of its own. Its type does not allow this value.
    ...({ undici: false } as object),
    // The call is served here, before the plugin's handler. That would parse three URLs to check the path made up above.
    preHandler(request, reply) {
      reply.hijack()
      void proxy.serve(request.raw, reply.raw)
    },
  })
  return app
}

function fastifyFor(proxy: Proxy, { maxHeaderBytes, headTimeout, tls, http2 }: Config['server']): FastifyInstance {
  const http = {
    maxHeaderSize: maxHeaderBytes,
    requireHostHeader: false, // refused in our own words
    headersTimeout: headTimeout,
    requestTimeout: 0, // Node's default would bound uploads
    shouldUpgradeCallback: asksForWebSocket,
    ServerResponse: ExactResponse,
    // A request that declares no body then emits neither "data" nor "end". These events would cost several steps of each call.
    optimizeEmptyRequests: true,
    // By default Node checks only every 30 seconds, so a slow head could take that much longer than `headTimeout`.
    connectionsCheckingInterval: Math.min(headTimeout / 2, LOOK_AT_HEADS_MS),
  }
  return Fastify({
    logger: false,
    return503OnClosing: false, // a drain serves what is accepted
    forceCloseConnections: false,
    requestTimeout: 0, // uploads take as long as they move; the body has its own idle time
    keepAliveTimeout: KEEP_ALIVE_MS,
    exposeHeadRoutes: false,
    schemaController: NO_SCHEMAS,
    ...(tls === undefined ? { http } : { https: { ...http, ...secureOptions(tls, http2) } }),
    // The router has one route and nothing to find: the gateway reads the request target itself.
    rewriteUrl: () => '/',
    clientErrorHandler: (error, socket) => refuseConnection(proxy, error, socket),
  })
}

/** Adds the layers between a connection and HTTP/1.1: HTTP/2, the bound for each address, and the PROXY protocol. */
function addConnectionLayers(app: FastifyInstance, proxy: Proxy, server: Config['server']): void {
  const { maxHeaderBytes, headTimeout, connectionsPerAddress, trustedProxies } = server
  const isBalancer = isTrusted(trustedProxies)
  if (server.http2) {
    const sessions = addHttp2(app.server, {
      maxHeaderBytes,
      idleMs: KEEP_ALIVE_MS,
      headMs: headTimeout,
      onConnect: (request, response) => refuseConnect(proxy, request, response),
      onProtocolError: ({ message }, address) => proxy.noteLost(address, `the connection was no HTTP/2 (${message})`),
    })
    app.addHook('preClose', async () => sessions.close())
  }
  // Must come after HTTP/2, which takes over the listeners added so far and calls them only once bytes have come: it would hide
  // silent connections. Must come before the PROXY protocol, which sets the address to count before it calls its listeners.
  boundConnections(app.server, {
    most: connectionsPerAddress,
    isExempt: (socket) => isBalancer(socket.remoteAddress) || proxiedOn(socket)?.tunnel !== undefined,
    onSurplus: (address) => proxy.noteSurplus(address),
  })
  if (server.proxyProtocol) {
    takeProxyHeaders(app.server, {
      isTrusted: isBalancer,
      maxHeaderBytes,
      headMs: headTimeout,
      onInvalid: (address, why) => proxy.noteLost(address, `no header of the PROXY protocol came: ${why}`),
    })
  }
}

/** The options of TLS. The versions are Node's default: 1.2 and 1.3. */
function secureOptions({ cert, key, clientCa, requireClientCertificate }: ListenerTls, http2: boolean): TlsOptions {
  const options = { cert, key: key.reveal(), ALPNProtocols: http2 ? ['h2', 'http/1.1'] : ['http/1.1'] }
  if (clientCa === undefined) return options
  // A client whose certificate is not trusted may still identify itself by a key.
  return { ...options, ca: clientCa, requestCert: true, rejectUnauthorized: requireClientCertificate }
}

/**
 * Returns what takes the new certificate for connections that are made from then on. Open connections keep the old one. Throws if
 * the certificate can't be used.
 */
export function certificateTaker(app: FastifyInstance, { tls, http2 }: Config['server']): () => void {
  const server: object = app.server
  if (tls === undefined || !(server instanceof TlsServer)) return () => undefined
  const options = secureOptions(tls, http2)
  createSecureContext(options)
  return () => server.setSecureContext(options)
}

/** Refuses a request that the framework or the plugin refused, or for which it threw. */
function refuseRequest(proxy: Proxy, request: FastifyRequest, reply: FastifyReply, error: unknown): void {
  reply.hijack()
  void proxy.serve(request.raw, reply.raw, preRejectionOf(error))
}

function preRejectionOf(error: unknown): Failure | Error {
  const { statusCode = 500, code = 'unknown' } = (error ?? {}) as { statusCode?: number; code?: string }
  // The only route takes every path and every known method, so the method must be unknown.
  if (code === 'FST_ERR_NOT_FOUND') return new Failure('invalid_request', 'the method is none of HTTP')
  if (statusCode < 500) return new Failure('invalid_request', `the request can’t be taken as it is (${code})`)
  return error instanceof Error ? error : new Error('something other than an error was thrown', { cause: error })
}

/** `rawPacket` holds the bytes that were read last. */
type ClientError = Error & { readonly code?: string; readonly rawPacket?: unknown }

/** Refuses bytes that are no HTTP request, a head that is too large, and a head that does not come in time. */
function refuseConnection(proxy: Proxy, error: ClientError, socket: Socket): void {
  const { code = 'unknown' } = error
  // The rest of the head may be there. It is not read while too many requests wait.
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT' && proxy.isHeldBack(socket)) return
  // The TLS handshake failed, so that no answer can be sent.
  if (/^ERR_(?:SSL|TLS)_/.test(code)) {
    proxy.noteLost(socket.remoteAddress, `the client and the gateway agree on no TLS (${code})`)
    socket.destroy()
  } else if (socket.destroyed || code === 'ECONNRESET') {
    socket.destroy()
  } else {
    proxy.refuseConnection(socket, connectionFailure(error), code === 'HPE_INVALID_EOF_STATE')
  }
}

function connectionFailure({ code = 'unknown', rawPacket }: ClientError): Failure {
  const message = Buffer.isBuffer(rawPacket) && isProxyHeader(rawPacket) ? UNWANTED_HEADER : NOT_READABLE[code]
  return new Failure('invalid_request', message ?? `this is not a well-formed HTTP/1.1 request (${code})`)
}

const UNWANTED_HEADER =
  'a header of the PROXY protocol is read only with server.proxyProtocol: true, and from server.trustedProxies'

/** Messages that say more than the code of Node's parser. */
const NOT_READABLE: Readonly<Record<string, string>> = {
  HPE_HEADER_OVERFLOW: HEAD_TOO_LARGE,
  ERR_HTTP_REQUEST_TIMEOUT: 'the head of the request did not come within server.headTimeout',
  HPE_INVALID_METHOD: 'the request begins with none of the methods of HTTP (HPE_INVALID_METHOD)',
  HPE_PAUSED_H2_UPGRADE: 'this port speaks HTTP/2 only with server.http2: true (HPE_PAUSED_H2_UPGRADE)',
  HPE_INVALID_EOF_STATE: 'the request ended before it was complete (HPE_INVALID_EOF_STATE)',
}

/** How long connections without a call stay open during a drain: a client may already have sent a call. */
const DRAIN_GRACE_MS = 500
/** How long before the deadline of a drain waiting calls are refused, so that their clients get an answer in time. */
const LAST_WORDS_MS = 1_000

/**
 * Stops the ports of a gateway together, because their calls share `proxy`: while one port may still get a call, no wait may end. They
 * accept no new connections, answer every call that has come, and close each connection after its response. Connections without a call
 * stay open for a moment, because a client may already have sent a call. `deadlineMs` is in milliseconds from now. Shortly before it,
 * calls that still wait are refused. When it is reached, unfinished calls are broken off.
 */
export async function drainApps(apps: readonly FastifyInstance[], proxy: Proxy, deadlineMs: number): Promise<void> {
  // Node closes idle connections as soon as a server closes. Here they stay open for the grace below.
  const closeIdle = apps.map(({ server }) => server.closeIdleConnections.bind(server))
  for (const { server } of apps) server.closeIdleConnections = () => undefined
  const closed = Promise.all(apps.map((app) => app.close()))
  const deadline = pause(deadlineMs)
  const lastWords = setTimeout(
    () => proxy.refuseWaiting(),
    deadlineMs - Math.min(LAST_WORDS_MS, deadlineMs / 2),
  ).unref()
  const connections = await Promise.all(apps.map(connectionsOf))
  const grace = connections.some((count) => count > 0) ? pause(DRAIN_GRACE_MS) : undefined
  await Promise.race([Promise.all([proxy.drain(), grace]), deadline])
  for (const close of closeIdle) close()
  await Promise.race([proxy.drain(), deadline])
  clearTimeout(lastWords)
  // This also ends the work that no client waits for.
  proxy.refuseWaiting()
  proxy.breakOff()
  for (const { server } of apps) server.closeAllConnections()
  await closed
}

/** How many clients are connected. */
export function connectionsOf({ server }: FastifyInstance): Promise<number> {
  return new Promise((resolve) => server.getConnections((_, count) => resolve(count)))
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => void setTimeout(resolve, ms).unref())
}
