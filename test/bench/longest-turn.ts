import { writeFileSync } from 'node:fs'
import type { Profiler } from 'node:inspector'
import { Session } from 'node:inspector/promises'
import { join } from 'node:path'

/**
 * Loaded into a process by `--import`: on SIGUSR2 it writes the longest turns of the event loop since the last signal into a
 * file named by its pid, in milliseconds. A turn is the processor time of the main thread between two runs of a timer,
 * collections of garbage included, so that the figure holds on a busy machine. It is up to a millisecond too long.
 * With `LONGEST_TURNS_CAUSES` it writes beside it what the longest turn was busy with, from a profile.
 */
const folder = process.env['LONGEST_TURNS']
if (folder === undefined) throw new Error('LONGEST_TURNS names no folder')
const session = process.env['LONGEST_TURNS_CAUSES'] === undefined ? undefined : new Session()
session?.connect()
const cpuMs = (): number => {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1_000
}
/** The clock of profiles. */
const micros = (): number => Number(process.hrtime.bigint() / 1_000n)
interface Turn {
  readonly ms: number
  readonly from: number
  readonly to: number
}
let turns: Turn[] = []
let before = cpuMs()
let beganAt = micros()
setInterval(() => {
  const now = cpuMs()
  const at = micros()
  if (now - before > 1) turns.push({ ms: now - before, from: beganAt, to: at })
  before = now
  beganAt = at
}, 1).unref()
await session?.post('Profiler.enable')
await session?.post('Profiler.setSamplingInterval', { interval: 250 })
await session?.post('Profiler.start')
process.on('SIGUSR2', () => void report())

async function report(): Promise<void> {
  const longest = turns.toSorted((a, b) => b.ms - a.ms)
  const profile = (await session?.post('Profiler.stop'))?.profile
  const name = join(folder!, String(process.pid))
  if (profile !== undefined)
    writeFileSync(`${name}.cause`, longest[0] === undefined ? '' : causeOf(profile, longest[0]))
  writeFileSync(name, JSON.stringify(longest.slice(0, 10).map(({ ms }) => ms)))
  await session?.post('Profiler.start')
  turns = []
  before = cpuMs()
  beganAt = micros()
}

/** The functions of the gateway on the busiest path of a turn, the outermost first, each with its share of the turn. */
function causeOf({ nodes, samples = [], timeDeltas = [], startTime }: Profiler.Profile, { from, to }: Turn): string {
  const self = new Map<number, number>()
  let at = startTime
  for (const [i, id] of samples.entries()) {
    at += timeDeltas[i]!
    if (at > from && at <= to) self.set(id, (self.get(id) ?? 0) + 1)
  }
  const byId = new Map(nodes.map((node) => [node.id, node]))
  const whole = (node: Profiler.ProfileNode): number => {
    let sum = self.get(node.id) ?? 0
    for (const child of node.children ?? []) sum += whole(byId.get(child)!)
    return sum
  }
  const path: string[] = []
  let node = nodes[0]!
  const all = whole(node)
  for (;;) {
    const children = (node.children ?? []).map((id) => byId.get(id)!)
    const [busiest] = children.map((child) => [whole(child), child] as const).toSorted(([a], [b]) => b - a)
    if (busiest === undefined || busiest[0] * 4 < all || busiest[0] === 0) break
    node = busiest[1]
    const { functionName, url, lineNumber } = node.callFrame
    const file = url.replace(/^.*\/(?=src\/|node_modules\/)/, '')
    const share = `${((100 * busiest[0]) / all).toFixed(0)} %`
    path.push(`${functionName || '(anonymous)'} ${file}:${lineNumber + 1} ${share}`)
  }
  const ours = path.filter((step) => step.includes(' src/'))
  return [...(ours.length > 0 ? ours : path).slice(-4)].join(' > ')
}
