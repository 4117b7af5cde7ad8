import { setTimeout as pause } from 'node:timers/promises'
import { getHeapSpaceStatistics } from 'node:v8'
import { manageMemory } from '../../src/cli/memory.ts'

/** Has V8 enlarge its young generation, becomes quiet, and prints both sizes in MB. Run by memory.test.ts. */
const size = (): number =>
  getHeapSpaceStatistics().find((space) => space.space_name === 'new_space')!.physical_space_size / 1_048_576
const kept: object[][] = []
for (let i = 0; i < 400; i++) {
  kept.push(Array.from({ length: 5_000 }, (_, n) => ({ n })))
  if (kept.length > 40) kept.shift()
}
const grown = size()
manageMemory(500)
// By itself V8 would give it back after 100 s.
for (const end = performance.now() + 60_000; size() > grown / 2 && performance.now() < end;) await pause(50)
console.log(JSON.stringify({ grown, quiet: size() }))
