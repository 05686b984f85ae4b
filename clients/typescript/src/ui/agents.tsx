// Who works, at what, and a button to stop it.

import type { ReactElement, ReactNode } from 'react'
import type { AgentInfo } from '../helpers/index.js'
import { useAgents } from '../react/index.js'
import { useLabels } from './labels.js'
import { outer, type PartProps, refused } from './part.js'
import { Kept, useTry } from './press.js'

/** What `AgentList` takes. */
export interface AgentListProps extends PartProps {
  /** Makes the names buttons: called with the id of the one that is chosen. */
  onSelect?: (id: string) => void
  /** The id of the one that is chosen. */
  selected?: string | undefined
  /** What an agent is called. Default its id. */
  name?: (agent: AgentInfo) => ReactNode
  /** Whether there is a button that stops what a busy agent works at. Default `true`. */
  interruptible?: boolean
  /** Options of `useAgents`. */
  options?: Parameters<typeof useAgents>[0]
}

/** All agents: whether they are there, what they say that they do. */
export function AgentList(props: AgentListProps): ReactElement {
  const { agents, ready, error, interrupt } = useAgents(props.options)
  const say = useLabels(props.labels)
  const [failure, attempt] = useTry()
  const { onSelect, selected } = props
  const show = (agent: AgentInfo) => {
    const { id, message } = agent
    const state = agent.online ? (agent.status ?? 'online') : 'offline'
    const name = props.name?.(agent) ?? id
    return (
      <li key={id} data-state={state} data-selected={id === selected}>
        <span className="tidings-dot" aria-hidden="true" />
        {onSelect ? (
          <button type="button" aria-pressed={id === selected} onClick={() => onSelect(id)}>
            {name}
          </button>
        ) : (
          <strong>{name}</strong>
        )}
        <span>{say.status(state)}</span>
        {message && agent.online && <span className="tidings-quiet">{message}</span>}
        {state === 'busy' && (props.interruptible ?? true) && (
          <button type="button" onClick={() => attempt(interrupt(id))}>
            {say.interrupt}
            <span className="tidings-hidden"> {name}</span>
          </button>
        )}
      </li>
    )
  }
  return (
    <Kept {...outer('agents', props)} data-state={error ? 'failed' : ready ? 'ready' : 'loading'}>
      {refused(error ?? failure, say)}
      {agents.length === 0 ? (
        ready && !error && <p className="tidings-quiet">{say.noAgents}</p>
      ) : (
        <ul aria-label={say.agents}>{agents.map(show)}</ul>
      )}
    </Kept>
  )
}
