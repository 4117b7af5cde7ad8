import type { IncomingMessage, ServerResponse } from 'node:http'
import type { LookupFunction, Socket } from 'node:net'
import { createServer as createTlsServer, type TLSSocket } from 'node:tls'
import type { FastifyInstance } from 'fastify'
import type { Client } from '../clients/client.ts'
import { accessOf, isAccessAllowed, isAddressAllowed, type NetworkAccess } from '../clients/network-access.ts'
import { readAbsoluteTarget } from '../gateway/absolute-target.ts'
import type { Tunnelling } from '../gateway/call.ts'
import { Failure, invalid, isFailure } from '../gateway/failure.ts'
import { DELIVERED, type Forwarded, GONE, refused } from '../gateway/forwarded.ts'
import { markProxied, proxiedOn, type Tunnelled } from '../gateway/proxied.ts'
import { withoutBrackets } from '../net/address.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { ForwardProxyConfig } from '../schema/forward-proxy-schema.ts'
import type { Config } from '../schema/schema.ts'
import { buildApp } from '../server/app.ts'
import { BACKLOG } from '../server/connections.ts'
import type { Proxy } from '../server/proxy.ts'
import { Roster } from '../time/roster.ts'
import type { Authority } from './authority.ts'
import { dial, type DialError, PassThrough } from './pass-through.ts'

export interface ForwardProxyOptions {
  readonly config: ForwardProxyConfig
  readonly server: Config['server']
  readonly proxy: Proxy
  readonly authority: Authority
  readonly metrics: Metrics
  /** Finds the addresses of hosts that are no upstreams. Default: as the system does. */
  readonly lookup?: LookupFunction | undefined
}

const ESTABLISHED = 'HTTP/1.1 200 Connection Established\r\n\r\n'
/** With what a handshake of TLS begins (RFC 8446 §5.1); no method of HTTP does. */
const HANDSHAKE = 0x16
/** How often it is logged, for each host, that a client does not trust the certificate. */
const SAY_EVERY_MS = 60_000

/**
 * The port for HTTPS_PROXY and HTTP_PROXY. In a tunnel to an upstream's host TLS is ended here, and the calls go the way of all
 * calls; a tunnel to another host is passed on unread, if the rules allow it.
 */
export class ForwardProxy {
  /** The port, which is drained together with the others of the gateway. */
  readonly app: FastifyInstance
  readonly #options: ForwardProxyOptions
  readonly #passing = new Roster<PassThrough>()
  /** When it was last said that a client does not trust the certificate of a host. */
  readonly #said = new Map<string, number>()
  /** How many tunnels are open, of both kinds. */
  open = 0
  #isDraining = false

  constructor(options: ForwardProxyOptions) {
    this.#options = options
    const { proxy, server, metrics } = options
    for (const kind of ['intercepted', 'passed']) metrics.tunnels.of({ kind })
    // Tools may speak HTTP/2 inside a tunnel, whatever `server.http2` says of the port for clients. The port itself has no TLS.
    const { tls: _, ...listener } = { ...server, http2: true, proxyProtocol: false }
    this.app = buildApp(proxy, listener, (...connect) => this.#connect(...connect))
    this.app.server.prependListener('connection', (socket: Socket) => {
      if (proxiedOn(socket) === undefined) markProxied(socket, undefined)
    })
    this.app.server.prependListener('request', ({ socket }: IncomingMessage) => {
      const proxied = proxiedOn(socket)
      if (proxied !== undefined) proxied.isUsed = true
    })
  }

  /** Its URL, for HTTPS_PROXY. */
  listen(): Promise<string> {
    const { host, port } = this.#options.config
    return this.app.listen({ host, port, backlog: BACKLOG })
  }

  /** Makes no further tunnels. Those to other hosts end as soon as they are idle. */
  drain(): void {
    this.#isDraining = true
    for (const tunnel of this.#passing.all()) tunnel.drain()
  }

  /** Takes no connections any more, and ends the tunnels to other hosts. */
  async close(): Promise<void> {
    for (const tunnel of this.#passing.all()) tunnel.destroy()
    await this.app.close()
  }

  #connect(request: IncomingMessage, response: ServerResponse, socket: Socket, head: Buffer): void {
    void this.#options.proxy.serveConnect(request, response, (call, client) => {
      // The client left while its key was checked. Nobody would hear a second time that its connection closes.
      if (socket.destroyed) return GONE
      if (proxiedOn(socket)?.tunnel !== undefined) return refused(invalid('a tunnel in a tunnel is not made'))
      const target = authorityOf(request.url ?? '')
      if (isFailure(target)) return refused(target)
      if (this.#isDraining) return refused(new Failure('draining', 'the gateway stops: no further tunnels are made'))
      if (this.open >= this.#options.config.maxTunnels) {
        const message = `${this.open} tunnels are open, as many as forwardProxy.maxTunnels allows`
        return refused(new Failure('queue_full', message))
      }
      const tunnel = { ...target, credentials: request.headers['proxy-authorization'] }
      const isUpstream = call.snapshot.origins.has(`${tunnel.hostname}:${tunnel.port}`)
      return isUpstream ? this.#intercept(call, tunnel, socket, head) : this.#passOn(call, client, tunnel, socket, head)
    })
  }

  /** Ends TLS in the place of an upstream. What is spoken inside is served like what comes to any port of the gateway. */
  #intercept(call: Tunnelling, tunnel: Tunnelled, socket: Socket, head: Buffer): Forwarded | undefined {
    const host = withoutBrackets(tunnel.hostname)
    const why = this.#options.authority.whyNot(host)
    if (why !== undefined && !isPlain(call, tunnel))
      return refused(new Failure('forbidden', `no tunnel to ${host}: ${why}`))
    this.#takePlace(socket)
    this.#count('intercepted')
    call.response.detachSocket(socket)
    // This call ends here. The requests inside the tunnel are calls of their own.
    call.response.emit('close')
    socket.write(ESTABLISHED)
    if (head.length > 0) socket.unshift(head)
    const timer = setTimeout(() => socket.destroy(), this.#options.server.headTimeout)
    socket.once('close', () => clearTimeout(timer))
    socket.once('readable', () => {
      clearTimeout(timer)
      const first = socket.read() as Buffer | null
      if (first === null) return void socket.destroy()
      socket.unshift(first)
      if (first[0] !== HANDSHAKE) this.#serve(socket, tunnel)
      else if (why === undefined) this.#endTls(host, tunnel, socket)
      else {
        this.#options.proxy.noteLost(socket.remoteAddress, why)
        socket.destroy()
      }
    })
    return undefined
  }

  #endTls(host: string, tunnel: Tunnelled, socket: Socket): void {
    const { authority, server } = this.#options
    const address = socket.remoteAddress
    let why = ''
    const tls = createTlsServer({
      ...authority.leafFor(host),
      ALPNProtocols: ['h2', 'http/1.1'],
      handshakeTimeout: server.headTimeout,
      SNICallback(name, done) {
        if (name.toLowerCase() === host) return done(null)
        why = `the TLS in the tunnel to ${host} asks for another host, ${name.slice(0, 253)}`
        done(new Error(why))
      },
    })
    tls.once('tlsClientError', (error: DialError, secure: TLSSocket) => {
      secure.on('error', () => undefined)
      const isSure = why !== '' || error.code?.startsWith('ERR_SSL') === true
      this.#sayOnce(host, address, why || whyNoTls(host, error, authority.file), isSure)
      socket.destroy()
    })
    tls.once('secureConnection', (secure: TLSSocket) => {
      const proxied = this.#serve(secure, tunnel)
      secure.once('close', () => {
        if (proxied.isUsed) return
        this.#sayOnce(host, address, whyNoTls(host, undefined, authority.file), false)
      })
    })
    // A TLS server sets this for its own connections. Without it, a client that leaves during its handshake would not be noticed.
    socket.allowHalfOpen = false
    tls.emit('connection', socket)
  }

  #serve(socket: Socket, tunnel: Tunnelled): ReturnType<typeof markProxied> {
    const proxied = markProxied(socket, tunnel)
    this.app.server.emit('connection', socket)
    return proxied
  }

  /**
   * A client that closes without an alert may distrust the certificate, or have another reason. This guess is logged once a minute for
   * each host.
   */
  #sayOnce(host: string, address: string | undefined, message: string, isSure: boolean): void {
    const now = performance.now()
    if (!isSure && now - (this.#said.get(host) ?? -Infinity) < SAY_EVERY_MS) return
    if (!isSure) this.#said.set(host, now)
    this.#options.proxy.noteLost(address, message)
  }

  async #passOn(call: Tunnelling, client: Client, tunnel: Tunnelled, socket: Socket, head: Buffer): Promise<Forwarded> {
    const { config, lookup } = this.#options
    const { hostname, port } = tunnel
    const host = withoutBrackets(hostname)
    const layers = [call.snapshot.config.networkAccess, config.networkAccess, client.networkAccess]
      .filter((layer) => layer !== undefined)
      .map((layer) => forTunnels(accessOf(layer)))
    const why = whyNoTunnel(config, tunnel, layers)
    if (why !== undefined) return refused(new Failure('forbidden', `no tunnel to ${hostname}:${port}: ${why}`))
    this.#takePlace(socket)
    const isAllowed = (address: string): boolean => isAddressAllowed(address, layers, false)
    let upstream: Socket
    try {
      upstream = await dial({ host, port, isAllowed, lookup })
    } catch (error) {
      return refused(dialFailure(`${hostname}:${port}`, error as DialError))
    }
    if (socket.destroyed) {
      upstream.destroy()
      return GONE
    }
    this.#count('passed')
    call.overheadMs = call.gatewayMs
    socket.write(ESTABLISHED)
    return new Promise((resolve) => {
      const passing = new PassThrough(socket, upstream, head, config.idle, (down, up) => {
        this.#passing.delete(passing)
        call.responseBytes = down
        call.body = { receivedBytes: up }
        resolve(DELIVERED)
      })
      this.#passing.add(passing)
    })
  }

  #takePlace(socket: Socket): void {
    this.open++
    socket.once('close', () => this.open--)
  }

  #count(kind: 'intercepted' | 'passed'): void {
    this.#options.metrics.tunnels.of({ kind }).increment()
  }
}

/** Whether plain HTTP is expected in a tunnel: Node's fetch asks for one to a URL of http, too. */
function isPlain({ snapshot }: Tunnelling, { hostname, port }: Tunnelled): boolean {
  const at = snapshot.origins.get(`${hostname}:${port}`) ?? []
  return port === 80 || at.every(({ upstream: { url } }) => url.protocol === 'http:' && url.hostname === hostname)
}

/** The host and port of a CONNECT (RFC 9110 §9.3.6). */
function authorityOf(url: string): { hostname: string; port: number } | Failure {
  const target = /[/?#]/.test(url) ? invalid('CONNECT names a host and a port') : readAbsoluteTarget(`https://${url}/`)
  return isFailure(target) ? invalid('CONNECT names a host and a port, such as api.example.com:443') : target
}

function whyNoTunnel(
  { otherHosts, ports }: ForwardProxyConfig,
  { hostname, port }: Tunnelled,
  layers: readonly NetworkAccess[],
): string | undefined {
  if (otherHosts === 'refuse') return 'it is no upstream’s, and forwardProxy.otherHosts is refuse'
  if (!ports.includes(port)) return `forwardProxy.ports has only ${ports.join(', ')}`
  if (isAccessAllowed(`https://${hostname}:${port}/`, layers)) return undefined
  return 'the network access lists do not allow this host'
}

/** Nobody sees the path of what goes through a tunnel: an entry that blocks some paths of a host blocks the host. */
function forTunnels({ allowed, blocked }: NetworkAccess): NetworkAccess {
  return {
    allowed,
    blocked: blocked.map((entry) => (URL.canParse(entry) && entry.includes('://') ? new URL(entry).hostname : entry)),
  }
}

function dialFailure(authority: string, { code, message }: DialError): Failure {
  if (code === 'ERR_ADDRESS_NOT_ALLOWED') {
    const why = 'it has no address that may be reached: private ones, those of this machine and blocked ones may not'
    return new Failure('forbidden', `no tunnel to ${authority}: ${why}`)
  }
  return new Failure('unreachable', `no connection to ${authority} (${code ?? message})`)
}

/** What came of a handshake, in the words of whoever has to mend it. */
function whyNoTls(host: string, error: DialError | undefined, file: string): string {
  const isDistrust = /UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_UNKNOWN|UNSUPPORTED_CERTIFICATE/.test(error?.code ?? '')
  const advice = `have it trust ${file} (npx sluice run does for most tools); one that pins its own CA can't be served here: give it the gateway's base URL instead`
  if (isDistrust) return `the client does not trust the gateway's certificate for ${host} (${error!.code}): ${advice}`
  if (error === undefined || /^(?:ECONNRESET|ERR_TLS_HANDSHAKE_TIMEOUT)$/.test(error.code ?? '')) {
    return `the client ended its TLS to ${host} without a request: if it does not trust the gateway's certificate, ${advice}`
  }
  return `the client and the gateway agree on no TLS for ${host} (${error.code ?? error.message})`
}
