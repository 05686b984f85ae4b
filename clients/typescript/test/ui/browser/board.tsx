// A dashboard of agents: who they are, a terminal, and a button that sends a command. It notes when it has shown what.

import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { createClient } from '../../../src/client.js'
import { terminal } from '../../../src/helpers/index.js'
import { TidingsProvider, useAgents } from '../../../src/react/index.js'
import { AgentList, ConnectionStatus } from '../../../src/ui/index.js'
import { Terminal } from '../../../src/ui/terminal.js'

const client = createClient(location.origin, { reconnect: { minMs: 50, maxMs: 200 } })

function Board() {
  const { command } = useAgents()
  return (
    <>
      <ConnectionStatus />
      <button type="button" onClick={() => command('builder', { lines: 'many' })}>
        Build
      </button>
      <AgentList />
      <Terminal id="builder" options={{ maxLines: 100_000 }} />
    </>
  )
}

/** How many milliseconds after it was written a line, or a status, was in the document first. */
const delays: Record<'line' | 'step', Map<number, number>> = { line: new Map(), step: new Map() }
const look = () => {
  const nowMs = Date.now()
  for (const shown of document.querySelectorAll('.xterm-rows > div, .tidings-agents li')) {
    for (const [, kind, number, at] of shown.textContent?.matchAll(/(line|step) (\d+) @(\d{13})/g) ?? []) {
      const seen = delays[kind as 'line' | 'step']
      if (!seen.has(Number(number))) seen.set(Number(number), nowMs - Number(at))
    }
  }
}
new MutationObserver(look).observe(document, { subtree: true, childList: true, characterData: true })

const whole = terminal(client, 'builder', { maxLines: 100_000 })
Object.assign(globalThis, {
  delays: (kind: 'line' | 'step') => [...delays[kind]],
  lines: () => whole.snapshot().lines,
})
createRoot(document.getElementById('root') as HTMLElement).render(
  <StrictMode>
    <TidingsProvider client={client}>
      <Board />
    </TidingsProvider>
  </StrictMode>,
)
