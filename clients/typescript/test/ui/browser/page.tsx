// A page with all parts, and a client without a broker: the test says what comes.

import { type ReactNode, StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { TidingsProvider, useEvents } from '../../../src/react/index.js'
import type { TidingsEvent } from '../../../src/types.js'
import {
  AgentList,
  ChatThread,
  ConnectionStatus,
  NotificationCenter,
  OperationProgress,
  OutboxBadge,
  PresenceList,
  Toaster,
  TypingIndicator,
} from '../../../src/ui/index.js'
import { Terminal } from '../../../src/ui/terminal.js'
import { event, FakeClient } from '../../react/fake.js'

const client = new FakeClient()
const now = new Date().toISOString()
client.members = [
  { session: 's1', subject: 'ann', since: now, data: { name: 'Ann', agent: 'builder' } },
  { session: 's2', subject: 'bob', since: now, data: { name: 'Bob', agent: 'tester' } },
]
if ('flooded' in globalThis)
  client.members.push({ session: 's3', subject: 'eve', since: now, data: { name: 'W'.repeat(999) } })

const Part = ({ name, children }: { name: string; children: ReactNode }) => (
  <section aria-label={`Part ${name}`}>
    <h2>{name}</h2>
    {children}
  </section>
)

function Parts() {
  return (
    <main>
      <h1>Parts</h1>
      <Part name="connection">
        <ConnectionStatus /> <OutboxBadge afterMs={10} />
      </Part>
      <Part name="operations">
        <OperationProgress operation="known" />
        <OperationProgress operation="vague" />
        <OperationProgress operation="failed" />
      </Part>
      <Part name="people">
        <PresenceList topic="rooms.1" /> <TypingIndicator topic="rooms.1" />
      </Part>
      <Part name="agents">
        <AgentList onSelect={() => {}} selected="builder" />
      </Part>
      <Part name="chat">
        <div style={{ height: 320 }}>
          <ChatThread topic="chat.1" name="Me" />
        </div>
      </Part>
      <Part name="terminal">
        <Terminal id="t1" nonce={document.querySelector<HTMLScriptElement>('script[nonce]')?.nonce} />
      </Part>
      <Part name="notification centre">
        <NotificationCenter name="ann" defaultOpen />
      </Part>
      <Toaster filter="toasts.1" actionTopics={['undo']} durationMs={60_000} lostAfterMs={10} />
    </main>
  )
}

let renders = 0
function Rows() {
  renders += 1
  const events = useEvents<number>('load.*', { limit: 200 })
  return (
    <ol>
      {events.map(({ offset, topic, data }) => (
        <li key={offset}>
          {topic} {data}
        </li>
      ))}
    </ol>
  )
}

const App = () => ('rows' in globalThis ? <Rows /> : <Parts />)

/** Something of everything. */
function fill() {
  for (const subscription of client.subscriptions) subscription.become('live')
  const say = (topic: string, said: Partial<TidingsEvent>) => client.deliver(event({ topic, time: now, ...said }))
  say('operations.known', { type: 'operation.started', data: { title: 'Import', of: 12 } })
  say('operations.known', { type: 'operation.progress', data: { done: 3, message: 'reading' } })
  say('operations.vague', { type: 'operation.started', data: { title: 'Searching' } })
  say('operations.failed', { type: 'operation.started', data: { title: 'Upload', of: 4 } })
  say('operations.failed', { type: 'operation.failed', data: { message: 'the disk is full', done: 1 } })
  say('rooms.1', { type: 'typing', key: 'ann', data: { typing: true, name: 'Ann', ttl_ms: 60_000 } })
  say('agents.builder', { type: 'agent.status', key: 'status', data: { status: 'busy', message: 'compiling' } })
  say('agents.tester', { type: 'agent.status', key: 'status', data: { status: 'idle' } })
  say('agents.gone', { type: 'agent.status', key: 'status', data: { status: 'idle' } })
  for (let n = 1; n <= 12; n += 1) say('chat.1', { source: n % 2 ? 'ann' : 'bob', data: { text: `Message ${n}` } })
  say('chat.1', { own: true, data: { text: 'One of our own' } })
  say('users.ann.notifications', { data: { title: 'Build done', body: 'in 3 s', level: 'success', link: '/builds/1' } })
  say('users.ann.notifications', { priority: 'urgent', data: { title: 'Disk full', level: 'error' } })
  say('toasts.1', { data: { title: 'Saved', actions: [{ label: 'Undo', topic: 'undo' }] } })
  say('toasts.1', { priority: 'urgent', data: { title: 'Disk full', body: 'Nothing is written any more.' } })
  say('terminals.t1', { data: '\u001b[32mok\u001b[0m 12 passed\r\n' })
  client.become({ state: 'reconnecting', transport: undefined, nextRetryAt: Date.now() + 60_000, outboxEvents: 3 })
}

/** Words of a thousand letters wherever others write, and what is no sequence of a terminal. */
function flood() {
  const word = 'W'.repeat(1_000)
  const say = (topic: string, said: Partial<TidingsEvent>) => client.deliver(event({ topic, time: now, ...said }))
  say('operations.known', { type: 'operation.started', data: { title: word, of: 12, attempt: 2 } })
  say('operations.known', { type: 'operation.progress', data: { done: 3, message: word, attempt: 2 } })
  say('operations.failed', { type: 'operation.failed', data: { message: word } })
  say('rooms.1', { type: 'typing', key: 'zoe', data: { typing: true, name: word, ttl_ms: 60_000 } })
  say('agents.builder', { type: 'agent.status', key: 'status', data: { status: word, message: word } })
  say(`agents.${word.slice(0, 200)}`, { type: 'agent.status', key: 'status', data: { status: 'idle' } })
  say('chat.1', { source: word, data: { text: word, name: word } })
  say('chat.1', { own: true, data: { text: word } })
  const actions = [{ label: word, topic: 'users.ann.notifications' }]
  say('users.ann.notifications', { data: { title: word, body: word, level: 'error', link: `/${word}`, actions } })
  say('toasts.1', { data: { title: word, body: word, actions: [{ label: word, topic: 'toasts.1' }] } })
  say('terminals.t1', { data: `\u001b[\ufffd${word}\r\n` })
}

/** `seconds` in which `rate` events a second come; what is shown then, and the longest frames by the clock. */
async function load(rate: number, seconds: number) {
  const frames: number[] = []
  let delivered = 0
  renders = 0
  let last = performance.now()
  const begin = last
  const watch = (at: number) => {
    frames.push(at - last)
    last = at
    if (at - begin < seconds * 1_000) requestAnimationFrame(watch)
  }
  requestAnimationFrame(watch)
  // Batches as a socket brings them, every few milliseconds.
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      const due = Math.min(rate * seconds, Math.floor(((performance.now() - begin) * rate) / 1_000))
      for (; delivered < due; delivered += 1)
        client.deliver(event({ topic: `load.${delivered % 10}`, data: delivered }))
      if (delivered < rate * seconds) return
      clearInterval(timer)
      resolve()
    }, 4)
  })
  await new Promise((resolve) => setTimeout(resolve, 200))
  // The first two are of the start.
  const sorted = frames.slice(2).sort((a, b) => b - a)
  const shown = document.querySelectorAll('li').length
  return {
    delivered,
    renders,
    frames: frames.length,
    longest: sorted.slice(0, 5),
    shown,
    last: document.querySelector('li:last-child')?.textContent,
  }
}

Object.assign(globalThis, { fill, flood, load, client, event })

createRoot(document.getElementById('root') as HTMLElement).render(
  <StrictMode>
    <TidingsProvider client={client.as()}>
      <App />
    </TidingsProvider>
  </StrictMode>,
)
