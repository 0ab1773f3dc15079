import { defineConfig } from 'vitest/config'
import tally from './test/tally.ts'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Each file in a process of its own: native modules and killed children of one file cannot touch another.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 30_000,
    expect: { poll: { timeout: 15_000 } },
    // Real processes on a busy machine miss a deadline now and then; what passed only when tried again is named at the end.
    retry: 2,
    reporters: ['default', tally],
  },
})
