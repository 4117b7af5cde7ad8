import { open, type FileHandle } from 'node:fs/promises'
import { dirname } from 'node:path'
import { give, makeFolder, ownerAt } from '../files/owner.ts'
import { LINE_END } from '../observe/output.ts'
import { parsedJson } from '../schema/json.ts'
import type { AuditEntry, AuditStore } from './audit.ts'

const BLOCK_BYTES = 65_536

/**
 * Stores entries as lines of JSON in a file that only grows and that only its owner can read. `append` resolves once
 * the entry is on disk. An entry that could not be written, because the disk is full, leaves no part behind and does
 * not block the next.
 */
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
      try {
        await file.appendFile(`${JSON.stringify(entry)}\n`)
        await file.datasync()
      } catch (error) {
        await cutUnfinished(file).catch(() => undefined)
        await this.#reopen()
        throw error
      }
    })
    this.#last = written.catch(() => undefined)
    return written
  }

  /** From the end, a block at a time: the file may be of any size. */
  async *read(): AsyncIterable<AuditEntry> {
    await this.#last
    const found = await open(this.#path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined
      throw error
    })
    if (found === undefined) return
    await using file = found
    /** The end of a line that begins in the block before. */
    let rest = Buffer.alloc(0)
    for (let { size: end } = await file.stat(); end > 0;) {
      const start = Math.max(0, end - BLOCK_BYTES)
      const { buffer, bytesRead } = await file.read(Buffer.alloc(end - start), 0, end - start, start)
      const bytes = Buffer.concat([buffer.subarray(0, bytesRead), rest])
      // The first whole line; none if a line is longer than the block.
      const first = bytes.indexOf(LINE_END) + 1 || bytes.length
      const whole = start === 0 ? 0 : first
      end = start
      rest = bytes.subarray(0, whole)
      for (const line of bytes.toString('utf8', whole).split('\n').toReversed()) {
        const entry = parsedJson(line)
        if (entry !== undefined) yield entry as AuditEntry
      }
    }
  }

  async close(): Promise<void> {
    await this.#last
    await this.#reopen()
  }

  async #openFile(): Promise<FileHandle> {
    const owner = ownerAt(this.#path)
    const made = await open(this.#path, 'ax+', 0o600).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
      return undefined
    })
    // A link to a file that is not there yet is there already. What it leads to is made by this call.
    if (made === undefined) return open(this.#path, 'a+', 0o600)
    try {
      give(made.fd, owner)
      return made
    } catch (error) {
      await made.close()
      throw error
    }
  }

  /** Closes the file. The next entry opens it again. */
  async #reopen(): Promise<void> {
    const file = this.#file
    this.#file = undefined
    await (await file?.catch(() => undefined))?.close()
  }

  async #open(): Promise<FileHandle> {
    try {
      makeFolder(dirname(this.#path))
      const file = await this.#openFile()
      try {
        await endLine(file)
        return file
      } catch (error) {
        await file.close()
        throw error
      }
    } catch (error) {
      // Otherwise no entry would ever be written again.
      this.#file = undefined
      throw error
    }
  }
}

/** Ends a line of which a crash left only a part, so that the next entry begins a new one. */
async function endLine(file: FileHandle): Promise<void> {
  const { size } = await file.stat()
  if (size === 0) return
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, size - 1)
  if (buffer[0] !== LINE_END) await file.appendFile('\n')
}

/** Removes the part of a line that still fitted on the disk. */
async function cutUnfinished(file: FileHandle): Promise<void> {
  const { size } = await file.stat()
  const block = Buffer.alloc(BLOCK_BYTES)
  for (let end = size; end > 0;) {
    const start = Math.max(0, end - BLOCK_BYTES)
    const { bytesRead } = await file.read(block, 0, end - start, start)
    const last = block.subarray(0, bytesRead).lastIndexOf(LINE_END)
    if (last !== -1 || start === 0) {
      const kept = start + last + 1
      if (kept < size) await file.truncate(kept)
      return
    }
    end = start
  }
}
