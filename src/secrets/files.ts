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

/** Reads a value without its last line end. Messages call the file `name`. */
export function readSecretFile(path: string, name: string): Answer {
  let text: string
  try {
    text = readFileSync(path, 'utf8').replace(/\r?\n$/, '')
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    const why = code === 'ENOENT' ? 'does not exist' : code === 'EACCES' ? 'may not be read' : `can't be read (${code})`
    return { problem: `the file ${name} ${why}` }
  }
  return { text }
}
