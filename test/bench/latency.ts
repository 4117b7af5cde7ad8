import { type ChildProcess, fork, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { openSync } from 'node:fs'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { bar } from './bar.ts'
import { load, openLoad, startUpstream, stayAwake } from './driver.ts'
import { measureMixedLoad } from './mixed-load.ts'

/**
 * `npm run bench:latency`: what the gateway with everything on adds to the latency of an upstream at half of the load that it can
 * carry at most just then, and the longest turns of its event loop under mixed load (`mixed-load.ts`). `--only added` or `--only turns`
 * measures one of the two.
 */
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    ms: { type: 'string', default: '4000' },
    only: { type: 'string', default: '' },
  },
})
const ROUNDS = Number(values.rounds)
const ROUND_MS = Number(values.ms)
const SATURATING = 64
/** A round counts if it sent from this to that part of what the gateway could carry just before and after it. */
const ABOUT_HALF = [0.4, 0.6] as const
/** So many rounds are made at most for each one that is wanted. */
const MOST_TRIES = 4
/** More than are ever in flight at half of saturation. */
const CONNECTIONS = 256
const PATH = '/harness/ng/api/projects?accountIdentifier=acct1234&pageIndex=0'

// The gateway gets the first core to itself, this process the others.
const canPin =
  cpus().length > 1 && spawnSync('taskset', ['-a', '-p', '-c', `1-${cpus().length - 1}`, `${process.pid}`]).status === 0
if (values.only !== 'turns') await measureAdded()
if (values.only !== 'added') await measureMixedLoad(canPin)
process.exit()

async function measureAdded(): Promise<void> {
  const folder = temporaryFolder('latency')
  const { port, server } = await startUpstream()
  const sleep = stayAwake()
  const { child, gatewayPort } = await startGateway(`http://127.0.0.1:${port}`, folder.path)
  try {
    for (let i = 0; i < 2; i++) await load(gatewayPort, PATH, SATURATING, ROUND_MS / 2) // warm up
    const saturation = async (): Promise<number> => {
      const { requests } = await load(gatewayPort, PATH, SATURATING, ROUND_MS / 4)
      return (requests * 1_000) / (ROUND_MS / 4)
    }
    const added: Record<'p50' | 'p99', number[]> = { p50: [], p99: [] }
    for (let round = 0; added.p50.length < ROUNDS && round < ROUNDS * MOST_TRIES; round++) {
      const before = await saturation()
      const options = { connections: CONNECTIONS, perSecond: before / 2, durationMs: ROUND_MS }
      const through = await openLoad(gatewayPort, PATH, options)
      const after = await saturation()
      const bare = await openLoad(port, PATH, options)
      if (through.failures > 0) throw new Error(`${through.failures} of ${through.requests} calls failed`)
      const [p50, p99] = [at(bare.latencies, 0.5), at(bare.latencies, 0.99)]
      const [ours50, ours99] = [at(through.latencies, 0.5), at(through.latencies, 0.99)]
      const part = before / (before + after)
      const [least, most] = ABOUT_HALF
      const counts = part >= least && part <= most
      console.log(
        `${(before / 2).toFixed(0)} calls a second, ${part.toFixed(2)} of saturation: bare p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms; gateway ${ours50.toFixed(2)}, ${ours99.toFixed(2)}${counts ? '' : '; not about half, so it does not count'}`,
      )
      if (!counts) continue
      added.p50.push(ours50 - p50)
      added.p99.push(ours99 - p99)
    }
    if (added.p50.length < ROUNDS)
      throw new Error('the speed of this machine changes too much to send half of saturation')
    bar('added p50 at half of saturation', at(added.p50.toSorted(ascending), 0.5), { atMost: 1 }, 'ms')
    bar('added p99 at half of saturation', at(added.p99.toSorted(ascending), 0.5), { atMost: 3 }, 'ms')
  } finally {
    sleep()
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
    server.close()
    folder.remove()
  }
}

async function startGateway(upstream: string, store: string): Promise<{ child: ChildProcess; gatewayPort: number }> {
  const child = fork(fileURLToPath(new URL('gateway.ts', import.meta.url)), {
    env: { ...process.env, NODE_ENV: 'production', UPSTREAM: upstream, GATEWAY_STORE: store },
    stdio: ['ignore', openSync('/dev/null', 'w'), 'inherit', 'ipc'],
  })
  if (canPin) spawnSync('taskset', ['-a', '-p', '-c', '0', String(child.pid)])
  const [{ url }] = (await once(child, 'message')) as [{ url: string }]
  return { child, gatewayPort: Number(new URL(url).port) }
}

function at(sorted: ArrayLike<number>, share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!
}

function ascending(a: number, b: number): number {
  return a - b
}
