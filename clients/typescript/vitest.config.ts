import { defineConfig } from 'vitest/config'

// Three projects: logic and behaviour in Node, components and hooks in a DOM, whole pages in Chromium.
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'node',
          environment: 'node',
          include: ['test/**/*.test.ts'],
          exclude: ['test/dom/**', 'test/browser/**', 'test/ui/browser/**'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: 'dom',
          environment: 'happy-dom',
          include: ['test/{dom,react,ui}/**/*.test.tsx', 'test/dom/**/*.test.ts'],
          testTimeout: 30_000,
        },
      },
      {
        test: {
          name: 'browser',
          environment: 'node',
          include: ['test/{browser,ui/browser}/**/*.test.ts'],
          testTimeout: 120_000,
          // A browser that starts for the first time reads a lot from the disk.
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
    ],
  },
})
