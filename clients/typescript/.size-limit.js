import { existsSync } from 'node:fs'

// The budgets in brotli, as esbuild bundles an entry for a page. Peers are not counted. An entry whose source is not
// there has no budget to keep; one that is there and was not built fails. The hooks are measured without the helpers, and
// the parts without the hooks: a page that uses both has them once.
const peers = ['react', 'react-dom', 'react/jsx-runtime', '@xterm/xterm', 'zustand', 'zustand/vanilla', '@ag-ui/client', 'rxjs']
const entry = (name, file, limit, more = {}) => ({ name, path: `dist/${file}.js`, limit, ignore: peers, ...more })

export default [
  // Aimed at: 12 kB. What is held is what it has, so that it does not grow unseen.
  entry('core: three transports, outbox, subscriptions', 'index', '13.4 kB', { import: '{ createClient }' }),
  entry('msgpack', 'msgpack', '6.5 kB'),
  entry('protobuf', 'protobuf', '9 kB'),
  entry('indexeddb', 'indexeddb', '2.5 kB'),
  entry('helpers, all of them', 'helpers/index', '14.8 kB'),
  entry('react', 'react/index', '3 kB', { ignore: [...peers, '../helpers/index.js'] }),
  entry('ui', 'ui/index', '8 kB', { ignore: [...peers, '../react/index.js', '../helpers/index.js'] }),
  entry('terminal', 'ui/terminal', '3 kB', { ignore: [...peers, '../react/index.js', '../helpers/index.js'] }),
  { name: 'ui.css', path: 'dist/ui/ui.css', limit: '3 kB', brotli: true },
  entry('zustand', 'zustand/index', '1 kB'),
  entry('ag-ui', 'ag-ui/index', '2 kB'),
].filter(({ path }) => ['.ts', '.tsx'].some((end) => existsSync(path.replace('dist/', 'src/').replace(/\.js$/, end))))
