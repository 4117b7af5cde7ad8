/** The most bytes of a frame's head: two, eight for an extended length, and four for the mask. */
const LONGEST_HEAD = 14
const CLOSE = 0x8

/**
 * Finds the ends of frames in a stream of WebSocket frames (RFC 6455 §5.2), so that the gateway can put a frame of its own
 * between two of them. It reads only the heads of the frames.
 */
export class Frames {
  readonly #head = Buffer.alloc(LONGEST_HEAD)
  /** How many bytes of the next head have been read, and how many of the current payload are still to come. */
  #headBytes = 0
  #left = 0
  /** Whether a Close frame has begun. No frame may follow it. */
  hasClosed = false

  get isBetweenFrames(): boolean {
    return this.#headBytes === 0 && this.#left === 0
  }

  /** Reads the next bytes of the stream. */
  read(chunk: Buffer): void {
    for (let at = 0; at < chunk.length;) at = this.#step(chunk, at)
  }

  /** Reads to the end of the frame that has begun. Returns how many bytes of the chunk belong to that frame. */
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

/** A Close frame with a status code. A client must mask its frames (§5.3). A mask of zeros is enough: the code is no secret. */
export function closeFrame(code: number, isMasked: boolean): Buffer {
  const payload = [code >> 8, code & 0xff]
  return Buffer.from(isMasked ? [0x88, 0x82, 0, 0, 0, 0, ...payload] : [0x88, 0x02, ...payload])
}
