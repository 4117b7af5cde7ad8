import type { Cluster, Redis } from 'ioredis'
import { ioredis } from './client.ts'

/** How Redis keeps its data over a restart; `unknown` if it does not tell, as managed services do not. */
export type Persistence = 'log' | 'snapshots' | 'nothing' | 'unknown'

const BY_WORTH: readonly Persistence[] = ['nothing', 'unknown', 'snapshots', 'log']

/** How Redis keeps its data; with a cluster, the answer of the master that keeps least. Rejects if the connection is lost. */
export async function persistenceOf(redis: Redis | Cluster): Promise<Persistence> {
  const nodes = redis instanceof ioredis().Cluster ? redis.nodes('master') : [redis]
  const all = await Promise.all(nodes.map(ofNode))
  return BY_WORTH.find((worth) => all.includes(worth)) ?? 'unknown'
}

/** https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/ */
async function ofNode(node: Redis): Promise<Persistence> {
  const info = await toldBy(node.info('persistence'))
  if (info !== undefined && /^aof_enabled:1\b/m.test(info)) return 'log'
  // Managed services forbid CONFIG, and may take snapshots on their own.
  const save = await toldBy(node.config('GET', 'save'))
  if (save?.[1] === undefined) return 'unknown'
  if (save[1] !== '') return 'snapshots'
  return info === undefined ? 'unknown' : 'nothing'
}

/** The answer; undefined if Redis forbids the command or does not know it. */
async function toldBy<T>(asked: Promise<T>): Promise<T | undefined> {
  try {
    return await asked
  } catch (error) {
    if (error instanceof ioredis().ReplyError) return undefined
    throw error
  }
}
