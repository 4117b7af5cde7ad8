import { isIPv4, type Server, type Socket } from 'node:net'
import { takeOver } from './connections.ts'
import { readProxyHeader } from './proxy-protocol.ts'

export interface Balanced {
  /** Whether that is the address of a balancer, from which every connection begins with a header. */
  isTrusted(address: string | undefined): boolean
  readonly maxHeaderBytes: number
  /** Longest time for the header to come. */
  readonly headMs: number
  /** The connection was closed, because no header came on it. */
  onInvalid(address: string | undefined, why: string): void
}

/**
 * Takes the header of the PROXY protocol off the connections of trusted balancers, before TLS: from then on the client's
 * address is that of the connection. Without a header such a connection is closed: were it served, what it brings would count
 * as the balancer's own. Others are clients that connect directly, and are served as such: the address alone decides, nothing
 * is guessed from what they send. To be called when all others listen for connections.
 */
export function takeProxyHeaders(server: Server, { isTrusted, maxHeaderBytes, headMs, onInvalid }: Balanced): void {
  const listeners = takeOver(server, 'connection')
  server.on('connection', (socket: Socket) => {
    const { remoteAddress } = socket
    const serve = (): void => {
      for (const listener of listeners) listener.call(server, socket)
    }
    // It has ended already, as when a balancer only looked: nobody can tell whose it was.
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
      // What comes still is not to end the process.
      socket.on('error', () => undefined)
      socket.destroy()
    }
    // A balancer looks whether there is somebody by connecting, and no more.
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
    // By "readable", which lets go of the connection without a resume: TLS would lose what is given back to it by that.
    const timer = setTimeout(() => refuse('it did not come within server.headTimeout'), headMs)
    socket.on('readable', look).on('end', onEnd).on('error', end).on('close', leave)
  })
}

/** Has the connection, and what TLS makes of it, tell another address as that of its peer. Its port is not known. */
function setPeer(socket: Socket, address: string): void {
  const remoteFamily = isIPv4(address) ? 'IPv4' : 'IPv6'
  Object.defineProperties(socket, { remoteAddress: { value: address }, remoteFamily: { value: remoteFamily } })
  const handle = Reflect.get(socket, '_handle') as { getpeername(out: object): number } | null
  // TLS lays another connection over this one, and asks its handle. Node has no public way to tell it something else.
  if (handle !== null) handle.getpeername = (out) => (Object.assign(out, { address, family: remoteFamily, port: 0 }), 0)
}
