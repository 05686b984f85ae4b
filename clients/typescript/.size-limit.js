import { existsSync } from 'node:fs'
import { rolldown } from 'rolldown'

// The budgets in brotli, as a bundler makes an entry for a page. Peers are not counted. An entry whose source is not
// there has no budget to keep; one that is there and was not built fails. The hooks are measured without the helpers, and
// the parts without the hooks: a page that uses both has them once.
const peers = ['react', 'react-dom', 'react/jsx-runtime', '@xterm/xterm', 'zustand', 'zustand/vanilla', '@ag-ui/client', 'rxjs']
const entry = (name, file, limit, more = {}) => ({ name, path: `dist/${file}.js`, limit, ignore: peers, ...more })

// What most pages get of the core: Vite's bundler, with what Vite tells it for a page. It gives nested functions short
// names again, as terser and swc do; with esbuild, which measures all the rest here, no two names in reach of each other
// are the same.
const core = 'node_modules/.cache/tidings/core.js'
const bundle = await rolldown({ input: 'core', plugins: [{
  name: 'core',
  resolveId: (id) => (id === 'core' ? id : null),
  load: (id) => (id === 'core' ? `export { createClient } from '${import.meta.dirname}/dist/index.js'` : null),
}] })
const comments = { annotation: false, jsdoc: false, legal: false }
await bundle.write({ file: core, minify: true, topLevelVar: true, comments })

export default [
  // What was asked for, and what it keeps to.
  { name: 'core: three transports, outbox, subscriptions', path: core, limit: '12 kB', brotli: true, disablePlugins: ['@size-limit/esbuild'] },
  entry('core, by esbuild', 'index', '12.7 kB', { import: '{ createClient }' }),
  entry('msgpack', 'msgpack', '6.5 kB'),
  entry('protobuf', 'protobuf', '9 kB'),
  entry('indexeddb', 'indexeddb', '2.5 kB'),
  entry('helpers, all of them', 'helpers/index', '16 kB'),
  entry('react', 'react/index', '3 kB', { ignore: [...peers, '../helpers/index.js'] }),
  entry('ui', 'ui/index', '8 kB', { ignore: [...peers, '../react/index.js', '../helpers/index.js'] }),
  entry('terminal', 'ui/terminal', '3.5 kB', { ignore: [...peers, '../react/index.js', '../helpers/index.js'] }),
  { name: 'ui.css', path: 'dist/ui/ui.css', limit: '3 kB', brotli: true },
  entry('zustand', 'zustand/index', '1 kB'),
  entry('ag-ui', 'ag-ui/index', '2 kB'),
].filter(({ path }) => path === core || ['.ts', '.tsx'].some((end) => existsSync(path.replace('dist/', 'src/').replace(/\.js$/, end))))
