import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    root: new URL('..', import.meta.url).pathname,
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // What is polled for comes at once, but for processes that start on a machine with too little time for them.
    expect: { poll: { timeout: 10_000 } },
    // Two cores: more files at once would only make each other's waits longer.
    maxWorkers: 2,
    reporters: ['default', new URL('support/summary-reporter.ts', import.meta.url).pathname],
  },
})
