import { defaultExclude, defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'
import { BEYOND_UNITS, LONGEST, EVERYTHING, SHARED } from './tiers.ts'

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const found = LONGEST.findIndex((file) => moduleId.endsWith(`/${file}`))
      return found < 0 ? LONGEST.length : found
    }
    return (await super.sort(files)).toSorted((a, b) => rank(a) - rank(b))
  }
}

function asTests(glob: string): string {
  return glob.endsWith('/**') ? `${glob}/*.test.ts` : glob
}

export default defineConfig({
  test: {
    root: new URL('..', import.meta.url).pathname,
    // Several files share a process where they can, which saves them half of the time.
    projects: [
      {
        extends: true,
        test: { name: 'rest', include: BEYOND_UNITS.map(asTests), exclude: [...defaultExclude, ...SHARED] },
      },
      { extends: true, test: { name: 'shared', include: SHARED, isolate: false } },
      {
        extends: true,
        test: { name: 'units', include: EVERYTHING, exclude: [...defaultExclude, ...BEYOND_UNITS], isolate: false },
      },
    ],
    globalSetup: ['test/support/global-setup.ts'],
    // These end what hangs, and test no speed: on two cores with a load of five a process may take ten seconds to start.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    expect: { poll: { timeout: 60_000 } },
    // For two cores: two files in three mostly wait, for a window to pass or a process to start.
    maxWorkers: 4,
    sequence: { sequencer: LongestFirst },
    reporters: ['default', new URL('support/summary-reporter.ts', import.meta.url).pathname],
  },
})
