import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

/**
 * Loaded into a process by `--import`: on SIGUSR2 it writes the longest turns of the event loop since the last signal into a
 * file named by its pid, in milliseconds. A turn is the processor time of the main thread between two runs of a timer,
 * collections of garbage included, so that the figure holds on a busy machine. It is up to a millisecond too long.
 */
const folder = process.env['LONGEST_TURNS']
if (folder === undefined) throw new Error('LONGEST_TURNS names no folder')
const cpuMs = (): number => {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1_000
}
let turns: number[] = []
let before = cpuMs()
setInterval(() => {
  const now = cpuMs()
  if (now - before > 1) turns.push(now - before)
  before = now
}, 1).unref()
process.on('SIGUSR2', () => {
  const longest = turns.toSorted((a, b) => b - a)
  writeFileSync(join(folder, String(process.pid)), JSON.stringify(longest.slice(0, 10)))
  turns = []
  before = cpuMs()
})
