// A page with parts and a client of the broker that served it. What is asked for stands behind `?`.

import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { createClient } from '../../../src/client.js'
import { operation, terminalWriter } from '../../../src/helpers/index.js'
import { TidingsProvider, useEvents } from '../../../src/react/index.js'
import {
  ChatThread,
  ConnectionStatus,
  NotificationCenter,
  OperationProgress,
  OutboxBadge,
  PresenceList,
  Toaster,
} from '../../../src/ui/index.js'
import { Terminal } from '../../../src/ui/terminal.js'

const name = new URLSearchParams(location.search).get('name') ?? 'nobody'
const client = createClient(location.origin, { reconnect: { minMs: 100, maxMs: 300 }, upgradeEveryMs: 1_000 })
const root = createRoot(document.getElementById('root') as HTMLElement)

function App() {
  return (
    <StrictMode>
      <TidingsProvider client={client}>{name === 'load' ? <Load /> : <Everything />}</TidingsProvider>
    </StrictMode>
  )
}

function Everything() {
  return (
    <>
      <ConnectionStatus />
      <OutboxBadge afterMs={50} />
      <NotificationCenter name="team" />
      <OperationProgress operation="import" />
      <ChatThread topic="chat.1" name={name} />
      <Terminal id="t1" />
      <Toaster filter="toasts.1" lostAfterMs={50} />
      <PresenceList topic="rooms.1" data={{ name }} />
    </>
  )
}

/** Nothing but a list that is under load. */
function Load() {
  const events = useEvents<number>('load.*')
  return (
    <>
      <ConnectionStatus />
      <ol>
        {events.map(({ offset, topic, data }) => (
          <li key={offset}>
            {topic} {data}
          </li>
        ))}
      </ol>
    </>
  )
}

Object.assign(globalThis, { client, operation, terminalWriter, unmount: () => root.unmount() })
root.render(<App />)
