import { getHeapStatistics, setFlagsFromString } from 'node:v8'

/** A process is quiet if it computes for less than this part of the time. It then serves fewer than some hundred calls a second. */
const QUIET = 0.02
/** So many times as often a quiet process looks whether it still is: with the flags of a quiet one, V8 collects far more garbage. */
const SOONER = 20
/** By how many percent a heap may grow between two collections of all garbage, while it is smaller than so many bytes. */
const GROWTH = [
  { percent: 200, below: 128 * 1_048_576 },
  { percent: 100, below: 256 * 1_048_576 },
]

/**
 * Tells V8 how much memory to hold. Call this once in a process. It looks every `lookEveryMs` milliseconds how busy the process is, and
 * keeps no process running.
 *
 * A quiet process gives back the memory that calls needed, half a minute after most of them have ended. By itself V8 does so only when
 * the process has done nothing at all for 100 s. It gives memory back in small steps, as it collects garbage.
 *
 * A busy process may hold more garbage. By itself V8 often allows so little that it collects all garbage after every 30 MB of bodies,
 * which takes longer than to pass them on.
 */
export function manageMemory(lookEveryMs = 5_000): void {
  let cpu = process.cpuUsage()
  const set = (isQuiet: boolean): void => {
    const bytes = getHeapStatistics().used_heap_size
    const percent = isQuiet ? undefined : GROWTH.find(({ below }) => bytes < below)?.percent
    // V8 asks for these flags whenever it decides how much to keep. With a percentage of 0 it chooses one itself.
    setFlagsFromString(isQuiet ? '--optimize-for-size' : '--no-optimize-for-size')
    setFlagsFromString(`--heap-growing-percent=${percent ?? 0}`)
    lookAfter(isQuiet ? lookEveryMs / SOONER : lookEveryMs)
  }
  const lookAfter = (ms: number): void => {
    const look = (): void => {
      const { user, system } = process.cpuUsage(cpu)
      cpu = process.cpuUsage()
      set((user + system) / 1_000 < QUIET * ms)
    }
    setTimeout(look, ms).unref()
  }
  set(false)
}
