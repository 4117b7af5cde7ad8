import { runInNewContext } from 'node:vm'
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
/** A process collects garbage while it is quiet if it holds so many bytes more than the fewest since the last time. */
const WORTH = 16 * 1_048_576

/**
 * Tells V8 how much memory to hold. Call this once in a process. It looks every `lookEveryMs` milliseconds how busy the process is, and
 * keeps no process running.
 *
 * A process that becomes quiet gives back the memory that calls needed, within half a minute. By itself V8 does so only when the process
 * has done nothing at all for 100 s, or not at all if it collected too little garbage during the calls. It gives memory back in small
 * steps, as it collects garbage.
 *
 * A busy process may hold more garbage. By itself V8 often allows so little that it collects all garbage after every 30 MB of bodies,
 * which takes longer than to pass them on.
 */
export function manageMemory(lookEveryMs = 5_000): void {
  let cpu = process.cpuUsage()
  let least = getHeapStatistics().total_physical_size
  const set = (isQuiet: boolean): void => {
    const { used_heap_size: used, total_physical_size: held } = getHeapStatistics()
    const percent = isQuiet ? undefined : GROWTH.find(({ below }) => used < below)?.percent
    // V8 asks for these flags whenever it decides how much to keep. With a percentage of 0 it chooses one itself.
    setFlagsFromString(isQuiet ? '--optimize-for-size' : '--no-optimize-for-size')
    setFlagsFromString(`--heap-growing-percent=${percent ?? 0}`)
    const hasGrown = isQuiet && held > least + WORTH
    if (hasGrown) startToCollect()
    // What is held after a collection is needed, and makes it collect no more. A busy look notes it, too: the collection itself may make
    // the next look a busy one.
    least = hasGrown ? Infinity : Math.min(least, held)
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

/** Collects all garbage in small steps, as V8 does by itself. Collecting the young one comes first, and takes about 1 ms. */
function startToCollect(): void {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as NodeJS.GCFunction
  // With this flag V8 starts the steps after any collection.
  setFlagsFromString('--stress-incremental-marking')
  collect({ type: 'minor' })
  setFlagsFromString('--no-stress-incremental-marking')
}
