/** Bytes that the head of a WebSocket frame may have: two, an extended length, a mask. */
const LONGEST_HEAD = 14
const CLOSE = 0x8

/**
 * Where in a stream of WebSocket frames (RFC 6455 §5.2) one ends and the next begins, so that a frame of our own can go
 * between them. Looks at nothing but the heads.
 */
export class Frames {
  readonly #head = Buffer.alloc(LONGEST_HEAD)
  /** How much there is of the next head, and how much of its payload is still to come. */
  #headBytes = 0
  #left = 0
  /** A Close frame has begun: nothing may follow it. */
  hasClosed = false

  get isBetweenFrames(): boolean {
    return this.#headBytes === 0 && this.#left === 0
  }

  /** Reads on. */
  read(chunk: Buffer): void {
    for (let at = 0; at < chunk.length;) at = this.#step(chunk, at)
  }

  /** Reads to the end of the frame that has begun; returns how many bytes belong to it. */
  readToEnd(chunk: Buffer): number {
    let at = 0
    while (at < chunk.length && !this.isBetweenFrames) at = this.#step(chunk, at)
    return at
  }

  #step(chunk: Buffer, at: number): number {
    if (this.#left > 0) {
      const bytes = Math.min(this.#left, chunk.length - at)
      this.#left -= bytes
      return at + bytes
    }
    this.#head[this.#headBytes++] = chunk[at]!
    if (this.#headBytes >= 2 && this.#headBytes === headLength(this.#head)) {
      this.#left = payloadLength(this.#head)
      this.#headBytes = 0
      if ((this.#head[0]! & 0xf) === CLOSE) this.hasClosed = true
    }
    return at + 1
  }
}

function headLength(head: Buffer): number {
  const length = head[1]! & 0x7f
  return 2 + (length === 127 ? 8 : length === 126 ? 2 : 0) + (head[1]! & 0x80 ? 4 : 0)
}

function payloadLength(head: Buffer): number {
  const length = head[1]! & 0x7f
  if (length === 127) return Number(head.readBigUInt64BE(2))
  return length === 126 ? head.readUInt16BE(2) : length
}

/** A Close frame with a status code; a client's is masked (§5.3), here by zeros, since the payload is nothing to hide. */
export function closeFrame(code: number, isMasked: boolean): Buffer {
  const payload = [code >> 8, code & 0xff]
  return Buffer.from(isMasked ? [0x88, 0x82, 0, 0, 0, 0, ...payload] : [0x88, 0x02, ...payload])
}
