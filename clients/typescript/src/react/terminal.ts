// `useTerminal`: what a terminal shows.

import { useMemo } from 'react'
import {
  type Terminal,
  type TerminalOptions,
  type TerminalOutput,
  type TerminalSnapshot,
  terminal,
} from '../helpers/index.js'
import { useShared } from './shared.js'

/** What `useTerminal` gives. */
export interface TerminalView extends TerminalSnapshot {
  /** What was written behind a position, for a screen that draws by itself; 0 for all that is kept. */
  readonly read: (position: number) => TerminalOutput
}

const before: TerminalSnapshot = {
  id: '',
  lines: [],
  dropped: 0,
  position: 0,
  closed: false,
  exit: undefined,
  caughtUp: false,
  error: undefined,
}

/** The terminal `id`: its last 5,000 lines, unless `maxLines` says otherwise. */
export function useTerminal(id: string, options: Omit<TerminalOptions, 'signal'> = {}): TerminalView {
  const [snapshot, act] = useShared<TerminalSnapshot, Terminal>(
    JSON.stringify(['terminal', id, options]),
    (client) => terminal(client, id, { ...options, notifyMs: 0 }),
    before,
  )
  // The same function for as long as it is the same terminal: it tells a screen when to begin anew.
  const read = useMemo(() => {
    return (position: number) => {
      try {
        return act((helper) => helper.read(position))
      } catch {
        // It could not be opened, as `error` says: there is nothing in it.
        return { text: '', position: 0, reset: true }
      }
    }
  }, [act])
  return useMemo(() => ({ ...snapshot, id, read }), [snapshot, id, read])
}
