import type { Redis } from 'ioredis'
import { RedisScript } from '../../src/ledger/redis/script.ts'
import type { ScriptHost } from './store.ts'

/** By the clock of the machine, so long that no key ends within a case. */
const AN_HOUR_MS = 3_600_000

/** The script itself, in a real Redis that takes the simulated time. */
export function realHost(redis: Redis, prefix: string): ScriptHost {
  const script = new RedisScript(redis)
  const all = new Set<string>()
  const kept = new Map<string, Buffer>()
  return {
    run(keys, args) {
      const own = keys.map((key) => `${prefix}:${key}`)
      for (const key of own) all.add(key)
      return script.run(own, args)
    },
    runExchange(keys, args) {
      const own = keys.map((key) => `${prefix}:${key}`)
      for (const key of own) all.add(key)
      return script.runExchange(own, args)
    },
    runRegister(keys, args) {
      const own = keys.map((key) => `${prefix}:${key}`)
      for (const key of own) all.add(key)
      return script.runRegister(own, args)
    },
    async lose(isLost) {
      const lost = [...all].filter((key) => isLost(key.slice(prefix.length + 1)))
      if (lost.length > 0) await redis.del(lost)
    },
    async keep() {
      kept.clear()
      for (const key of all) {
        const stored = await redis.dumpBuffer(key)
        if (stored !== null) kept.set(key, stored)
      }
    },
    async restore(what) {
      if (all.size > 0) await redis.del([...all])
      if (what === 'nothing') return
      for (const [key, stored] of kept) await redis.restore(key, AN_HOUR_MS, stored)
    },
  }
}
