// `useAgents`: who works, and telling them what to do.

import { useMemo } from 'react'
import { type Agents, type AgentsOptions, type AgentsSnapshot, agents } from '../helpers/index.js'
import { useShared } from './shared.js'

/** What `useAgents` gives. */
export interface AgentsView<Data = unknown>
  extends AgentsSnapshot<Data>,
    Pick<Agents<Data>, 'command' | 'ask' | 'interrupt'> {}

const before: AgentsSnapshot<never> = { agents: [], ready: false, error: undefined }

/** All agents that this client may see. Components share what they follow them by. */
export function useAgents<Data = unknown>(options: Omit<AgentsOptions, 'signal'> = {}): AgentsView<Data> {
  const [snapshot, act] = useShared<AgentsSnapshot<Data>, Agents<Data>>(
    JSON.stringify(['agents', options]),
    (client) => agents<Data>(client, { ...options, notifyMs: 0 }),
    before,
  )
  return useMemo(
    () => ({
      ...snapshot,
      command: async (agent, data, more) => act((helper) => helper.command(agent, data, more)),
      ask: async (agent, data, more) => act((helper) => helper.ask(agent, data, more)),
      interrupt: async (agent, more) => act((helper) => helper.interrupt(agent, more)),
    }),
    [snapshot, act],
  )
}
