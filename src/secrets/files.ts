import { isUtf8 } from 'node:buffer'
import { readFileSync } from 'node:fs'
import { watchContents } from '../files/watch-contents.ts'
import type { Clock } from '../time/clock.ts'
import type { Answer, SecretSource } from './source.ts'

/** Files that hold one value each, such as those of a mounted Kubernetes secret. They are named by absolute paths. */
export class FileSource implements SecretSource {
  readonly #clock: Clock
  #stop: () => void = () => undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  read(names: readonly string[]): Promise<ReadonlyMap<string, Answer>> {
    return Promise.resolve(new Map(names.map((name) => [name, readSecretFile(name, name)])))
  }

  watch(names: readonly string[], onChange: () => void): void {
    this.#stop = watchContents(names, this.#clock, onChange)
  }

  close(): Promise<void> {
    this.#stop()
    return Promise.resolve()
  }
}

const UNREADABLE: Readonly<Record<string, string>> = {
  ENOENT: 'does not exist',
  EACCES: 'may not be read',
  EISDIR: 'is a folder',
}

/** Reads a value without its last line end. Messages call the file `name`. */
export function readSecretFile(path: string, name: string): Answer {
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    return { problem: `the file ${name} ${UNREADABLE[code!] ?? `can't be read (${code})`}` }
  }
  // Comments beside certificates are in any encoding, and nobody reads them.
  if (!isUtf8(bytes) && !bytes.includes('-----BEGIN '))
    return { problem: `the file ${name} is not in UTF-8, so its characters would be others: save it in this encoding` }
  // Some editors write a byte order mark, which is no part of a secret.
  return {
    text: bytes
      .toString()
      .replace(/^\uFEFF/, '')
      .replace(/\r?\n$/, ''),
  }
}
