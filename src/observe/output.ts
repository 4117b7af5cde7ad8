import { write, writeSync } from 'node:fs'
import { Socket } from 'node:net'

/** A pipe takes so many bytes whole or not at all (POSIX: PIPE_BUF): lines of several processes don't cut each other up. */
const WHOLE_BYTES = 4_096
/** Most bytes that are held while nobody reads: about 8,000 lines of calls. */
const MOST_HELD = 4 * 1024 * 1024
/**
 * Lines of calls are written together: 64 of them are a few system calls. No line is held longer than a person who follows the
 * log would notice. A crash loses those that are held.
 */
const LINES_TOGETHER = 64
const TOGETHER_MS = 100
/** When to try again: if the reader has no room now, and if there is no reader or no room on the disk. */
const SLOW_MS = 20
const GONE_MS = 1_000

/**
 * Standard output, for whole lines. Never waits for the reader, so a reader that has stalled can't stall the process. Holds a
 * bounded amount of what is not read; further lines are dropped and counted. Never throws.
 */
export class LineOutput {
  /** Is told of every line that is dropped. */
  onDropped: () => void = () => undefined
  readonly #onBack: (dropped: number) => void
  readonly #isFile = !(process.stdout instanceof Socket)
  /** Lines in pieces of at most `WHOLE_BYTES`, unless one line is longer. */
  readonly #pieces: string[] = []
  #lastBytes = 0
  #heldBytes = 0
  #heldLines = 0
  #dropped = 0
  /** What of a piece is to be written next. */
  #current: Buffer | undefined
  #isWriting = false
  #together: NodeJS.Timeout | undefined
  #retry: NodeJS.Timeout | undefined
  #onSettled: () => void = () => undefined

  /** `onBack` is told how many lines were dropped, once the reader takes lines again. */
  constructor(onBack: (dropped: number) => void) {
    this.#onBack = onBack
  }

  /** Writes a line, and those that are held, as soon as the reader takes them. */
  write(line: string): void {
    this.#take(line)
    this.flush()
  }

  /** The same a moment later, together with other lines. */
  hold(line: string): void {
    this.#take(line)
    if (++this.#heldLines >= LINES_TOGETHER) this.flush()
    else this.#together ??= setTimeout(() => this.flush(), TOGETHER_MS).unref()
  }

  /** Writes what the reader takes now. */
  flush(): void {
    clearTimeout(this.#together)
    this.#together = undefined
    this.#heldLines = 0
    if (!this.#isWriting && this.#retry === undefined) this.#send()
  }

  /** Resolves when everything is written, at once if there is no reader, and after `withinMs` anyway. */
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
      // A disk can be slow, and there is no way to write to a file without waiting for it, but on another thread.
      if (this.#isFile) return this.#writeToFile(this.#current)
      try {
        // A process that shares the pipe sets this back when it ends; a write would wait for the reader from then on.
        handleOf(process.stdout)?.setBlocking(false)
        this.#written(writeSync(1, this.#current))
      } catch (error) {
        return this.#failed(error as NodeJS.ErrnoException)
      }
    }
  }

  #writeToFile(bytes: Buffer): void {
    this.#isWriting = true
    write(1, bytes, (error, count) => {
      this.#isWriting = false
      if (error !== null) return this.#failed(error)
      this.#written(count)
      this.#send()
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

/** Node tells nowhere else how to write to a pipe or a terminal without waiting. */
function handleOf(stream: object): { setBlocking(isBlocking: boolean): void } | undefined {
  // oxlint-disable-next-line no-underscore-dangle
  return (stream as { _handle?: { setBlocking(isBlocking: boolean): void } })._handle
}
