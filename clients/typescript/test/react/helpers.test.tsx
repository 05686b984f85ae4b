import { act, cleanup, screen } from '@testing-library/react'
import { memo } from 'react'
import { afterEach, describe, expect, it } from 'vitest'
import { TidingsError } from '../../src/errors.js'
import {
  type AgentsView,
  type ChatView,
  type InboxView,
  useAgents,
  useChat,
  useInbox,
  useOperation,
  useStreamedMessage,
  useTyping,
  useUnread,
} from '../../src/react/index.js'
import { event, FakeClient } from './fake.js'
import { frame, inAct, noWarnings, show } from './setup.js'

noWarnings()
afterEach(cleanup)

const text = (): string => screen.getByTestId('out').textContent ?? ''
const Out = ({ children }: { children: unknown }) => <p data-testid="out">{String(children)}</p>

describe('useInbox and useUnread', () => {
  let box: InboxView<{ title: string }> | undefined
  const Inbox = () => {
    box = useInbox<{ title: string }>('ann')
    return <Out>{box.items.map(({ data, read }) => `${data?.title}${read ? '' : '!'}`).join(' ')}</Out>
  }
  const Badge = () => <b>{useUnread('ann')}</b>
  const notice = (title: string) => event({ topic: 'users.ann.notifications', data: { title } })

  it('share one durable subscription, and agree', async () => {
    const { client, unmount, container } = show(
      <>
        <Inbox />
        <Badge />
      </>,
    )
    await act(frame)
    expect(client.opened.filter(({ durable }) => durable === 'ann-inbox')).toHaveLength(1)
    await inAct(() => {
      client.deliver(notice('one'))
      client.deliver(notice('two'))
    })
    expect(text()).toBe('two! one!')
    expect(container.querySelector('b')?.textContent).toBe('2')
    await inAct(() => void box?.markAllRead())
    expect(text()).toBe('two one')
    expect(container.querySelector('b')?.textContent).toBe('0')
    unmount()
    await frame()
    await frame()
    expect(client.subscriptions).toHaveLength(0)
  })

  it('rejects what is refused, and shows it as unread again', async () => {
    const { client } = show(<Inbox />)
    await inAct(() => client.deliver(notice('one')))
    const subscription = client.subscriptions.find(({ durable }) => durable === 'ann-inbox')
    if (subscription) subscription.ack = () => Promise.reject(new TidingsError('unavailable', 'later'))
    let refusal: unknown
    await inAct(() => void box?.markAllRead().catch((error: unknown) => (refusal = error)))
    expect(refusal).toMatchObject({ code: 'unavailable' })
    expect(text()).toBe('one!')
  })
})

describe('useOperation', () => {
  it('follows one, and asks it to stop', async () => {
    let cancel: ((reason?: string) => Promise<unknown>) | undefined
    const Operation = () => {
      const view = useOperation('import-7')
      cancel = view.cancel
      return <Out>{`${view.status} ${view.ratio} ${view.message}`}</Out>
    }
    const { client } = show(<Operation />)
    const said = (type: string, data: object) =>
      event({ topic: 'operations.import-7', type: `operation.${type}`, data })
    expect(text()).toBe('unknown undefined undefined')
    await inAct(() => {
      client.deliver(said('started', { of: 4 }))
      client.deliver(said('progress', { done: 1, message: 'reading' }))
    })
    expect(text()).toBe('running 0.25 reading')
    await inAct(() => void cancel?.('enough'))
    expect(client.published[0]).toMatchObject({ topic: 'operations.import-7.control', data: { reason: 'enough' } })
    expect(client.opened).toHaveLength(1)
  })
})

describe('useStreamedMessage', () => {
  it('puts chunks together as they come', async () => {
    const Message = () => {
      const { text, complete, error } = useStreamedMessage('chat.1', 'm')
      return <Out>{`${text}|${complete}|${error?.code}`}</Out>
    }
    const { client } = show(<Message />)
    const chunk = (seq: number, delta: string, more = {}) =>
      event({ topic: 'chat.1', type: 'message.chunk', correlation: 'm', data: { seq, delta, ...more } })
    await inAct(() => client.deliver(chunk(0, 'Hel')))
    expect(text()).toBe('Hel|false|undefined')
    await inAct(() => client.deliver(chunk(1, 'lo', { final: true })))
    expect(text()).toBe('Hello|true|undefined')
  })
})

describe('useChat', () => {
  it('sends, and gives the same functions as long as nothing comes', async () => {
    const views: ChatView[] = []
    let renders = 0
    const Child = memo(({ view }: { view: ChatView }) => {
      renders += 1
      return <Out>{view.messages.map(({ text, state }) => `${text}:${state}`).join(' ')}</Out>
    })
    const Chat = () => {
      const view = useChat('chat.1')
      views.push(view)
      return <Child view={view} />
    }
    const { client, rerender } = show(<Chat />)
    await act(frame)
    renders = 0
    rerender(<Chat />)
    expect(renders).toBe(0)
    client.answers = false
    let id: string | undefined
    await inAct(() => {
      id = views.at(-1)?.send('Hello')
    })
    expect(id).toBe(client.published[0]?.options.id)
    expect(text()).toBe('Hello:pending')
  })
})

describe('useTyping', () => {
  it('tells who else is, and that we are', async () => {
    let type: (() => void) | undefined
    const Typing = () => {
      const { typists, typing } = useTyping('chat.1')
      type = typing
      return <Out>{typists.map(({ key }) => key).join(' ')}</Out>
    }
    const { client } = show(<Typing />)
    await inAct(() => client.deliver(event({ topic: 'chat.1', type: 'typing', key: 'bob', data: { typing: true } })))
    expect(text()).toBe('bob')
    type?.()
    expect(client.published[0]).toMatchObject({ topic: 'chat.1', options: { type: 'typing', key: 'me' } })
  })
})

describe('useAgents', () => {
  it('follows agents, and commands and interrupts them', async () => {
    let view: AgentsView | undefined
    const Agents = () => {
      view = useAgents()
      return <Out>{view.agents.map(({ id, online, status }) => `${id}:${online}:${status}`).join(' ')}</Out>
    }
    const client = new FakeClient()
    client.members = [{ session: 's', subject: 'w', since: '2026-11-22T07:00:00Z', data: { agent: 'builder' } }]
    show(<Agents />, client)
    await inAct(() => {
      for (const subscription of client.subscriptions) subscription.become('live')
      client.deliver(event({ topic: 'agents.builder', type: 'agent.status', data: { status: 'busy' } }))
    })
    expect(text()).toBe('builder:true:busy')
    await inAct(() => {
      void view?.command('builder', { build: 'all' })
      void view?.interrupt('builder', { reason: 'stop' })
    })
    expect(client.published).toMatchObject([
      { topic: 'agents.builder.commands', data: { build: 'all' }, options: { type: 'command.run' } },
      { topic: 'agents.builder.commands', options: { type: 'command.interrupt', priority: 'urgent' } },
    ])
  })
})
