import { type FSWatcher, readFileSync, watch } from 'node:fs'
import { dirname } from 'node:path'
import type { Clock, Timer } from '../time/clock.ts'
import type { Answer, SecretSource } from './source.ts'

/** Not every file system tells of changes, and a folder may be replaced as a whole. */
const LOOK_EVERY_MS = 5_000
/** So long after the first sign of a change: what writes a file in pieces is then done with it. */
const SETTLE_MS = 50

/** Files, named by their absolute paths, such as those of a mounted secret; each holds one value. */
export class FileSource implements SecretSource {
  readonly #clock: Clock
  readonly #watchers: FSWatcher[] = []
  #timers = new Set<Timer>()
  #isClosed = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  read(names: readonly string[]): Promise<ReadonlyMap<string, Answer>> {
    return Promise.resolve(new Map(names.map((name) => [name, readSecretFile(name, name)])))
  }

  watch(names: readonly string[], onChange: () => void): void {
    // The folder rather than the file: Kubernetes and editors put another file in its place.
    for (const folder of new Set(names.map((name) => dirname(name)))) this.#watchFolder(folder, onChange)
    const look = (): void => {
      onChange()
      this.#after(LOOK_EVERY_MS, look)
    }
    this.#after(LOOK_EVERY_MS, look)
  }

  close(): Promise<void> {
    this.#isClosed = true
    for (const watcher of this.#watchers) watcher.close()
    for (const timer of this.#timers) timer.cancel()
    return Promise.resolve()
  }

  #watchFolder(folder: string, onChange: () => void): void {
    let isSettling = false
    try {
      const watcher = watch(folder, { persistent: false }, () => {
        if (isSettling) return
        isSettling = true
        this.#after(SETTLE_MS, () => {
          isSettling = false
          onChange()
        })
      })
      // A folder that is removed is looked for by the timer.
      watcher.on('error', () => watcher.close())
      this.#watchers.push(watcher)
    } catch {
      // The timer will do.
    }
  }

  #after(delayMs: number, run: () => void): void {
    if (this.#isClosed) return
    const timer = this.#clock.schedule(delayMs, () => {
      this.#timers.delete(timer)
      run()
    })
    this.#timers.add(timer)
  }
}

/** One trailing line end is dropped. Messages call the file `name`. */
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
