import { cleanup, fireEvent, screen, within } from '@testing-library/react'
import { userEvent } from '@testing-library/user-event'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { TidingsError } from '../../src/errors.js'
import {
  AgentList,
  ChatThread,
  ConnectionStatus,
  LabelsProvider,
  NotificationCenter,
  OperationProgress,
  OutboxBadge,
  PresenceList,
  Toaster,
  TypingIndicator,
} from '../../src/ui/index.js'
import { Terminal } from '../../src/ui/terminal.js'
import { event, FakeClient } from '../react/fake.js'
import { frame, inAct, noWarnings, show } from '../react/setup.js'

noWarnings()
afterEach(() => {
  cleanup()
  vi.useRealTimers()
})

const status = () => screen.getByRole('status')

describe('ConnectionStatus', () => {
  it('says state, transport, latency and when the next try begins', async () => {
    const { client, container } = show(<ConnectionStatus />)
    expect(status().textContent).toBe('Connected')
    expect(container.textContent).toContain('WebSocket')
    expect(container.textContent).toContain('12 ms')
    expect(screen.queryByRole('button')).toBeNull()
    await inAct(() => client.become({ state: 'reconnecting', transport: undefined, nextRetryAt: Date.now() + 4_500 }))
    expect(status().textContent).toBe('Reconnecting…')
    expect(container.textContent).toContain('next try in 5 s')
    // The countdown is no part of what is announced.
    expect(status().textContent).not.toContain('next try')
    const root = container.querySelector('.tidings-connection')
    expect(root?.getAttribute('data-state')).toBe('reconnecting')
    expect(root?.getAttribute('data-transport')).toBe('none')
    await userEvent.click(screen.getByRole('button', { name: 'Try now' }))
    expect(client.connects).toBe(1)
  })

  it('counts down', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'Date'] })
    const client = new FakeClient()
    client.become({ state: 'reconnecting', nextRetryAt: Date.now() + 3_000 })
    const { container } = show(<ConnectionStatus />, client)
    expect(container.textContent).toContain('in 3 s')
    await inAct(() => vi.advanceTimersByTime(1_000))
    expect(container.textContent).toContain('in 2 s')
    await inAct(() => vi.advanceTimersByTime(2_000))
    expect(container.textContent).not.toContain('next try')
  })

  it('takes words from the provider and from its own labels', () => {
    const none = { retryNow: undefined } as unknown as { retryNow: string }
    const german = {
      ...none,
      state: (state: string) => (state === 'connected' ? 'Verbunden' : state),
      latency: () => 'schnell',
    }
    const { container } = show(
      <LabelsProvider labels={german}>
        <ConnectionStatus labels={{ latency: (ms) => `${ms} Millisekunden` }} className="mine" id="c" />
      </LabelsProvider>,
    )
    expect(status().textContent).toBe('Verbunden')
    expect(container.textContent).toContain('12 Millisekunden')
    expect(container.querySelector('#c')?.className).toBe('tidings tidings-connection mine')
  })
})

describe('OutboxBadge', () => {
  it('is silent while events wait a moment only, and speaks when they wait for the connection', async () => {
    const { client } = show(<OutboxBadge afterMs={30} />)
    await inAct(() => client.become({ outboxEvents: 2 }))
    expect(status().textContent).toBe('')
    await inAct(() => client.become({ state: 'reconnecting' }))
    expect(status().textContent).toBe('2 waiting to be sent')
    expect(status().getAttribute('data-state')).toBe('waiting')
    await inAct(() => client.become({ outboxEvents: 0 }))
    expect(status().textContent).toBe('')
    await inAct(() => client.become({ state: 'connected', outboxEvents: 1 }))
    await vi.waitFor(() => expect(status().textContent).toBe('1 waiting to be sent'))
  })
})

describe('Toaster', () => {
  const notice = (title: string, said = {}) => event({ topic: 'users.me.notifications', data: { title }, ...said })

  it('shows what comes politely, what is urgent as an alert that stays', async () => {
    const { client } = show(<Toaster filter="users.me.notifications" durationMs={40} />)
    await inAct(() => {
      client.deliver(notice('Build done', { data: { title: 'Build done', body: 'in 3 s', level: 'success' } }))
      client.deliver(notice('Disk full', { priority: 'urgent' }))
    })
    expect(within(status()).getByText('Build done')).toBeDefined()
    expect(within(screen.getByRole('alert')).getByText('Disk full')).toBeDefined()
    expect(status().querySelector('.tidings-toast')?.getAttribute('data-level')).toBe('success')
    expect(screen.getByRole('alert').querySelector('.tidings-toast')?.getAttribute('data-priority')).toBe('urgent')
    await vi.waitFor(() => expect(screen.queryByText('Build done')).toBeNull())
    expect(screen.getByText('Disk full')).toBeDefined()
    await userEvent.click(screen.getByRole('button', { name: 'Dismiss' }))
    expect(screen.queryByText('Disk full')).toBeNull()
    // The focus is not lost with the button.
    expect(document.activeElement).toBe(screen.getByRole('region', { name: 'Notifications' }))
  })

  it('keeps what is looked at, is reached by a key and left by Escape', async () => {
    const { client } = show(<Toaster filter="users.me.notifications" durationMs={40} />)
    await inAct(() => client.deliver(notice('Look')))
    const before = document.body.appendChild(document.createElement('button'))
    before.focus()
    await userEvent.keyboard('{F8}')
    await new Promise((resolve) => setTimeout(resolve, 80))
    expect(screen.getByText('Look')).toBeDefined()
    await userEvent.tab()
    await userEvent.keyboard('{Escape}')
    expect(screen.queryByText('Look')).toBeNull()
    // It goes back to where it was, and what comes then goes by itself.
    expect(document.activeElement).toBe(before)
    await inAct(() => client.deliver(notice('Next')))
    await vi.waitFor(() => expect(screen.queryByText('Next')).toBeNull())
    await inAct(() => client.deliver(notice('And next')))
    await userEvent.keyboard('{F8}{Escape}')
    expect(document.activeElement).toBe(before)
    before.remove()
  })

  it('shows so many at most, and lets go of what is urgent last', async () => {
    const { client } = show(<Toaster filter="users.me.notifications" max={3} />)
    await inAct(() => {
      client.deliver(notice('urgent', { priority: 'urgent' }))
      for (let n = 1; n <= 500; n += 1) client.deliver(notice(`n${n}`))
    })
    const shown = screen
      .getAllByRole('button')
      .map((button) => button.parentElement?.querySelector('strong')?.textContent)
    expect(shown).toEqual(['urgent', 'n499', 'n500'])
  })

  it('tells of a lost and a restored connection, and not of a short cut', async () => {
    const { client } = show(<Toaster lostAfterMs={30} durationMs={40} />)
    await inAct(() => client.become({ state: 'reconnecting' }))
    await inAct(() => client.become({ state: 'connected' }))
    await new Promise((resolve) => setTimeout(resolve, 60))
    expect(status().textContent).toBe('')
    await inAct(() => client.become({ state: 'reconnecting' }))
    await vi.waitFor(() => expect(status().textContent).toContain('Connection lost'))
    await inAct(() => client.become({ state: 'connected' }))
    expect(status().textContent).toContain('Connected again')
    expect(status().textContent).not.toContain('Connection lost')
    await vi.waitFor(() => expect(status().textContent).toBe(''))
  })

  it('links only to where a page may lead, and publishes its actions', async () => {
    const { client } = show(<Toaster filter="users.me.notifications" actionTopics={['tasks.1']} />)
    const bad = { title: 'bad', link: 'javascript:alert(1)' }
    const good = {
      title: 'good',
      link: '/tasks/1',
      actions: [
        { label: 'Retry it', topic: 'tasks.1', data: { again: true } },
        { label: 'Answer it', topic: 'users.me.notifications' },
        { label: 'Answer it', topic: 'users.me.notifications', data: 'otherwise' },
        { label: 'Delete all', topic: 'tasks.2' },
      ],
    }
    await inAct(() => {
      client.deliver(notice('', { data: bad }))
      client.deliver(notice('', { data: good, id: 'n-1' }))
    })
    // Others wrote it: its buttons publish where the page lets them, and on its own topic.
    expect(screen.queryByRole('button', { name: 'Delete all' })).toBeNull()
    expect(screen.getAllByRole('button', { name: 'Answer it' })).toHaveLength(2)
    expect(screen.getAllByRole('link').map((link) => link.getAttribute('href'))).toEqual(['/tasks/1'])
    await userEvent.click(screen.getByRole('button', { name: 'Retry it' }))
    expect(client.published[0]).toMatchObject({
      topic: 'tasks.1',
      data: { again: true },
      options: { correlation: 'n-1' },
    })
  })
})

describe('NotificationCenter', () => {
  const notice = (title: string, said = {}) =>
    event({ topic: 'users.ann.notifications', data: { title }, time: new Date().toISOString(), ...said })

  it('counts, lists, marks as read, and is used by keyboard', async () => {
    const user = userEvent.setup()
    const { client } = show(<NotificationCenter name="ann" />)
    expect(status().textContent).toBe('')
    await inAct(() => {
      for (const subscription of client.subscriptions) subscription.become('live')
      client.deliver(notice('first'))
      client.deliver(notice('second', { priority: 'urgent' }))
    })
    expect(status().textContent).toBe('2 unread')
    const bell = screen.getByRole('button', { name: 'Notifications' })
    expect(bell.getAttribute('aria-expanded')).toBe('false')
    bell.focus()
    await user.keyboard('{Enter}')
    expect(bell.getAttribute('aria-expanded')).toBe('true')
    const items = screen.getAllByRole('listitem')
    expect(items.map((item) => item.querySelector('strong')?.textContent)).toEqual(['second', 'first'])
    expect(items[0]?.textContent).toContain('Urgent')
    await user.keyboard('{ArrowDown}{ArrowDown}')
    expect(document.activeElement).toBe(items[1])
    await user.keyboard('{Home}')
    expect(document.activeElement).toBe(items[0])
    await user.click(within(items[1] as HTMLElement).getByRole('button', { name: 'Mark as read' }))
    await inAct(() => {})
    expect(status().textContent).toBe('1 unread')
    expect(client.subscriptions[0]?.acked).toHaveLength(1)
    await user.click(screen.getByRole('button', { name: 'Mark all as read' }))
    await inAct(() => {})
    expect(status().textContent).toBe('none unread')
    await user.keyboard('{Escape}')
    expect(bell.getAttribute('aria-expanded')).toBe('false')
    expect(document.activeElement).toBe(bell)
  })

  it('is closed by a press outside', async () => {
    const { client } = show(<NotificationCenter name="ann" defaultOpen />)
    // There may be some: it is not known yet.
    expect(screen.getByText('Loading…')).toBeDefined()
    await inAct(() => {
      for (const subscription of client.subscriptions) subscription.become('live')
    })
    expect(screen.getByText('No notifications')).toBeDefined()
    fireEvent.pointerDown(document.body)
    expect(screen.queryByText('No notifications')).toBeNull()
  })
})

describe('what is refused', () => {
  const refusal = () => new TidingsError('permission_denied', 'not for you')
  const all = (
    <>
      <NotificationCenter name="ann" defaultOpen />
      <ChatThread topic="chat.1" typing={false} />
      <OperationProgress operation="op-1" />
      <PresenceList topic="chat.1" />
      <AgentList />
      <Terminal id="7" />
    </>
  )

  it('is said by every part, in the place of what there is not', async () => {
    const { client, container } = show(all)
    await inAct(() => {})
    await inAct(() => {
      for (const subscription of [...client.subscriptions]) subscription.refuse(refusal())
    })
    for (const part of ['center', 'chat', 'operation', 'presence', 'agents', 'terminal']) {
      const told = within(container.querySelector<HTMLElement>(`.tidings-${part}`) as HTMLElement).getByRole('alert')
      expect(told.textContent, part).toBe('not for you')
    }
    expect(container.textContent).not.toContain('No notifications')
    expect(container.textContent).not.toContain('Nobody')
  })

  it('is a name that is none as well, which takes nothing else with it', async () => {
    const { container } = show(
      <>
        <h1>App</h1>
        <NotificationCenter name="al+ice@x.org" defaultOpen />
        <OperationProgress operation="build 7" />
        <Terminal id="build/7" />
      </>,
    )
    await inAct(() => {})
    expect(screen.getByText('App')).toBeDefined()
    expect(screen.getAllByRole('alert').map(({ textContent }) => textContent)).toEqual([
      expect.stringContaining('"al+ice@x.org'),
      expect.stringContaining('"build 7"'),
      expect.stringContaining('"build/7"'),
    ])
    expect(container.querySelectorAll('.tidings')).toHaveLength(3)
  })

  it('is said of what was pressed, until it is pressed again', async () => {
    const { client } = show(
      <>
        <OperationProgress operation="op-1" />
        <NotificationCenter name="ann" defaultOpen />
      </>,
    )
    client.answers = false
    const actions = [
      { label: ' ', topic: 'users.ann.notifications' },
      { label: 'Go', topic: 'users.ann.notifications' },
    ]
    await inAct(() => {
      client.deliver(event({ topic: 'operations.op-1', type: 'operation.started', data: {} }))
      client.deliver(
        event({ topic: 'users.ann.notifications', data: { title: 'Go?', actions }, time: '2026-11-24T00:00:00Z' }),
      )
    })
    // One without a word on it is none.
    expect(screen.getAllByRole('button').filter(({ textContent }) => textContent?.trim() === '')).toEqual([])
    for (const [at, name] of ['Go', 'Cancel op-1'].entries()) {
      const button = screen.getByRole('button', { name })
      await userEvent.click(button)
      await inAct(() => client.published[at]?.reject(refusal()))
      expect(screen.getByRole('alert').textContent).toBe('not for you')
      expect(document.activeElement).toBe(button)
      await userEvent.click(button)
      await inAct(() => {})
      expect(screen.queryByRole('alert')).toBeNull()
      client.published.splice(at + 1)
    }
  })

  it('is why there is no connection, where that ends by itself no more', async () => {
    const { client, container } = show(
      <>
        <ConnectionStatus />
        <Toaster lostAfterMs={10} />
      </>,
    )
    await inAct(() => client.become({ state: 'reconnecting', error: new TidingsError('disconnected', 'cut') }))
    expect(container.querySelector('.tidings-connection')?.textContent).not.toContain('cut')
    await inAct(() => client.become({ state: 'connected', error: undefined }))
    await inAct(() => client.become({ state: 'disconnected', error: new TidingsError('unauthenticated', 'revoked') }))
    expect(container.querySelector('.tidings-connection')?.textContent).toContain('revoked')
    await screen.findByText('Connection lost')
  })
})

it('an agent whose status is the name of something else is shown with it', async () => {
  const { client } = show(<AgentList />, Object.assign(new FakeClient(), { members: listed('a', 'b', 'c') }))
  await inAct(() => {
    for (const subscription of client.subscriptions) subscription.become('live')
  })
  const says = ['__proto__', 'constructor', 'toString']
  await inAct(() => {
    for (const [at, status] of says.entries())
      client.deliver(event({ topic: `agents.${'abc'[at]}`, type: 'agent.status', key: 'status', data: { status } }))
  })
  for (const word of says) expect(screen.getByText(word)).toBeDefined()
})
const listed = (...ids: string[]) =>
  ids.map((agent) => ({ session: agent, subject: agent, since: '2026-11-24T00:00:00Z', data: { agent } }))

describe('the focus', () => {
  it('stays with a part whose button goes', async () => {
    const { client, container } = show(
      <>
        <ConnectionStatus />
        <OperationProgress operation="op-1" />
        <ChatThread topic="chat.1" typing={false} />
      </>,
    )
    const part = (name: string) => container.querySelector(`.tidings-${name}`)
    await inAct(() => client.become({ state: 'reconnecting', nextRetryAt: Date.now() + 5_000 }))
    screen.getByRole('button', { name: 'Try now' }).focus()
    await inAct(() => client.become({ state: 'reconnecting', nextRetryAt: undefined }))
    expect(document.activeElement).toBe(part('connection'))
    const say = (type: string) => event({ topic: 'operations.op-1', type: `operation.${type}`, data: {} })
    await inAct(() => client.deliver(say('started')))
    screen.getByRole('button', { name: 'Cancel op-1' }).focus()
    await inAct(() => client.deliver(say('completed')))
    expect(document.activeElement).toBe(part('operation'))
    client.answers = false
    await userEvent.type(screen.getByRole('textbox'), 'Hello{Enter}')
    await inAct(() => client.published.at(-1)?.reject(new TidingsError('permission_denied', 'no')))
    await userEvent.click(screen.getByRole('button', { name: 'Dismiss' }))
    await inAct(() => {})
    expect(document.activeElement).toBe(screen.getByRole('log'))
    // Who has it elsewhere keeps it there.
    const field = screen.getByRole('textbox')
    field.focus()
    await inAct(() => client.become({ state: 'connected' }))
    expect(document.activeElement).toBe(field)
  })
})

describe('OperationProgress', () => {
  const said = (type: string, data: object) => event({ topic: 'operations.op-1', type: `operation.${type}`, data })

  it('is indeterminate until it is known how much there is to do', async () => {
    const { client } = show(<OperationProgress operation="op-1" />)
    expect(status().textContent).toBe('Unknown')
    await inAct(() => client.deliver(said('started', { title: 'Import' })))
    const bar = screen.getByRole('progressbar', { name: 'Import' })
    expect(bar.hasAttribute('aria-valuenow')).toBe(false)
    await inAct(() => client.deliver(said('progress', { done: 3, of: 12, message: 'reading' })))
    expect(bar.getAttribute('aria-valuenow')).toBe('25')
    expect(bar.getAttribute('aria-valuetext')).toBe('3 of 12: reading')
    expect(status().textContent).toBe('Running')
    await inAct(() => client.deliver(said('completed', {})))
    expect(status().textContent).toBe('Done')
    expect(screen.getByRole('progressbar').getAttribute('aria-valuenow')).toBe('100')
    expect(screen.queryByRole('button')).toBeNull()
  })

  it('asks to cancel, once', async () => {
    const { client } = show(<OperationProgress operation="op-1" title="Import" />)
    await inAct(() => client.deliver(said('started', { of: 2 })))
    await userEvent.click(screen.getByRole('button', { name: 'Cancel Import' }))
    expect(client.published[0]).toMatchObject({
      topic: 'operations.op-1.control',
      options: { type: 'operation.cancel' },
    })
    await inAct(() => client.deliver(event({ topic: 'operations.op-1.control', type: 'operation.cancel', data: {} })))
    expect(screen.getByRole('button').getAttribute('aria-disabled')).toBe('true')
    expect(status().textContent).toBe('Cancelling…')
    await inAct(() => client.deliver(said('cancelled', {})))
    expect(status().textContent).toBe('Cancelled')
  })
})

describe('TypingIndicator', () => {
  it('says who', async () => {
    const { client } = show(<TypingIndicator topic="chat.1" />)
    const types = (key: string, name?: string) =>
      event({ topic: 'chat.1', type: 'typing', key, data: { typing: true, name, ttl_ms: 3_000 } })
    expect(status().textContent).toBe('')
    await inAct(() => client.deliver(types('ann', 'Ann')))
    expect(status().textContent).toBe('Ann is typing…')
    await inAct(() => client.deliver(types('bob')))
    expect(status().textContent).toBe('Ann and bob are typing…')
    await inAct(() => client.deliver(types('cid')))
    expect(status().textContent).toBe('3 people are typing…')
  })
})

describe('PresenceList', () => {
  it('lists everybody once', async () => {
    const client = new FakeClient()
    const since = '2026-11-22T07:00:00Z'
    client.members = [
      { session: 's1', subject: 'ann', since, data: { name: 'Ann' } },
      { session: 's2', subject: 'ann', since, data: { name: 'Ann' } },
      { session: 's3', subject: 'bob', since },
    ]
    show(<PresenceList topic="rooms.1" data={{ name: 'Me' }} />, client)
    await inAct(() => client.opened[0]?.become('live'))
    const list = screen.getByRole('list', { name: 'People' })
    expect(
      within(list)
        .getAllByRole('listitem')
        .map((item) => item.textContent),
    ).toEqual(['Ann', 'bob'])
  })

  it('says so when nobody is there', async () => {
    const { client } = show(<PresenceList topic="rooms.1" />)
    await inAct(() => client.opened[0]?.become('live'))
    expect(screen.getByText('Nobody is here')).toBeDefined()
  })
})

describe('ChatThread', () => {
  const message = (text: string, said = {}) => event({ topic: 'chat.1', data: { text }, source: 'ann', ...said })
  const log = () => screen.getByRole('log', { name: 'Messages' })

  /** happy-dom lays nothing out: heights are what the test says. */
  const layOut = (element: HTMLElement, heights: { scrollHeight: number; clientHeight: number }) => {
    for (const [name, value] of Object.entries(heights)) {
      Object.defineProperty(element, name, { configurable: true, get: () => value })
    }
  }

  it('shows each own message pending, sent, delivered', async () => {
    const { client } = show(<ChatThread topic="chat.1" />)
    client.answers = false
    const field = screen.getByRole('textbox', { name: 'Write a message' })
    await userEvent.type(field, 'Hello{Shift>}{Enter}{/Shift}you{Enter}')
    await inAct(() => {})
    const state = () => screen.getAllByRole('listitem').at(-1)?.getAttribute('data-state')
    expect(field).toHaveProperty('value', '')
    const sent = client.published.find(({ options }) => options.type === 'message')
    expect(sent?.data).toEqual({ text: 'Hello\nyou' })
    expect(log().textContent).toContain('Sending…')
    expect(state()).toBe('pending')
    const answer = client.answer(sent?.options.id)
    await inAct(() => sent?.resolve(answer))
    expect(state()).toBe('sent')
    expect(log().textContent).toContain('Sent')
    const receipt = { offset: answer.offset, subscription: 'bob-inbox' }
    await inAct(() => client.deliver(event({ topic: '$receipts.me', type: 'receipt.acked', data: receipt })))
    expect(state()).toBe('delivered')
    expect(log().textContent).toContain('Delivered')
  })

  it('offers to try again what failed', async () => {
    const { client } = show(<ChatThread topic="chat.1" typing={false} />)
    client.answers = false
    await userEvent.type(screen.getByRole('textbox'), 'Hello{Enter}')
    await inAct(() => client.published[0]?.reject(new TidingsError('permission_denied', 'not here')))
    expect(log().textContent).toContain('Failed: not here')
    await userEvent.click(screen.getByRole('button', { name: 'Try again' }))
    await inAct(() => {})
    expect(client.published).toHaveLength(2)
    expect(client.published[1]?.options.id).toBe(client.published[0]?.options.id)
    await inAct(() => client.published[1]?.reject(new TidingsError('permission_denied', 'not here')))
    await userEvent.click(screen.getByRole('button', { name: 'Dismiss' }))
    await inAct(() => {})
    expect(screen.queryAllByRole('listitem')).toHaveLength(0)
  })

  it('draws a message once, whatever comes behind it, and says where one broke off', async () => {
    const drawn: string[] = []
    const render = ({ text }: { text: string }) => {
      drawn.push(text)
      return text
    }
    const { client } = show(<ChatThread topic="chat.1" typing={false} render={render} />)
    const chunk = (seq: number, data: object) =>
      event({
        topic: 'chat.1',
        type: 'message.chunk',
        correlation: 'm',
        source: 'urn:tidings:subject:bob',
        data: { seq, ...data },
      })
    await inAct(() => {
      for (const n of [1, 2, 3]) client.deliver(message(`old ${n}`))
    })
    drawn.length = 0
    for (const [seq, delta] of ['half', ' of'].entries()) await inAct(() => client.deliver(chunk(seq, { delta })))
    expect(new Set(drawn)).toEqual(new Set(['half', 'half of']))
    await inAct(() => client.deliver(chunk(2, { delta: '', error: 'the model died' })))
    const last = screen.getAllByRole('listitem').at(-1)
    expect(last?.textContent).toContain('the model died')
    expect(last?.textContent).toContain('bob')
    expect(last?.textContent).not.toContain('urn:')
  })

  it('takes no draft from one topic to another', async () => {
    const { rerender } = show(<ChatThread topic="chat.1" />)
    await userEvent.type(screen.getByRole('textbox'), 'for these alone')
    rerender(<ChatThread topic="chat.2" />)
    await inAct(() => {})
    expect(screen.getByRole('textbox')).toHaveProperty('value', '')
    expect(log().parentElement?.dataset.state).toBe('latest')
  })

  it('sticks to the bottom until the reader scrolls up, and leads back', async () => {
    const { client } = show(<ChatThread topic="chat.1" />)
    layOut(log(), { scrollHeight: 1_000, clientHeight: 200 })
    await inAct(() => client.deliver(message('one')))
    expect(log().scrollTop).toBe(1_000)
    log().scrollTop = 300
    fireEvent.scroll(log())
    layOut(log(), { scrollHeight: 1_100, clientHeight: 200 })
    await inAct(() => {
      client.deliver(message('two'))
      client.deliver(message('three'))
    })
    expect(log().scrollTop).toBe(300)
    const jump = screen.getByRole('button', { name: /Jump to latest/ })
    expect(jump.textContent).toContain('2 new')
    await userEvent.click(jump)
    expect(log().scrollTop).toBe(1_100)
    expect(screen.queryByRole('button', { name: /Jump to latest/ })).toBeNull()
    layOut(log(), { scrollHeight: 1_200, clientHeight: 200 })
    await inAct(() => client.deliver(message('four')))
    expect(log().scrollTop).toBe(1_200)
  })

  it('is silent about the history, and about a streamed message until it is whole', async () => {
    const { client } = show(<ChatThread topic="chat.1" />)
    expect(log().getAttribute('aria-live')).toBe('off')
    await inAct(() => client.opened.find(({ options }) => options.types?.includes('message'))?.become('live'))
    expect(log().getAttribute('aria-live')).toBe('polite')
    const chunk = (seq: number, delta: string, more = {}) =>
      event({ topic: 'chat.1', type: 'message.chunk', correlation: 'm', source: 'bot', data: { seq, delta, ...more } })
    await inAct(() => client.deliver(chunk(0, 'Hel')))
    const item = screen.getByRole('listitem')
    expect(item.getAttribute('aria-busy')).toBe('true')
    await inAct(() => client.deliver(chunk(1, 'lo', { final: true })))
    expect(item.textContent).toContain('Hello')
    expect(item.getAttribute('aria-busy')).toBe('false')
  })

  it('tells others that we are typing', async () => {
    const { client } = show(<ChatThread topic="chat.1" name="Me" />)
    await userEvent.type(screen.getByRole('textbox'), 'H')
    expect(client.published[0]).toMatchObject({
      topic: 'chat.1',
      data: { typing: true, name: 'Me' },
      options: { type: 'typing' },
    })
  })

  it('leaves nothing behind', async () => {
    const { client, unmount } = show(<ChatThread topic="chat.1" />)
    await userEvent.type(screen.getByRole('textbox'), 'Hello{Enter}')
    await inAct(() => {})
    unmount()
    await frame()
    await frame()
    expect(client.subscriptions).toHaveLength(0)
  })
})
