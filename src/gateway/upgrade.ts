import type { Duplex } from 'node:stream'
import type { Clock } from '../time/clock.ts'
import { Tunnel, type TunnelOptions, type Tunnels } from './tunnel.ts'

/** A client that sends more than this before it knows that it may is not read from until then. */
const EARLY_BYTES = 65_536

/** The connection of a client that asked for a WebSocket, until the upstream has agreed to it. */
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
    // Only who reads learns that a client has left.
    socket.on('data', this.#keep).on('end', this.#left)
  }

  /** The upstream has agreed: passes on what came too early, and then what either side sends, until the end of both. */
  tunnelTo(upstream: Duplex, clock: Clock, idleMs: number, onEnd: TunnelOptions['onEnd']): void {
    let tunnel: Tunnel | undefined
    tunnel = new Tunnel({
      client: this.socket,
      upstream,
      early: this.#takeOver(),
      clock,
      idleMs,
      onEnd: (end, error) => {
        // It may end while it is made.
        if (tunnel !== undefined) this.#tunnels.delete(tunnel)
        onEnd(end, error)
      },
    })
    if (!tunnel.isOver) this.#tunnels.add(tunnel)
  }

  /** What came too early; from now on others read. */
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
