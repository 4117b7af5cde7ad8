import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import type { Random } from '../../src/time/clock.ts'
import { seededRandom } from './seeded-random.ts'

/** Where in an answer something goes wrong: before its first byte, behind its head, or behind some of its body. */
export type Place = 'before-headers' | 'after-headers' | 'mid-body'

/** What a line between two programs can do to one exchange. Bytes of the request always arrive, unless it says otherwise. */
export type Fault =
  /** Every piece, in both directions, comes so much later, and up to `jitterMs` more; none overtakes another. */
  | { readonly kind: 'latency'; readonly ms: number; readonly jitterMs?: number }
  /** Reset as soon as it is accepted or used again: nothing of the request arrives. */
  | { readonly kind: 'refuse' }
  | { readonly kind: 'reset'; readonly at: Place }
  /** No more of the answer comes; the connection stays open. */
  | { readonly kind: 'stall'; readonly at: Place }
  /** Nothing of the request is read any more: the sender's buffers fill. */
  | { readonly kind: 'stall'; readonly at: 'request' }
  /** The answering side ends its half in order, and goes on reading. */
  | { readonly kind: 'half-close'; readonly at: Place }
  /** The answer comes `bytes` at a time. */
  | { readonly kind: 'drip'; readonly bytes: number; readonly everyMs: number }
  /** Random bytes stand where the answer should go on; then it is reset. */
  | { readonly kind: 'garbage'; readonly at: Place }
  /** The head of the answer has one more field, of so many bytes. */
  | { readonly kind: 'oversized-headers'; readonly bytes: number }

export interface FaultProxyOptions {
  /** Where the connections go: `http://…`, `redis://…`, anything with host and port. */
  readonly target: string
  readonly seed?: number
}

const GARBAGE_BYTES = 512
/** So much of a body passes before something happens in its middle. */
const SOME_BYTES = 3

/**
 * A TCP proxy that lets things go wrong between two programs. A fault is chosen for each exchange, one being a request and
 * the answer that follows it on a connection; an exchange that is under way keeps its own.
 */
export class FaultProxy {
  readonly random: Random
  readonly #target: URL
  readonly #server: Server
  readonly #lines = new Set<Line>()
  #choose: () => Fault | undefined = () => undefined
  /** How many exchanges were given a fault. */
  faults = 0
  /** How many connections were accepted. */
  connections = 0

  private constructor({ target, seed = 1 }: FaultProxyOptions) {
    this.#target = new URL(target)
    this.random = seededRandom(seed)
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket))
  }

  static async start(options: FaultProxyOptions): Promise<FaultProxy> {
    const proxy = new FaultProxy(options)
    proxy.#server.listen(0, '127.0.0.1')
    await once(proxy.#server, 'listening')
    return proxy
  }

  /** The target's URL, by way of this proxy. */
  get url(): string {
    const { protocol, username, password, pathname } = this.#target
    const user = username === '' && password === '' ? '' : `${username}:${password}@`
    const { port } = this.#server.address() as AddressInfo
    return `${protocol}//${user}127.0.0.1:${port}${pathname === '/' ? '' : pathname}`
  }

  /** Connections that are open now, with either side. */
  get open(): number {
    return this.#lines.size
  }

  /** From the next exchange on: always that fault, or for so many exchanges; undefined heals the line. */
  set(fault: Fault | undefined, times = Infinity): void {
    let left = times
    this.choose(() => (left-- > 0 ? fault : undefined))
  }

  /** From the next exchange on: whatever is chosen for each. */
  choose(choose: () => Fault | undefined): void {
    this.#choose = choose
  }

  /** Cuts all connections that are open now. */
  cut(): void {
    for (const line of this.#lines) line.reset()
  }

  async stop(): Promise<void> {
    this.cut()
    this.#server.close()
    await once(this.#server, 'close')
  }

  #accept(client: Socket): void {
    this.connections++
    const line: Line = new Line(
      client,
      connect(Number(this.#target.port || 80), this.#target.hostname.replace(/[[\]]/g, '')),
      {
        isHttp: this.#target.protocol.startsWith('http'),
        random: this.random,
        choose: () => {
          const fault = this.#choose()
          if (fault !== undefined) this.faults++
          return fault
        },
        onClosed: () => this.#lines.delete(line),
      },
    )
    this.#lines.add(line)
  }
}

interface LineOptions {
  readonly isHttp: boolean
  readonly random: Random
  choose(): Fault | undefined
  onClosed(): void
}

/** One connection through the proxy. */
class Line {
  readonly #client: Socket
  readonly #target: Socket
  readonly #options: LineOptions
  #fault: Fault | undefined
  /** The head of the answer as far as it came; undefined once it is complete. */
  #head: Buffer | undefined = Buffer.alloc(0)
  #isAnswered = true
  /** Its protocol was switched: there are no more exchanges to tell apart. */
  #isTunnel = false
  /** What has gone wrong stays so. */
  #isOver = false
  #bodyBytes = 0
  readonly #toClient = new Way()
  readonly #toTarget = new Way()

  constructor(client: Socket, target: Socket, options: LineOptions) {
    this.#client = client
    this.#target = target
    this.#options = options
    client.on('data', (chunk: Buffer) => this.#onRequest(chunk))
    target.on('data', (chunk: Buffer) => this.#onAnswer(chunk))
    client.on('end', () => this.#toTarget.behind(0, () => target.end()))
    target.on('end', () => this.#toClient.behind(0, () => void (this.#isOver || client.end())))
    for (const [one, other, way] of [
      [client, target, this.#toTarget],
      [target, client, this.#toClient],
    ] as const) {
      one.setNoDelay(true)
      one.on('drain', () => other.resume())
      one.on('error', () => this.reset())
      one.on('close', () => {
        // What it sent is still to arrive.
        way.behind(0, () => other.destroySoon())
        if (client.destroyed && target.destroyed) options.onClosed()
      })
    }
  }

  reset(): void {
    this.#isOver = true
    this.#toClient.clear()
    this.#toTarget.clear()
    this.#client.resetAndDestroy()
    this.#target.destroy()
  }

  #onRequest(chunk: Buffer): void {
    if (this.#isAnswered && !this.#isTunnel) this.#begin()
    if (this.#fault?.kind === 'refuse') return this.reset()
    if (this.#fault?.kind === 'stall' && this.#fault.at === 'request') {
      // The head arrives, so that the other side knows of it.
      this.#client.pause()
    }
    this.#pass(this.#target, this.#client, chunk)
  }

  #begin(): void {
    this.#isAnswered = false
    this.#head = Buffer.alloc(0)
    this.#bodyBytes = 0
    this.#fault = this.#options.choose()
  }

  #onAnswer(chunk: Buffer): void {
    this.#isAnswered = true
    if (this.#isOver) return
    const fault = this.#fault
    if (fault !== undefined && 'at' in fault && fault.at === 'before-headers') return this.#strike(fault)
    if (this.#head === undefined) return this.#onBody(chunk)
    this.#head = Buffer.concat([this.#head, chunk])
    const end = this.#headEnd(this.#head)
    if (end < 0) return
    const [head, body] = [this.#head.subarray(0, end), this.#head.subarray(end)]
    this.#head = undefined
    this.#isTunnel = this.#options.isHttp && head.toString('latin1').startsWith('HTTP/1.1 101')
    this.#pass(this.#client, this.#target, fault?.kind === 'oversized-headers' ? withField(head, fault.bytes) : head)
    if (fault !== undefined && 'at' in fault && fault.at === 'after-headers') return this.#strike(fault)
    if (body.length > 0) this.#onBody(body)
  }

  #onBody(chunk: Buffer): void {
    const fault = this.#fault
    if (fault === undefined || !('at' in fault) || fault.at !== 'mid-body')
      return this.#pass(this.#client, this.#target, chunk)
    const part = chunk.subarray(0, SOME_BYTES - this.#bodyBytes)
    this.#bodyBytes += part.length
    this.#pass(this.#client, this.#target, part)
    if (this.#bodyBytes === SOME_BYTES) this.#strike(fault)
  }

  /** Behind the first line of an answer of Redis there is the rest of it, if it has any. */
  #headEnd(bytes: Buffer): number {
    const mark = this.#options.isHttp ? '\r\n\r\n' : '\r\n'
    const at = bytes.indexOf(mark)
    return at < 0 ? -1 : at + mark.length
  }

  #strike({ kind }: Fault): void {
    this.#isOver = true
    switch (kind) {
      case 'reset':
        // In the same turn, what was written before would be discarded with it.
        return void setImmediate(() => this.reset())
      case 'half-close':
        return void this.#client.end()
      case 'garbage': {
        const bytes = Buffer.from(Array.from({ length: GARBAGE_BYTES }, () => this.#options.random() * 256))
        this.#client.write(bytes, () => this.reset())
      }
    }
  }

  #pass(to: Socket, from: Socket, chunk: Buffer): void {
    const fault = this.#fault
    const way = to === this.#client ? this.#toClient : this.#toTarget
    if (fault?.kind === 'latency') {
      way.after(fault.ms + this.#options.random() * (fault.jitterMs ?? 0), () => to.write(chunk))
    } else if (fault?.kind === 'drip' && to === this.#client) {
      for (let i = 0; i < chunk.length; i += fault.bytes) {
        const part = chunk.subarray(i, i + fault.bytes)
        way.behind(fault.everyMs, () => to.write(part))
      }
    } else {
      way.behind(0, () => {
        if (to.writable && !to.write(chunk)) from.pause()
      })
    }
  }
}

/** One direction of a connection: what is on its way keeps its order. */
class Way {
  readonly #pieces: { readonly at: number; run(): void }[] = []
  #timer: NodeJS.Timeout | undefined

  after(delayMs: number, run: () => void): void {
    this.#add(Math.max(performance.now() + delayMs, this.#last), run)
  }

  /** So much later than the last piece before; at once if that is nothing. */
  behind(delayMs: number, run: () => void): void {
    if (delayMs === 0 && this.#pieces.length === 0) run()
    else this.#add(Math.max(performance.now(), this.#last) + delayMs, run)
  }

  clear(): void {
    clearTimeout(this.#timer)
    this.#pieces.length = 0
  }

  get #last(): number {
    return this.#pieces.at(-1)?.at ?? 0
  }

  #add(at: number, run: () => void): void {
    this.#pieces.push({ at, run })
    if (this.#pieces.length === 1) this.#schedule()
  }

  #schedule(): void {
    const [next] = this.#pieces
    if (next === undefined) return
    this.#timer = setTimeout(
      () => {
        this.#pieces.shift()
        next.run()
        this.#schedule()
      },
      Math.max(0, next.at - performance.now()),
    )
  }
}

function withField(head: Buffer, bytes: number): Buffer {
  const field = `X-Oversized: ${'x'.repeat(bytes)}\r\n\r\n`
  return Buffer.concat([head.subarray(0, -2), Buffer.from(field)])
}
