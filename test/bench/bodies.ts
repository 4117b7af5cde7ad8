import { fork, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { download, startStreamUpstream, type Streamed, upload } from '../support/stream-load.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { bar } from './bar.ts'
import { cpuMs } from './process-tree.ts'
import { startProgram } from './started.ts'

/**
 * `npm run bench:bodies`: how fast bodies pass up and down, next to the bare proxy plugin in the same run, and how much memory the
 * gateway needs for them. The two take turns, and ratios are taken within a round, because other work on the machine changes.
 */
const { values } = parseArgs({
  options: { gigabytes: { type: 'string', default: '1' }, rounds: { type: 'string', default: '5' } },
})
const rounds = Number(values.rounds)
const bytes = Math.ceil((Number(values.gigabytes) * 1e9) / rounds)
/** What every body needs comes and goes with collections of garbage; a body that is held would need all of its size. */
const CONSTANT_MIB = 64

const upstream = await startStreamUpstream(0)
const folder = temporaryFolder('bodies')
const harness = { url: upstream.url, accounts: { main: {} }, limits: { read: [], write: [] } }
const gateway = await startProgram({ upstreams: { harness } }, folder.path)
const plugin = fork(fileURLToPath(new URL('bare-proxy.ts', import.meta.url)), {
  env: { ...process.env, NODE_ENV: 'production', UPSTREAM: upstream.url },
})
const [{ url }] = (await once(plugin, 'message')) as [{ url: string }]
const bare = { url, pid: plugin.pid! }
if (cpus().length > 1) {
  spawnSync('taskset', ['-a', '-p', '-c', `1-${cpus().length - 1}`, String(process.pid)])
  for (const { pid } of [gateway, bare]) spawnSync('taskset', ['-a', '-p', '-c', '0', String(pid)])
}
try {
  for (const subject of [gateway, bare]) for (const stream of [upload, download]) await timed(stream, subject, 64e6)
  for (const stream of [upload, download]) {
    const [ratios, cpuRatios, speeds]: number[][] = [[], [], []]
    let [before, peak] = [Infinity, 0]
    for (let round = 0; round < rounds; round++) {
      const other = await timed(stream, bare, bytes)
      const own = await timed(stream, gateway, bytes)
      ratios!.push(other.ms / own.ms)
      cpuRatios!.push(own.cpu / other.cpu)
      speeds!.push(bytes / own.ms / 1_000)
      before = Math.min(before, own.rssBefore / 1_048_576)
      peak = Math.max(peak, own.rssPeak / 1_048_576)
    }
    const mebibytes = `${before.toFixed(0)} MiB before, ${peak.toFixed(0)} MiB at its peak`
    console.log(
      `${stream.name}: ${median(speeds!).toFixed(0)} MB/s, ${rounds} times ${(bytes / 1e6).toFixed(0)} MB; ${mebibytes}`,
    )
    bar(`${stream.name}: throughput as a ratio to the bare plugin`, median(ratios!), { atLeast: 0.9 }, '')
    console.log(`        processor time as a ratio to it ${median(cpuRatios!).toFixed(2)}`)
    bar(`${stream.name}: memory beyond that before it`, peak - before, { atMost: CONSTANT_MIB }, 'MiB')
  }
} finally {
  plugin.kill('SIGKILL')
  await gateway.stop()
  upstream.stop()
  folder.remove()
}
process.exit()

async function timed(
  stream: typeof download,
  subject: { url: string; pid: number },
  size: number,
): Promise<Streamed & { ms: number; cpu: number }> {
  const [startedAt, cpuBefore] = [performance.now(), cpuMs([subject.pid])]
  const streamed = await stream(subject, '/harness/body', size, 0)
  if (streamed.bytes !== size) throw new Error(`${streamed.bytes} of ${size} bytes arrived`)
  return { ...streamed, ms: performance.now() - startedAt, cpu: cpuMs([subject.pid]) - cpuBefore }
}

function median(all: readonly number[]): number {
  return all.toSorted((a, b) => a - b)[Math.floor(all.length / 2)]!
}
