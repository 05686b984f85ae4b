// The entries of the package, as they are imported, with what each is for.

export const ENTRIES = {
  tidings: { source: 'src/index.ts', about: 'The client: connections, subscriptions, publishing.' },
  'tidings/helpers': {
    source: 'src/helpers/index.ts',
    about: 'Inboxes, operations, structures, streamed messages, chat, agents, terminals, over conventions of topics.',
  },
  'tidings/react': { source: 'src/react/index.ts', about: 'Hooks for React.' },
  'tidings/ui': {
    source: 'src/ui/index.ts',
    about: 'Parts for pages in React; `tidings/ui.css` is what they look like.',
  },
  'tidings/terminal': { source: 'src/ui/terminal.tsx', about: 'A terminal on a page, drawn by xterm.js.' },
  'tidings/indexeddb': { source: 'src/indexeddb.ts', about: 'An outbox that survives a reload.' },
  'tidings/msgpack': { source: 'src/msgpack.ts', about: 'MessagePack as the encoding on the socket.' },
  'tidings/protobuf': { source: 'src/protobuf.ts', about: 'Protobuf as the encoding on the socket.' },
  'tidings/zustand': { source: 'src/zustand/index.ts', about: 'Events as the state of a zustand store.' },
  'tidings/ag-ui': { source: 'src/ag-ui/index.ts', about: 'Agents of AG-UI, whose runs survive reloads.' },
}
