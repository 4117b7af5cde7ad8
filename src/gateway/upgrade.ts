import type { Duplex } from 'node:stream'
import type { Clock } from '../time/clock.ts'
import { Tunnel, type TunnelOptions, type Tunnels } from './tunnel.ts'

/** How much a client may send before the upstream has agreed, in bytes. After that its socket is paused. */
const EARLY_BYTES = 65_536

/** The connection of a client that asked for a WebSocket, until the upstream has agreed. */
export class Upgrade {
  readonly socket: Duplex
  /** Where the tunnel is kept, for as long as it is open. */
  readonly #tunnels: Tunnels
  readonly #early: Buffer[] = []
  #earlyBytes = 0

  constructor(socket: Duplex, head: Buffer, tunnels: Tunnels) {
    this.socket = socket
    this.#tunnels = tunnels
    if (head.length > 0) this.#keep(head)
    // The end of a socket is noticed only while it is read.
    socket.on('data', this.#keep).on('end', this.#left)
  }

  /** Passes on what the client sent early, and then what either side sends, until both have ended. */
  tunnelTo(upstream: Duplex, clock: Clock, idleMs: number, onEnd: TunnelOptions['onEnd']): void {
    let tunnel: Tunnel | undefined
    tunnel = new Tunnel({
      client: this.socket,
      upstream,
      early: this.#takeOver(),
      clock,
      idleMs,
      onEnd: (end, error) => {
        // The tunnel may end inside its constructor.
        if (tunnel !== undefined) this.#tunnels.delete(tunnel)
        onEnd(end, error)
      },
    })
    if (!tunnel.isOver) this.#tunnels.add(tunnel)
  }

  /** Hands over what came early, and stops reading. */
  #takeOver(): readonly Buffer[] {
    this.socket.off('data', this.#keep).off('end', this.#left)
    this.socket.resume()
    return this.#early
  }

  readonly #keep = (chunk: Buffer): void => {
    this.#early.push(chunk)
    this.#earlyBytes += chunk.length
    if (this.#earlyBytes > EARLY_BYTES) this.socket.pause()
  }

  readonly #left = (): void => void this.socket.destroy()
}
