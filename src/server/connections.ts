import type { Server as HttpServer } from 'node:http'
import type { Server, Socket } from 'node:net'
import { networkOf } from '../net/address.ts'

/** An address is reported once, and then not again for this long. */
const SAY_EVERY_MS = 60_000

interface Bound {
  readonly most: number
  /** Load balancers are exempt, as the connections of all their clients come from their address; and what was counted before. */
  isExempt(socket: Socket): boolean
  onSurplus(address: string): void
}

/**
 * Closes connections of an address (of an IPv6 network of 64 bits) beyond `most` at once, as soon as they are there: before
 * they cost a handshake. `onSurplus` is told of an address once a minute.
 */
export function boundConnections(server: Server, { most, isExempt, onSurplus }: Bound): void {
  const open = new Map<string, number>()
  const said = new Map<string, number>()
  server.prependListener('connection', (socket) => {
    if (isExempt(socket)) return
    const address = networkOf(socket.remoteAddress)
    const count = open.get(address) ?? 0
    if (count >= most) {
      socket.destroy()
      const now = performance.now()
      if (now - (said.get(address) ?? -Infinity) < SAY_EVERY_MS) return
      said.set(address, now)
      onSurplus(address)
      return
    }
    open.set(address, count + 1)
    socket.once('close', () => {
      const left = open.get(address)! - 1
      if (left > 0) open.set(address, left)
      else open.delete(address)
      if (left === 0) said.delete(address)
    })
  })
}

/**
 * Has `closeAllConnections` close every connection: Node's knows only those on which HTTP/1.1 is spoken already, and a server
 * would wait for the others, which shake hands or have said nothing yet.
 */
export function closeWithServer(server: HttpServer): void {
  const open = new Set<Socket>()
  server.on('connection', (socket) => {
    open.add(socket)
    socket.once('close', () => open.delete(socket))
  })
  const closeAllConnections = server.closeAllConnections.bind(server)
  server.closeAllConnections = () => {
    closeAllConnections()
    for (const socket of open) socket.destroy()
  }
}

type Listener = (this: Server, socket: Socket) => void

/** Removes the listeners of an event and returns them. The caller must call them, or nobody hears of the event. */
export function takeOver(server: Server, event: 'connection' | 'secureConnection'): Listener[] {
  const listeners = server.listeners(event) as Listener[]
  server.removeAllListeners(event)
  return listeners
}
