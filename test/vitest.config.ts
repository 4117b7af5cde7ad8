import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    root: new URL('..', import.meta.url).pathname,
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    // These end what hangs, and test no speed: on two cores with a load of five a process may take ten seconds to start.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    expect: { poll: { timeout: 60_000 } },
    // Two cores: more files at once would only make each other's waits longer.
    maxWorkers: 2,
    reporters: ['default', new URL('support/summary-reporter.ts', import.meta.url).pathname],
  },
})
