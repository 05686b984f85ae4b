// The connection: how it stands, and a line to the broker that can be cut, slowed down and narrowed.

import { type ReactElement, useEffect, useId, useState } from 'react'
import type { TransportName } from 'tidings'
import { useConnection, useTidings } from 'tidings/react'
import { ConnectionStatus, useLabels } from 'tidings/ui'
import { useStore } from 'zustand'
import { line } from '../client'
import { Pane } from '../parts/pane'

const SPEEDS = [
  { name: 'as fast as it goes', delayMs: 0, bytesPerSecond: Infinity },
  { name: 'slow: 300 ms, 20 kB/s', delayMs: 300, bytesPerSecond: 20_000 },
  { name: 'very slow: 1 s, 4 kB/s', delayMs: 1_000, bytesPerSecond: 4_000 },
] as const

const TRANSPORTS: readonly TransportName[] = ['websocket', 'sse', 'poll']

export function ConnectionPane(): ReactElement {
  return (
    <Pane
      name="connection"
      title="Connection"
      about="What is between this window and the broker. A cut network, or a dead broker: what you do meanwhile waits in the outbox."
    >
      <ConnectionStatus />
      <Facts />
      <Controls />
    </Pane>
  )
}

function Facts(): ReactElement {
  const client = useTidings()
  const { outboxEvents, attempt, since, error } = useConnection()
  const { id, log } = client.session ?? {}
  const latest = useLatestError()
  const facts: [string, string][] = [
    ['Outbox', outboxEvents === 1 ? '1 event' : `${outboxEvents} events`],
    ['Since', new Date(since).toLocaleTimeString()],
    ['Failed tries', String(attempt)],
    ['Session', id ? id.slice(-12) : '–'],
    ['Log', log ? log.slice(0, 8) : '–'],
  ]
  return (
    <>
      <dl className="facts">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {error && <p className="quiet">{error.message}</p>}
      {!error && latest && <p className="quiet">Last error: {latest}</p>}
    </>
  )
}

/** What failed that nobody waited for. */
function useLatestError(): string | undefined {
  const client = useTidings()
  const [latest, setLatest] = useState<string>()
  useEffect(() => client.on('error', (error) => setLatest(error.message)), [client])
  return latest
}

function Controls(): ReactElement {
  const state = useStore(line.state)
  const say = useLabels()
  const speed = useId()
  const chosen = SPEEDS.findIndex(({ delayMs }) => delayMs === state.delayMs)
  return (
    <div className="controls">
      <button
        type="button"
        className="danger"
        aria-pressed={state.cut}
        onClick={() => line.state.setState({ cut: !state.cut })}
      >
        {state.cut ? 'Restore the network' : 'Cut the network'}
      </button>
      <p>
        <label htmlFor={speed}>Speed </label>
        <select
          id={speed}
          value={chosen}
          onChange={({ target }) => {
            const { delayMs, bytesPerSecond } = SPEEDS[Number(target.value)] ?? SPEEDS[0]
            line.state.setState({ delayMs, bytesPerSecond })
          }}
        >
          {SPEEDS.map(({ name }, at) => (
            <option key={name} value={at}>
              {name}
            </option>
          ))}
        </select>
      </p>
      <fieldset>
        <legend>Best transport that is let through</legend>
        {TRANSPORTS.map((name) => (
          <label key={name}>
            <input
              type="radio"
              name="transport"
              checked={state.best === name}
              onChange={() => line.state.setState({ best: name })}
            />
            {say.transport(name)}
          </label>
        ))}
      </fieldset>
    </div>
  )
}
