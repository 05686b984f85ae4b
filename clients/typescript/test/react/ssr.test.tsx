// @vitest-environment node

import { renderToString } from 'react-dom/server'
import { expect, it } from 'vitest'
import {
  TidingsProvider,
  useAgents,
  useChat,
  useConnection,
  useEvents,
  useInbox,
  useLatest,
  useOperation,
  useOutbox,
  usePresence,
  usePublish,
  useStreamedMessage,
  useSubscription,
  useTerminal,
  useTyping,
  useUnread,
} from '../../src/react/index.js'
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
} from '../../src/ui/index.js'
import { Terminal } from '../../src/ui/terminal.js'
import { FakeClient } from './fake.js'
import { noWarnings } from './setup.js'

noWarnings()

const Everything = () => (
  <p>
    {[
      useConnection().state,
      useSubscription('a').state,
      useEvents('a').length,
      useLatest('a').length,
      useOutbox().events,
      usePublish().pending,
      usePresence('a', {}).members.length,
      useInbox('a').items.length,
      useUnread('a'),
      useOperation('a').status,
      useStreamedMessage('a', 'b').complete,
      useChat('a').messages.length,
      useTyping('a').typists.length,
      useTerminal('a').lines.length,
      useAgents().agents.length,
    ].join(' ')}
  </p>
)

it('renders on a server as disconnected, and opens nothing', () => {
  expect(typeof window).toBe('undefined')
  const client = new FakeClient()
  const html = renderToString(
    <TidingsProvider client={client.as()}>
      <Everything />
    </TidingsProvider>,
  )
  expect(html).toBe('<p>disconnected subscribing 0 0 0 0 0 0 0 unknown false 0 0 0 0</p>')
  expect(client.opened).toHaveLength(0)
  expect(client.emitter.count()).toBe(0)
})

it('renders all parts on a server', () => {
  const client = new FakeClient()
  const html = renderToString(
    <TidingsProvider client={client.as()}>
      <ConnectionStatus />
      <OutboxBadge />
      <OperationProgress operation="a" />
      <PresenceList topic="a" />
      <TypingIndicator topic="a" />
      <AgentList />
      <ChatThread topic="a" />
      <Terminal id="a" />
      <NotificationCenter name="a" defaultOpen />
      <Toaster filter="a" />
    </TidingsProvider>,
  )
  expect(html).toContain('Offline')
  expect(client.opened).toHaveLength(0)
})
