import { open, type FileHandle, readFile } from 'node:fs/promises'
import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import type { AuditEntry, AuditStore } from './audit.ts'

const LINE_END = 10

/** One line of JSON an entry, in a file that only grows and only its owner can read. An entry is on disk when it returns. */
export class FileAudit implements AuditStore {
  readonly #path: string
  #file: Promise<FileHandle> | undefined
  /** Entries are written one after the other. */
  #last: Promise<void> = Promise.resolve()

  constructor(path: string) {
    this.#path = path
  }

  append(entry: AuditEntry): Promise<void> {
    const written = this.#last.then(async () => {
      const file = await (this.#file ??= this.#open())
      await file.appendFile(`${JSON.stringify(entry)}\n`)
      await file.datasync()
    })
    this.#last = written.catch(() => undefined)
    return written
  }

  async *read(): AsyncIterable<AuditEntry> {
    await this.#last
    let text: string
    try {
      text = await readFile(this.#path, 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
      throw error
    }
    for (const line of text.split('\n').toReversed()) {
      const entry = parse(line)
      if (entry !== undefined) yield entry
    }
  }

  async close(): Promise<void> {
    await this.#last
    await (await this.#file)?.close()
  }

  /** A crash may have left half a line: the next entry begins a new one. */
  async #open(): Promise<FileHandle> {
    mkdirSync(dirname(this.#path), { recursive: true, mode: 0o700 })
    const file = await open(this.#path, 'a+', 0o600)
    const { size } = await file.stat()
    if (size > 0) {
      const { buffer } = await file.read(Buffer.alloc(1), 0, 1, size - 1)
      if (buffer[0] !== LINE_END) await file.appendFile('\n')
    }
    return file
  }
}

/** Undefined for what a crash left of a line. */
function parse(line: string): AuditEntry | undefined {
  try {
    return JSON.parse(line) as AuditEntry
  } catch {
    return undefined
  }
}
