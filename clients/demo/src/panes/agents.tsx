// Agents: who is there, what they do, what they are told, and what their terminals show.

import { type FormEvent, type ReactElement, useState } from 'react'
import type { AgentInfo } from 'tidings/helpers'
import { useAgents, useConnection } from 'tidings/react'
import { Terminal } from 'tidings/terminal'
import { AgentList } from 'tidings/ui'
import { useStore } from 'zustand'
import { me } from '../me'
import { nonce } from '../nonce'
import { Pane } from '../parts/pane'
import { type AgentData, type CommandData, FLEET } from '../work/fleet'

const EXAMPLES = ['build', 'count 500', 'fail']

export function AgentsPane(): ReactElement {
  const [selected, setSelected] = useState<string>(FLEET[0])
  const { agents } = useAgents<AgentData>()
  const { agent: ours } = useStore(me)
  const { transport = 'websocket' } = useConnection()
  const isElsewhere = (id: string) => id !== ours && agents.some((agent) => agent.id === id && agent.online)
  return (
    <Pane
      name="agents"
      title="Agents"
      about="Commands wait in the queue of an agent, also while it is away; Stop overtakes them. Start one, close its window in the middle of a command, and start it in another."
    >
      <fieldset>
        <legend>This window runs (a program of the page, no shell)</legend>
        {[undefined, ...FLEET].map((id) => (
          <label key={id ?? ''}>
            <input
              type="radio"
              name="agent"
              checked={ours === id}
              disabled={id !== undefined && isElsewhere(id)}
              onChange={() => me.setState({ agent: id })}
            />
            {id ?? 'no agent'}
          </label>
        ))}
      </fieldset>
      {ours !== undefined && transport === 'poll' && (
        <p className="quiet">Over a long poll {ours} is not listed as online; it works all the same.</p>
      )}
      <AgentList onSelect={setSelected} selected={selected} name={nameOf} />
      <Command key={selected} agent={selected} />
      <Terminal id={selected} nonce={nonce} className="screen" />
    </Pane>
  )
}

function nameOf({ id, online, data }: AgentInfo): string {
  const { window } = (data ?? {}) as Partial<AgentData>
  return online && window ? `${id} (${window})` : id
}

function Command({ agent }: { agent: string }): ReactElement {
  const { command } = useAgents<AgentData>()
  const [line, setLine] = useState('')
  const send = (line: string) => {
    const data: CommandData = { line }
    command(agent, data).catch(() => undefined)
  }
  const submit = (event: FormEvent) => {
    event.preventDefault()
    if (line.trim() === '') return
    send(line)
    setLine('')
  }
  return (
    <form className="command" onSubmit={submit}>
      <label className="field">
        <span>Tell {agent}</span>
        <input
          type="text"
          placeholder={EXAMPLES.join(', ')}
          autoComplete="off"
          autoCapitalize="off"
          spellCheck={false}
          value={line}
          onChange={(event) => setLine(event.target.value)}
        />
      </label>
      <span className="buttons">
        <button type="submit">Run</button>
        {EXAMPLES.map((example) => (
          <button key={example} type="button" onClick={() => send(example)}>
            {example}
          </button>
        ))}
      </span>
    </form>
  )
}
