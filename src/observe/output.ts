import { write, writeSync } from 'node:fs'
import { Socket } from 'node:net'

/**
 * A pipe takes this many bytes whole or not at all (POSIX: PIPE_BUF), so that lines of several processes are not mixed.
 */
const WHOLE_BYTES = 4_096
/** The most bytes that are buffered while nobody reads. */
const MOST_HELD = 4 * 1024 * 1024
/**
 * The most lines of calls that are written together. To a pipe: so many that they fit into an empty one of Linux (64 KiB). To a file: more,
 * because each write wakes another thread, which costs more than a line. A crash loses the lines that wait.
 */
const LINES_TO_PIPE = 64
const LINES_TO_FILE = 256
/** As many bytes as these lines have together. More are written in several pieces. */
const CHUNK_BYTES = LINES_TO_FILE * 1_024
/** The most bytes of UTF-8 that a UTF-16 unit takes. */
export const MOST_BYTES_A_UNIT = 3
export const LINE_END = 10
/** No line waits longer, in milliseconds. A person would not notice it. */
const TOGETHER_MS = 100
/** When to try again: if the reader is slow, and if there is no reader or the disk is full. */
const SLOW_MS = 20
const GONE_MS = 1_000

/** Standard output, or standard error. */
export type Standard = NodeJS.WriteStream & { readonly fd: number }

/** Some whole lines. Those up to `sent` are written. */
interface Chunk {
  readonly bytes: Buffer
  used: number
  sent: number
}

/**
 * Writes whole lines to standard output, or another stream of the process. It never waits for the reader, so a stalled
 * reader can't stall the process. It buffers a bounded amount; further lines are dropped and counted. Never throws.
 * Every line must end with `\n`, and contain no other.
 */
export class LineOutput {
  /** Called for every line that is dropped. */
  onDropped: () => void = () => undefined
  readonly #onBack: (dropped: number) => void
  readonly #stream: Standard
  readonly #isFile: boolean
  readonly #mostTogether: number
  /** The lines that are not written yet, the oldest first. A chunk that is being written to a file gets no more lines. */
  readonly #chunks: Chunk[] = []
  /** Its lines are written. It is used again, because new memory costs more than the lines in it. */
  #spare: Chunk | undefined
  #heldBytes = 0
  /** How many lines wait for others. */
  #waiting = 0
  #dropped = 0
  #isWriting = false
  /** Whether the chunks behind the one that is being written to a file are to be written as soon as that has ended. */
  #isDue = false
  #together: NodeJS.Timeout | undefined
  #retry: NodeJS.Timeout | undefined
  #onSettled: () => void = () => undefined

  /** Once the reader takes lines again, `onBack` is called with the number of lines that were dropped. */
  constructor(onBack: (dropped: number) => void, stream: Standard = process.stdout) {
    this.#onBack = onBack
    this.#stream = stream
    this.#isFile = !(stream instanceof Socket)
    this.#mostTogether = this.#isFile ? LINES_TO_FILE : LINES_TO_PIPE
  }

  /** Writes a line, and those that are buffered, as soon as the reader takes them. */
  write(line: string): void {
    if (line !== '') this.#take(line)
    this.flush()
  }

  /** Writes a line a moment later, together with others. It comes in parts, since to join them would be to copy it once more. */
  hold(start: string, middle = '', end = ''): void {
    this.#take(start, middle, end)
    if (++this.#waiting >= this.#mostTogether) this.flush()
    else this.#together ??= setTimeout(() => this.flush(), TOGETHER_MS).unref()
  }

  /** Writes what is buffered, as far as the reader takes it now. */
  flush(): void {
    clearTimeout(this.#together)
    this.#together = undefined
    this.#waiting = 0
    if (this.#isWriting) this.#isDue = true
    else if (this.#retry === undefined) this.#send()
  }

  /** Resolves when everything is written; at once if there is no reader; after `withinMs` at the latest. */
  close(withinMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, withinMs)
      this.#onSettled = () => {
        clearTimeout(timer)
        resolve()
      }
      this.flush()
    })
  }

  #take(start: string, middle = '', end = ''): void {
    const chunk = this.#chunkFor(start, middle, end)
    if (chunk === undefined) {
      this.#dropped++
      this.onDropped()
      return
    }
    const before = chunk.used
    for (const part of [start, middle, end]) chunk.used += chunk.bytes.write(part, chunk.used)
    this.#heldBytes += chunk.used - before
  }

  /** The chunk with room for a line; undefined if too much is held. */
  #chunkFor(start: string, middle: string, end: string): Chunk | undefined {
    const last = this.#isWriting && this.#chunks.length === 1 ? undefined : this.#chunks.at(-1)
    const room = last === undefined ? 0 : last.bytes.length - last.used
    // Its bytes are counted only if it might not fit.
    const most = (start.length + middle.length + end.length) * MOST_BYTES_A_UNIT
    if (most <= room && this.#heldBytes + most <= MOST_HELD) return last
    const bytes = Buffer.byteLength(start) + Buffer.byteLength(middle) + Buffer.byteLength(end)
    if (this.#heldBytes + bytes > MOST_HELD) return undefined
    if (bytes <= room) return last
    const chunk = bytes > CHUNK_BYTES ? newChunk(bytes) : (this.#spare ?? newChunk(CHUNK_BYTES))
    if (chunk === this.#spare) this.#spare = undefined
    this.#chunks.push(chunk)
    return chunk
  }

  #send(): void {
    for (;;) {
      const chunk = this.#chunks[0]
      if (chunk === undefined) return this.#onSettled()
      // A disk can be slow, and only another thread can write to a file without blocking.
      if (this.#isFile) return this.#writeToFile(chunk)
      try {
        // Another process that shares the pipe makes it blocking when it ends. Then a write would wait for the reader.
        handleOf(this.#stream)?.setBlocking(false)
        this.#written(chunk, writeSync(this.#stream.fd, chunk.bytes.subarray(chunk.sent, endOfPiece(chunk))))
      } catch (error) {
        return this.#failed(error as NodeJS.ErrnoException)
      }
    }
  }

  #writeToFile(chunk: Chunk): void {
    this.#isWriting = true
    this.#isDue = this.#chunks.length > 1
    write(this.#stream.fd, chunk.bytes.subarray(chunk.sent, chunk.used), (error, count) => {
      this.#isWriting = false
      if (error !== null) return this.#failed(error)
      this.#written(chunk, count)
      // A message that lines were dropped may have begun the next write already.
      if (this.#isWriting) return
      // Lines that may wait do so: each write wakes another thread, which costs more than a line does.
      if (this.#isDue || this.#waiting === 0 || chunk === this.#chunks[0]) this.#send()
    })
  }

  #written(chunk: Chunk, count: number): void {
    this.#heldBytes -= count
    chunk.sent += count
    if (chunk.sent < chunk.used) return
    this.#chunks.shift()
    if (chunk.bytes.length === CHUNK_BYTES) {
      chunk.used = chunk.sent = 0
      this.#spare = chunk
    }
    if (this.#dropped === 0) return
    const dropped = this.#dropped
    this.#dropped = 0
    this.#onBack(dropped)
  }

  #failed({ code }: NodeJS.ErrnoException): void {
    const isSlow = code === 'EAGAIN'
    this.#retry = setTimeout(
      () => {
        this.#retry = undefined
        this.#send()
      },
      isSlow ? SLOW_MS : GONE_MS,
    ).unref()
    if (!isSlow) this.#onSettled()
  }
}

/** The buffer is not taken from Node's pool, which would stay alive with it. */
function newChunk(bytes: number): Chunk {
  return { bytes: Buffer.allocUnsafeSlow(bytes), used: 0, sent: 0 }
}

/** Where a piece of whole lines ends that begins with the first one that is not sent: after `WHOLE_BYTES` at most, or a longer line. */
function endOfPiece({ bytes, used, sent }: Chunk): number {
  if (used - sent <= WHOLE_BYTES) return used
  const end = bytes.lastIndexOf(LINE_END, sent + WHOLE_BYTES - 1) + 1
  return end > sent ? end : bytes.indexOf(LINE_END, sent) + 1
}

/** Node has no public way to make a pipe or a terminal non-blocking. */
function handleOf(stream: object): { setBlocking(isBlocking: boolean): void } | undefined {
  // oxlint-disable-next-line no-underscore-dangle
  return (stream as { _handle?: { setBlocking(isBlocking: boolean): void } })._handle
}
