import type { Reporter, TestModule, Vitest } from 'vitest/node'
import { hasProgram, PROGRAMS } from './packages.ts'

/** Ends a run with one plain line: how many tests passed, failed and were skipped. Of those it says where, and what is missing. */
export default class SummaryReporter implements Reporter {
  #isOfSome = false

  onInit(vitest: Vitest): void {
    // Who names tests has left out the others.
    this.#isOfSome = vitest.config.testNamePattern !== undefined
  }

  onTestRunEnd(modules: readonly TestModule[]): void {
    const counts = { passed: 0, failed: 0, skipped: 0, pending: 0 }
    const skipped = new Map<string, number>()
    for (const module of modules) {
      for (const test of module.children.allTests()) {
        const { state } = test.result()
        counts[state]++
        if (state === 'skipped') skipped.set(module.relativeModuleId, (skipped.get(module.relativeModuleId) ?? 0) + 1)
      }
      // A file that can't even be loaded has no tests to count.
      if (module.state() === 'failed' && module.children.size === 0) counts.failed++
    }
    const isTold = skipped.size > 0 && !this.#isOfSome
    if (isTold) console.log(describeSkipped(skipped))
    const rest = counts.skipped > 0 ? `, ${counts.skipped} ${isTold ? 'SKIPPED, see above' : 'skipped'}` : ''
    console.log(`${counts.passed} passed, ${counts.failed} failed${rest}`)
  }
}

/** Whoever reads a green run should not believe that what could not run has passed. */
function describeSkipped(skipped: ReadonlyMap<string, number>): string {
  const missing = Object.keys(PROGRAMS).filter((name) => !hasProgram(name))
  const lines = [...skipped].map(([file, count]) => `  ${file}: ${count}`)
  const reasons = missing.map((name) => `  ${name}: ${PROGRAMS[name]}`)
  if (process.getuid?.() !== 0) reasons.push('  root: tests with a full disk mount a small one')
  return ['', 'NOT TESTED HERE:', ...lines, 'This machine lacks:', ...reasons, ''].join('\n')
}
