import { isIPv4, type Server, type Socket } from 'node:net'
import { takeOver } from './connections.ts'
import { readProxyHeader } from './proxy-protocol.ts'

export interface Balanced {
  /** Whether the address belongs to a balancer. Every connection from a balancer must begin with a header. */
  isTrusted(address: string | undefined): boolean
  readonly maxHeaderBytes: number
  /** How long the header may take to arrive, in milliseconds. */
  readonly headMs: number
  /** Called when a connection was closed because no valid header came on it. */
  onInvalid(address: string | undefined, why: string): void
}

/**
 * Takes the header of the PROXY protocol off the connections of trusted balancers, before TLS begins. From then on the
 * connection gives the client's address as that of its peer. A balancer's connection without a header is closed: if it were
 * served, the client's calls would count as the balancer's own. A connection from any other address is a client's own, and
 * is served as it is. Only the address decides between the two, never the bytes that were sent. Call this last: listeners
 * that are added afterwards see connections whose header is still unread.
 */
export function takeProxyHeaders(server: Server, { isTrusted, maxHeaderBytes, headMs, onInvalid }: Balanced): void {
  const listeners = takeOver(server, 'connection')
  server.on('connection', (socket: Socket) => {
    const { remoteAddress } = socket
    const serve = (): void => {
      for (const listener of listeners) listener.call(server, socket)
    }
    // A connection that has already ended has no address any more. A health check may end so soon.
    if (remoteAddress === undefined) return void socket.destroy()
    if (!isTrusted(remoteAddress)) return serve()
    let seen: Buffer = Buffer.alloc(0)
    const leave = (): void => {
      clearTimeout(timer)
      socket.off('readable', look).off('end', onEnd).off('error', end).off('close', leave)
    }
    const refuse = (why: string): void => {
      end()
      onInvalid(remoteAddress, why)
    }
    const end = (): void => {
      leave()
      // A late error without a listener would end the process.
      socket.on('error', () => undefined)
      socket.destroy()
    }
    // A health check of a balancer connects and sends nothing. That is no fault.
    const onEnd = (): void => (seen.length === 0 ? end() : refuse('the connection ended before it was complete'))
    const look = (): void => {
      const chunk = socket.read() as Buffer | null
      if (chunk === null) return
      seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk])
      const header = readProxyHeader(seen, maxHeaderBytes)
      if (header.kind === 'more') return
      if (header.kind === 'invalid') return refuse(header.why)
      leave()
      if (header.address !== undefined) setPeer(socket, header.address)
      if (seen.length > header.bytes) socket.unshift(seen.subarray(header.bytes))
      serve()
    }
    // Not "data": after it the socket would have to be resumed, and TLS would lose the bytes that are put back into it.
    const timer = setTimeout(() => refuse('it did not come within server.headTimeout'), headMs)
    socket.on('readable', look).on('end', onEnd).on('error', end).on('close', leave)
  })
}

/** Makes a connection, and the TLS connection over it, give `address` as that of its peer. The port is not known and is 0. */
function setPeer(socket: Socket, address: string): void {
  const remoteFamily = isIPv4(address) ? 'IPv4' : 'IPv6'
  Object.defineProperties(socket, { remoteAddress: { value: address }, remoteFamily: { value: remoteFamily } })
  const handle = Reflect.get(socket, '_handle') as { getpeername(out: object): number } | null
  // The socket of TLS asks the handle of this one for the address. Node has no public way to change that answer.
  if (handle !== null) handle.getpeername = (out) => (Object.assign(out, { address, family: remoteFamily, port: 0 }), 0)
}
