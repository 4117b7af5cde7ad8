import { connect, isIP, type LookupFunction, type Socket } from 'node:net'
import { type AddressError, guardedLookup } from '../net/guarded-lookup.ts'
import type { Member } from '../time/roster.ts'

const CONNECT_MS = 10_000
/** How long the other half of a tunnel may last after one has ended, and an idle one while the gateway drains. */
const HALF_OPEN_MS = 30_000
const DRAIN_IDLE_MS = 1_000

export interface Destination {
  /** A name or an address, without brackets. */
  readonly host: string
  readonly port: number
  isAllowed(address: string): boolean
  readonly lookup?: LookupFunction | undefined
}

/** Why no connection was made: none of the addresses is allowed, or the error of the system. */
export type DialError = (AddressError | Error) & { readonly code?: string }

/**
 * Connects to an address that is allowed, and was found by one look-up: what the name means a moment later does not matter.
 * Rejects with a `DialError`.
 */
export function dial({ host, port, isAllowed, lookup }: Destination): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>()
  if (isIP(host) !== 0 && !isAllowed(host)) {
    reject(Object.assign(new Error(`${host} is not allowed`), { code: 'ERR_ADDRESS_NOT_ALLOWED' }))
    return promise
  }
  const socket = connect({ host, port, lookup: guardedLookup({ isAllowed, lookup }), allowHalfOpen: true })
  const timer = setTimeout(
    () => socket.destroy(Object.assign(new Error('no connection in time'), { code: 'ETIMEDOUT' })),
    CONNECT_MS,
  )
  socket.once('error', reject)
  socket.once('connect', () => {
    socket.off('error', reject)
    resolve(socket)
  })
  return promise.finally(() => clearTimeout(timer))
}

/** A tunnel whose bytes are passed on as they are. */
export class PassThrough implements Member<PassThrough> {
  before: PassThrough | undefined
  after: PassThrough | undefined
  isListed = false
  readonly #sides: readonly [Socket, Socket]

  /** Passes on what either side sends, until both have ended, or nothing came for `idleMs`. */
  constructor(
    client: Socket,
    upstream: Socket,
    head: Buffer,
    idleMs: number,
    onEnd: (down: number, up: number) => void,
  ) {
    this.#sides = [client, upstream]
    let open = 2
    const before = { read: client.bytesRead - head.length, written: client.bytesWritten }
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      from.setNoDelay(true)
      from.setTimeout(idleMs, () => this.destroy())
      from.on('error', () => undefined)
      from.once('end', () => this.#bound(Math.min(idleMs, HALF_OPEN_MS)))
      from.once('close', () => {
        // If one side was cut off, the other is cut off, too. If it ended in order, the other ends in order.
        if (!from.readableEnded || from.errored !== null) to.destroy()
        else to.end()
        if (--open === 0) onEnd(client.bytesWritten - before.written, client.bytesRead - before.read)
      })
    }
    if (head.length > 0) upstream.write(head)
    client.pipe(upstream)
    upstream.pipe(client)
    if (client.destroyed || upstream.destroyed) this.destroy()
  }

  /** Ends as soon as nothing comes for a moment. */
  drain(): void {
    this.#bound(DRAIN_IDLE_MS)
  }

  destroy(): void {
    for (const side of this.#sides) side.destroy()
  }

  #bound(ms: number): void {
    for (const side of this.#sides) if (side.timeout === undefined || side.timeout > ms) side.setTimeout(ms)
  }
}
