import { setFlagsFromString } from 'node:v8'

/** A process is quiet if it computes for less than this part of the time. It then serves fewer than some hundred calls a second. */
const QUIET = 0.02

/**
 * Has V8 give back the memory that calls needed, half a minute after most of them have ended. By itself V8 does so only when the process
 * has done nothing at all for 100 s. It gives memory back in small steps, as it collects garbage. Call this once in a process; it looks
 * every `lookEveryMs` milliseconds, and keeps no process running.
 */
export function giveMemoryBack(lookEveryMs = 5_000): void {
  let cpu = process.cpuUsage()
  let wasQuiet = false
  const look = (): void => {
    const { user, system } = process.cpuUsage(cpu)
    cpu = process.cpuUsage()
    const isQuiet = (user + system) / 1_000 < QUIET * lookEveryMs
    if (isQuiet === wasQuiet) return
    wasQuiet = isQuiet
    // V8 asks for this flag whenever it decides how much to keep.
    setFlagsFromString(isQuiet ? '--optimize-for-size' : '--no-optimize-for-size')
  }
  setInterval(look, lookEveryMs).unref()
}
