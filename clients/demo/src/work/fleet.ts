// The agents that a window may run. Each has a queue of commands and a terminal; in which window it runs does not matter.

import { agent, terminalWriter } from 'tidings/helpers'
import { client } from '../client'
import { me } from '../me'
import { runLine } from './programs'
import { whileWanted } from './switched'

export const FLEET = ['builder', 'tester', 'counter'] as const

/** What an agent says of itself in the list. */
export interface AgentData {
  readonly window: string
}

/** What an agent is told. */
export interface CommandData {
  readonly line: string
}

/** Resolved when the agent that this window was is not listed any more: it may be another one then. */
let gone: Promise<unknown> = Promise.resolve()

async function run(id: string, signal: AbortSignal): Promise<void> {
  await gone
  if (signal.aborted) return
  const terminal = terminalWriter(client, id, { signal })
  const data: AgentData = { window: me.getState().name }
  const running = agent(client, id, {
    data,
    run: (command, { signal, status }) => {
      const { line } = (command.data ?? {}) as Partial<CommandData>
      return runLine(String(line), { write: (text) => terminal.write(text), status, signal })
    },
  })
  signal.addEventListener('abort', () => {
    gone = running.close()
  })
}

/** Runs the agent that this window is to be. */
export function startFleet(): void {
  for (const id of FLEET) {
    whileWanted(
      ({ agent }) => agent === id,
      (signal) => void run(id, signal),
    )
  }
}
