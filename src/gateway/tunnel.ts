import type { Duplex } from 'node:stream'
import type { Clock, Timer } from '../time/clock.ts'
import { type Member, Roster } from '../time/roster.ts'
import { closeFrame, Frames } from '../upstream/frames.ts'

/** How a WebSocket ended: closed by a Close frame, or dropped by its client or its upstream without one. */
export type TunnelEnd = 'delivered' | 'client_gone' | 'broken_off'

/** How long both sides have to close their connections, after one of them began to, in milliseconds. */
const CLOSING_MS = 2_000
/** The status of a Close frame of an endpoint that goes away (RFC 6455 §7.4.1). */
const GOING_AWAY = 1001

/** The open tunnels of the process. After `close` none stays open. */
export class Tunnels {
  readonly #open = new Roster<Tunnel>()
  #isClosing = false

  add(tunnel: Tunnel): void {
    this.#open.add(tunnel)
    if (this.#isClosing) tunnel.close()
  }

  delete(tunnel: Tunnel): void {
    this.#open.delete(tunnel)
  }

  /** Closes all of them, and each later one, with 1001. */
  close(): void {
    this.#isClosing = true
    for (const tunnel of this.#open.all()) tunnel.close()
  }
}

export interface TunnelOptions {
  readonly client: Duplex
  readonly upstream: Duplex
  /** What the client sent before the upstream had accepted. */
  readonly early: readonly Buffer[]
  readonly clock: Clock
  /** Longest time without a byte in either direction. */
  readonly idleMs: number
  /** Called once at the end; with an exception if a mistake of the gateway ended the tunnel. */
  onEnd(end: TunnelEnd, error?: unknown): void
}

/**
 * Passes the bytes of a WebSocket on in both directions, no faster than their receiver takes them, so that the gateway holds only
 * what two sockets buffer. It sends one frame of its own: the Close when it has to end a tunnel that is in use.
 */
export class Tunnel implements Member<Tunnel> {
  before: Tunnel | undefined
  after: Tunnel | undefined
  isListed = false
  readonly #options: TunnelOptions
  readonly #down: Flow
  readonly #up: Flow
  #timer: Timer | undefined
  #lastByteAt: number
  /** The side that first ended without a Close frame. */
  #leaver: TunnelEnd | undefined
  #isClosing = false
  isOver = false

  constructor(options: TunnelOptions) {
    const { client, upstream, early, clock } = options
    this.#options = options
    this.#lastByteAt = clock.now()
    this.#down = new Flow(upstream, client, false)
    this.#up = new Flow(client, upstream, true)
    this.#safely(() => {
      this.#watch(this.#up, 'client_gone')
      this.#watch(this.#down, 'broken_off')
      for (const chunk of early) this.#up.pass(chunk)
      this.#timer = clock.schedule(options.idleMs, () => this.#onIdle())
    })
  }

  /** Sends 1001 to both sides, and gives them a moment to close. */
  close(): void {
    if (this.isOver) return
    this.#safely(() => {
      this.#down.close()
      this.#up.close()
      this.#closeSoon()
    })
  }

  #watch(flow: Flow, leaver: TunnelEnd): void {
    const { from } = flow
    from.on('data', (chunk: Buffer) => {
      try {
        this.#pass(flow, chunk)
      } catch (error) {
        this.#finish(error)
      }
    })
    const left = (): void =>
      this.#safely(() => {
        this.#leaver ??= leaver
        flow.to.end()
        this.#closeSoon()
      })
    from.on('end', left)
    from.on('error', left)
    from.on('close', () => {
      left()
      if (this.#options.client.destroyed && this.#options.upstream.destroyed) this.#finish()
    })
    // A side may have gone while the upstream's answer was on its way.
    if (from.destroyed) left()
  }

  #pass(flow: Flow, chunk: Buffer): void {
    this.#lastByteAt = this.#options.clock.now()
    flow.pass(chunk)
    // The server ends the connection after both Close frames (RFC 6455 §7.1.1). Not every server does.
    if (this.#up.hasClosed && this.#down.hasClosed) this.#closeSoon()
  }

  /** An exception in an event of a socket or in a timer would end the process. */
  #safely(run: () => void): void {
    try {
      run()
    } catch (error) {
      this.#finish(error)
    }
  }

  #closeSoon(): void {
    if (this.#isClosing || this.isOver) return
    this.#isClosing = true
    this.#timer?.cancel()
    this.#timer = this.#options.clock.schedule(CLOSING_MS, () => this.#finish())
  }

  #onIdle(): void {
    const { clock, idleMs } = this.#options
    const leftMs = this.#lastByteAt + idleMs - clock.now()
    if (leftMs <= 0) return this.close()
    this.#timer = clock.schedule(leftMs, () => this.#onIdle())
  }

  #finish(error?: unknown): void {
    if (this.isOver) return
    this.isOver = true
    this.#timer?.cancel()
    const { client, upstream, onEnd } = this.#options
    client.destroy()
    upstream.destroy()
    const isInOrder = this.#up.hasClosed || this.#down.hasClosed
    onEnd(isInOrder ? 'delivered' : (this.#leaver ?? 'broken_off'), error)
  }
}

/** One direction. */
class Flow {
  readonly from: Duplex
  readonly to: Duplex
  readonly #isToUpstream: boolean
  readonly #frames = new Frames()
  /** `closing`: it sends its own Close after the frame that is under way. `closed`: it has sent it. */
  #state: 'open' | 'closing' | 'closed' = 'open'

  constructor(from: Duplex, to: Duplex, isToUpstream: boolean) {
    this.from = from
    this.to = to
    this.#isToUpstream = isToUpstream
    to.on('drain', () => from.resume())
  }

  get hasClosed(): boolean {
    return this.#frames.hasClosed || this.#state === 'closed'
  }

  pass(chunk: Buffer): void {
    if (this.#state === 'open') {
      this.#frames.read(chunk)
      this.#write(chunk)
    } else if (this.#state === 'closing') {
      this.#write(chunk.subarray(0, this.#frames.readToEnd(chunk)))
      if (this.#frames.isBetweenFrames) this.#sendClose()
    }
  }

  close(): void {
    if (this.hasClosed) return
    this.#state = 'closing'
    if (this.#frames.isBetweenFrames) this.#sendClose()
  }

  #sendClose(): void {
    this.#state = 'closed'
    if (this.to.writable) this.to.write(closeFrame(GOING_AWAY, this.#isToUpstream))
    // What follows is thrown away, but must be read: its end tells that the other side has closed, too.
    this.from.resume()
  }

  #write(chunk: Buffer): void {
    if (this.to.writable && !this.to.write(chunk)) this.from.pause()
  }
}
