import type { Server as HttpServer } from 'node:http'
import type { Server, Socket } from 'node:net'
import { networkOf } from '../net/address.ts'
import { Entry, Roster } from '../time/roster.ts'

/** An address is reported at most once in so many milliseconds. */
const REPORT_EVERY_MS = 60_000

/**
 * The listen backlog: how many connections may wait to be accepted. The system lowers it to `net.core.somaxconn`. With Node's default of
 * 511, a burst that comes while the process collects garbage overflows it. The system then drops packets, and clients try again after a
 * second or longer, or fail.
 */
export const BACKLOG = 65_535

interface Bound {
  readonly most: number
  /**
   * Whether a connection is not counted. Load balancers are exempt, because all their clients' connections come from their address.
   * Connections inside a tunnel are exempt, because the tunnel itself is counted.
   */
  isExempt(socket: Socket): boolean
  onSurplus(address: string): void
}

/**
 * Lets an address have `most` open connections; all addresses of one IPv6 /64 network count as one. Every further connection
 * is closed as soon as it is accepted, before it costs a TLS handshake. `onSurplus` gets the address, or the network, at most
 * once a minute.
 */
export function boundConnections(server: Server, { most, isExempt, onSurplus }: Bound): void {
  const open = new Map<string, number>()
  /** When each address was reported, the oldest report first. */
  const reportedAt = new Map<string, number>()
  server.prependListener('connection', (socket) => {
    if (isExempt(socket)) return
    const address = networkOf(socket.remoteAddress)
    const count = open.get(address) ?? 0
    if (count >= most) {
      socket.destroy()
      const now = performance.now()
      // Old reports are dropped, so that the map stays small.
      for (const [reported, at] of reportedAt) {
        if (now - at < REPORT_EVERY_MS) break
        reportedAt.delete(reported)
      }
      if (reportedAt.has(address)) return
      reportedAt.set(address, now)
      onSurplus(address)
      return
    }
    open.set(address, count + 1)
    socket.once('close', () => {
      const left = open.get(address)! - 1
      if (left > 0) open.set(address, left)
      else open.delete(address)
    })
  })
}

/**
 * Makes `closeAllConnections` close every connection. Node's own method knows only connections that already speak HTTP/1.1.
 * A connection in its TLS handshake, or one that has sent nothing yet, would keep the server from closing for ever.
 */
export function closeWithServer(server: HttpServer): void {
  const open = new Roster<Entry<Socket>>()
  server.on('connection', (socket) => {
    const entry = new Entry(socket)
    open.add(entry)
    socket.once('close', () => open.delete(entry))
  })
  const closeAllConnections = server.closeAllConnections.bind(server)
  server.closeAllConnections = () => {
    closeAllConnections()
    for (const { of: socket } of open.all()) socket.destroy()
  }
}

type Listener = (this: Server, socket: Socket) => void

/** Removes the listeners of an event and returns them. From then on the caller must call them for each event. */
export function takeOver(server: Server, event: 'connection' | 'secureConnection'): Listener[] {
  const listeners = server.listeners(event) as Listener[]
  server.removeAllListeners(event)
  return listeners
}
