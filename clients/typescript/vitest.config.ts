import { dirname, join } from 'node:path'
import { defineConfig } from 'vitest/config'

const SRC = join(import.meta.dirname, 'src')
/** What a test asks of the sources is what was built of them: as the package ships it, with its short names. */
const built = {
  name: 'built',
  enforce: 'pre' as const,
  resolveId(source: string, importer: string | undefined) {
    const path = join(dirname(importer ?? ''), source)
    return source.startsWith('.') && path.startsWith(SRC) ? path.replace(SRC, join(SRC, '../dist')) : undefined
  },
}

// Logic and behaviour in Node, components and hooks in a DOM, whole pages in Chromium; and of the first two those that
// go through every entry once more, against what was built.
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
        plugins: [built],
        test: {
          name: 'built',
          environment: 'node',
          include: [
            'test/{basics,transports,vectors}.test.ts',
            'test/helpers/{live,logic,operations,agents,writers,sealed}.test.ts',
            'test/{ag-ui,zustand}/*.test.ts',
            'test/unit/{client,indexeddb,built}.test.ts',
          ],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        plugins: [built],
        test: {
          name: 'built-dom',
          environment: 'happy-dom',
          include: ['test/{react,ui}/**/*.test.tsx', 'test/dom/**/*.test.ts'],
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
