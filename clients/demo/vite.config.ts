import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vite'
import { oneFile } from './build/one-file.ts'

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))
const client = (path: string): string => here(`../typescript/src/${path}`)
/** The broker that the page of `npm run dev` speaks to. */
const broker = process.env.TIDINGS_URL ?? 'http://127.0.0.1:8080'

export default defineConfig({
  plugins: [oneFile()],
  resolve: {
    // The client's sources as they are here: a change of them is seen at once, and nothing is built before.
    alias: [
      { find: /^tidings$/, replacement: client('index.ts') },
      { find: 'tidings/helpers', replacement: client('helpers/index.ts') },
      { find: 'tidings/indexeddb', replacement: client('indexeddb.ts') },
      { find: 'tidings/react', replacement: client('react/index.ts') },
      { find: 'tidings/terminal', replacement: client('ui/terminal.tsx') },
      { find: 'tidings/ui.css', replacement: client('ui/ui.css') },
      { find: /^tidings\/ui$/, replacement: client('ui/index.ts') },
      { find: 'tidings/zustand', replacement: client('zustand/index.ts') },
    ],
    // Theirs are ours, whatever is installed beside them.
    dedupe: ['react', 'react-dom', 'zustand', '@xterm/xterm'],
  },
  server: {
    fs: { allow: [here('..')] },
    // The broker takes no foreign page's requests: these are those of its own.
    proxy: { '/v1': { target: broker, ws: true, changeOrigin: true, headers: { origin: broker } } },
  },
  build: {
    // `light-dark()` as it is.
    target: ['chrome123', 'firefox128', 'safari17.5'],
    modulePreload: false,
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    chunkSizeWarningLimit: 2_000,
    rolldownOptions: {
      output: { codeSplitting: false },
      // How long plugins take is no warning of the build.
      checks: { pluginTimings: false },
      // A page has no server components: 'use client' has nothing to say to it.
      onwarn: (warning, warn) => void (warning.code === 'MODULE_LEVEL_DIRECTIVE' || warn(warning)),
    },
  },
})
