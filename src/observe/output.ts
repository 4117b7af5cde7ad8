import { write, writeSync } from 'node:fs'
import { Socket } from 'node:net'

/**
 * A pipe takes this many bytes whole or not at all (POSIX: PIPE_BUF), so that lines of several processes are not mixed.
 */
const WHOLE_BYTES = 4_096
/** The most bytes that are buffered while nobody reads: about 8,000 lines of calls. */
const MOST_HELD = 4 * 1024 * 1024
/**
 * The most lines of calls that are written together. To a pipe: so many that they fit into an empty one of Linux (64 KiB). To a file: more,
 * because each write wakes another thread, which costs more than a line. A crash loses the lines that wait.
 */
const LINES_TO_PIPE = 64
const LINES_TO_FILE = 256
/** No line waits longer, in milliseconds. A person would not notice it. */
const TOGETHER_MS = 100
/** When to try again: if the reader is slow, and if there is no reader or the disk is full. */
const SLOW_MS = 20
const GONE_MS = 1_000

/** Standard output, or standard error. */
export type Standard = NodeJS.WriteStream & { readonly fd: number }

/**
 * Writes whole lines to standard output, or another stream of the process. It never waits for the reader, so a stalled
 * reader can't stall the process. It buffers a bounded amount; further lines are dropped and counted. Never throws.
 */
export class LineOutput {
  /** Called for every line that is dropped. */
  onDropped: () => void = () => undefined
  readonly #onBack: (dropped: number) => void
  readonly #stream: Standard
  readonly #isFile: boolean
  readonly #mostTogether: number
  /** Lines in pieces of at most `WHOLE_BYTES`, unless one line is longer. */
  readonly #pieces: string[] = []
  #lastBytes = 0
  #heldBytes = 0
  /** Lines that wait for others. */
  #waiting: string[] = []
  #dropped = 0
  /** The rest of the piece that is being written. */
  #current: Buffer | undefined
  #isWriting = false
  /** Whether what came during a write to a file is to be written as soon as that has ended. */
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
    this.#takeWaiting()
    this.#take(line)
    this.flush()
  }

  /** Writes a line a moment later, together with others. The line must end with `\n`, and contain no other. */
  hold(line: string): void {
    this.#waiting.push(line)
    // While nobody reads, lines do not wait here, so that those that are dropped are counted at once.
    if (this.#waiting.length >= this.#mostTogether || this.#retry !== undefined) this.flush()
    else this.#together ??= setTimeout(() => this.flush(), TOGETHER_MS).unref()
  }

  /** Writes what is buffered, as far as the reader takes it now. */
  flush(): void {
    clearTimeout(this.#together)
    this.#together = undefined
    this.#takeWaiting()
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

  /**
   * Takes the lines that wait as one text. If it is all ASCII, as it nearly always is, each character is a byte, and no
   * line has to be measured by itself.
   */
  #takeWaiting(): void {
    const lines = this.#waiting
    if (lines.length === 0) return
    this.#waiting = []
    const text = lines.join('')
    if (Buffer.byteLength(text) > text.length || this.#heldBytes + text.length > MOST_HELD) {
      for (const line of lines) this.#take(line)
      return
    }
    this.#heldBytes += text.length
    for (let start = 0; start < text.length;) {
      const end = this.#isFile ? text.length : endOfPiece(text, start)
      this.#pieces.push(text.slice(start, end))
      this.#lastBytes = end - start
      start = end
    }
  }

  #take(line: string): void {
    const bytes = Buffer.byteLength(line)
    if (this.#heldBytes + bytes > MOST_HELD) {
      this.#dropped++
      this.onDropped()
      return
    }
    this.#heldBytes += bytes
    const last = this.#pieces.length - 1
    if (last >= 0 && this.#lastBytes + bytes <= WHOLE_BYTES) {
      this.#pieces[last] += line
      this.#lastBytes += bytes
    } else {
      this.#pieces.push(line)
      this.#lastBytes = bytes
    }
  }

  #send(): void {
    for (;;) {
      this.#current ??= this.#next()
      if (this.#current === undefined) return this.#onSettled()
      // A disk can be slow, and only another thread can write to a file without blocking.
      if (this.#isFile) return this.#writeToFile(this.#current)
      try {
        // Another process that shares the pipe makes it blocking when it ends. Then a write would wait for the reader.
        handleOf(this.#stream)?.setBlocking(false)
        this.#written(writeSync(this.#stream.fd, this.#current))
      } catch (error) {
        return this.#failed(error as NodeJS.ErrnoException)
      }
    }
  }

  #writeToFile(bytes: Buffer): void {
    this.#isWriting = true
    this.#isDue = false
    write(this.#stream.fd, bytes, (error, count) => {
      this.#isWriting = false
      if (error !== null) return this.#failed(error)
      this.#written(count)
      // Lines that may wait do so: each write wakes another thread, which costs more than a line does.
      // A message that lines were dropped may have begun the next write already.
      if (this.#isWriting) return
      if (this.#isDue || this.#current !== undefined) this.#send()
      else if (this.#pieces.length === 0) this.#onSettled()
    })
  }

  #next(): Buffer | undefined {
    const text = this.#isFile ? this.#pieces.splice(0).join('') : this.#pieces.shift()
    return text === undefined || text === '' ? undefined : Buffer.from(text)
  }

  #written(count: number): void {
    const current = this.#current!
    this.#heldBytes -= count
    this.#current = count < current.length ? current.subarray(count) : undefined
    if (this.#dropped === 0 || this.#current !== undefined) return
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

/** Where a piece of whole lines ends that begins at `start`. */
function endOfPiece(text: string, start: number): number {
  if (text.length - start <= WHOLE_BYTES) return text.length
  const end = text.lastIndexOf('\n', start + WHOLE_BYTES - 1) + 1
  return end > start ? end : text.indexOf('\n', start) + 1
}

/** Node has no public way to make a pipe or a terminal non-blocking. */
function handleOf(stream: object): { setBlocking(isBlocking: boolean): void } | undefined {
  // oxlint-disable-next-line no-underscore-dangle
  return (stream as { _handle?: { setBlocking(isBlocking: boolean): void } })._handle
}
