import type { Server } from 'node:net'
import { networkOf } from '../clients/guess-guard.ts'

/** How long nothing more is said of an address. */
const SAY_EVERY_MS = 60_000

interface Bound {
  readonly most: number
  /** Load balancers have the connections of all their clients. */
  isExempt(address: string | undefined): boolean
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
    if (isExempt(socket.remoteAddress)) return
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
