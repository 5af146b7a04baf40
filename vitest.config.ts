import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    projects: [
      {
        // About a minute, with `npm run check`.
        test: {
          name: 'fast',
          include: ['test/{unit,contract,protocol}/**/*.test.ts'],
          testTimeout: 10_000,
        },
      },
      {
        // Real brokers, killed processes, full disks: one file at a time, so that none slows or starves another on two cores.
        test: {
          name: 'whole',
          include: ['test/{model,integration,fault,hostile,binary,bench}/**/*.test.ts'],
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
})
