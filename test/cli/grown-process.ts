import { constants, PerformanceObserver } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import { getHeapSpaceStatistics } from 'node:v8'
import { manageMemory } from '../../src/cli/memory.ts'

/**
 * Has V8 enlarge its heap while it is busy, needs half of it still when it becomes quiet, and prints the size of the young generation
 * before and after, in MB, and how often V8 collected all garbage from then on. Run by memory.test.ts.
 */
const size = (): number =>
  getHeapSpaceStatistics().find((space) => space.space_name === 'new_space')!.physical_space_size / 1_048_576
manageMemory(100)
const kept: object[][] = []
// On a busy machine it takes longer: a process that hardly gets the processor is taken for a quiet one.
for (let i = 0; i < 400 || (size() <= 10 && i < 40_000); i++) {
  kept.push(Array.from({ length: 5_000 }, (_, n) => ({ n })))
  if (kept.length > 200) kept.splice(100, 1)
  if (i % 10 === 0) await pause(1)
}
const grown = size()
let collections = 0
new PerformanceObserver((list) => {
  for (const { detail } of list.getEntries() as { detail?: { kind: number } }[])
    if (detail?.kind === constants.NODE_PERFORMANCE_GC_MAJOR) collections++
}).observe({ type: 'gc' })
for (const end = performance.now() + 60_000; size() > grown / 2 && performance.now() < end;) await pause(50)
const quiet = size()
await pause(1_000)
console.log(JSON.stringify({ grown, quiet, collections, needed: kept.length }))
