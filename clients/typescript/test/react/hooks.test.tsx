import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { act, cleanup, render, screen } from '@testing-library/react'
import { useEffect, useState } from 'react'
import { afterEach, describe, expect, expectTypeOf, it, vi } from 'vitest'
import { TidingsError } from '../../src/errors.js'
import {
  TidingsProvider,
  useConnection,
  useEvents,
  useLatest,
  useOutbox,
  usePresence,
  usePublish,
  useSubscription,
  useTidings,
} from '../../src/react/index.js'
import type { Client, Member, TidingsEvent } from '../../src/types.js'
import { event, FakeClient, gap } from './fake.js'
import { frame, inAct, noWarnings, show } from './setup.js'

noWarnings()
afterEach(cleanup)

const text = (): string => screen.getByTestId('out').textContent ?? ''
const Out = ({ children }: { children: unknown }) => <p data-testid="out">{String(children)}</p>

describe('useConnection', () => {
  it('shows every change of the status', async () => {
    const Status = () => {
      const status = useConnection()
      return <Out>{`${status.state} ${status.transport} ${status.latencyMs}`}</Out>
    }
    const { client, unmount } = show(<Status />)
    expect(text()).toBe('connected websocket 12')
    await inAct(() => client.become({ state: 'reconnecting', transport: undefined }))
    expect(text()).toBe('reconnecting undefined 12')
    unmount()
    expect(client.emitter.count()).toBe(0)
  })

  it('needs a provider', async () => {
    const { renderToString } = await import('react-dom/server')
    const Status = () => <Out>{useConnection().state}</Out>
    expect(() => renderToString(<Status />)).toThrow('TidingsProvider')
  })
})

describe('useOutbox', () => {
  it('counts what waits', async () => {
    const Outbox = () => {
      const { events, state } = useOutbox()
      return <Out>{`${events} ${state}`}</Out>
    }
    const { client } = show(<Outbox />)
    await inAct(() => client.become({ outboxEvents: 3, state: 'reconnecting' }))
    expect(text()).toBe('3 reconnecting')
  })
})

describe('useSubscription', () => {
  const seen: string[] = []
  const Reader = ({ filter = 'tasks.*', name = 'a' }: { filter?: string | null; name?: string }) => {
    const view = useSubscription<string>(filter, { minPriority: 'high' }, (event) => {
      seen.push(`${name}:${event.data}`)
    })
    return <Out>{`${view.state} ${view.cursor} ${view.caughtUp} ${view.gap?.reason} ${view.error?.code}`}</Out>
  }

  it('subscribes once in Strict Mode and unsubscribes when it is gone', async () => {
    const { client, unmount } = show(<Reader />)
    await act(frame)
    expect(client.opened).toHaveLength(1)
    expect(client.opened[0]?.filters).toEqual(['tasks.*'])
    expect(client.opened[0]?.options).toEqual({ minPriority: 'high' })
    unmount()
    expect(client.subscriptions).toHaveLength(1)
    await frame()
    expect(client.subscriptions).toHaveLength(0)
  })

  it('keeps the subscription over a remount in the same task', async () => {
    const Toggle = ({ shown }: { shown: string }) =>
      shown === 'left' ? (
        <div key="l">
          <Box />
        </div>
      ) : (
        <p key="r">
          <Box />
        </p>
      )
    const Box = () => <span>{useEvents('tasks.*').length}</span>
    const { client, rerender } = show(<Toggle shown="left" />)
    rerender(<Toggle shown="right" />)
    await act(frame)
    expect(client.opened).toHaveLength(1)
    expect(client.subscriptions).toHaveLength(1)
  })

  it('hands events to the handler of the last render, without subscribing anew', async () => {
    seen.length = 0
    const { client, rerender } = show(<Reader name="a" />)
    await inAct(() => client.deliver(event({ data: 'one', offset: 41 })))
    rerender(<Reader name="b" />)
    await inAct(() => client.deliver(event({ data: 'two', offset: 42 })))
    expect(seen).toEqual(['a:one', 'b:two'])
    expect(text()).toBe('subscribing 42 false undefined undefined')
    expect(client.opened).toHaveLength(1)
  })

  it('takes what `subscribe` takes, of events that are kept and of durables', async () => {
    const Both = () => {
      useSubscription('tasks.*', { after: 'first', key: 'tasks' })
      useSubscription('tasks.*', { durable: 'inbox', start: 'first', ack: 'manual' }, (event, subscription) => {
        subscription.ack(event)
      })
      // @ts-expect-error: a durable knows its place itself.
      useSubscription(null, { durable: 'inbox', after: 'first' })
      // @ts-expect-error: it ends with the component.
      useSubscription(null, { signal: new AbortController().signal })
      return null
    }
    const { client } = show(<Both />)
    await act(frame)
    expect(client.opened.map(({ options }) => options)).toEqual([
      { after: 'first', key: 'tasks' },
      { durable: 'inbox', start: 'first', ack: 'manual' },
    ])
  })

  it('tells state, gap and error', async () => {
    const { client } = show(<Reader />)
    const subscription = client.opened[0]
    await inAct(() => {
      subscription?.become('live')
      subscription?.tell('gap', gap())
      subscription?.tell('error', new TidingsError('permission_denied', 'no'))
    })
    expect(text()).toBe('live 0 true retention permission_denied')
  })

  it('subscribes anew with another filter, and not at all without one', async () => {
    const { client, rerender } = show(<Reader filter="a" />)
    rerender(<Reader filter="b" />)
    await act(frame)
    expect(client.subscriptions.map(({ filters }) => filters[0])).toEqual(['b'])
    rerender(<Reader filter={null} />)
    await act(frame)
    expect(client.subscriptions).toHaveLength(0)
    expect(text()).toBe('closed 0 false undefined undefined')
  })

  it('gives every component its own', async () => {
    const { client } = show(
      <>
        <ReaderAt />
        <ReaderAt />
      </>,
    )
    expect(client.opened).toHaveLength(2)
  })
  const ReaderAt = () => <i>{useSubscription('tasks.*').state}</i>
})

describe('useEvents', () => {
  const List = ({ limit }: { limit?: number }) => {
    const events = useEvents<string>('tasks.*', limit === undefined ? {} : { limit })
    return <Out>{events.map((event) => event.data).join(' ')}</Out>
  }

  it('keeps the newest', async () => {
    const { client } = show(<List limit={3} />)
    await inAct(() => {
      for (let n = 1; n <= 20; n += 1) client.deliver(event({ data: `${n}` }))
    })
    expect(text()).toBe('18 19 20')
  })

  it('lets go of what it does not show', async () => {
    const { client } = show(<List limit={3} />)
    await act(frame)
    const first = ((): WeakRef<TidingsEvent> => {
      const oldest = event({ data: 'oldest' })
      client.deliver(oldest)
      return new WeakRef(oldest)
    })()
    for (let n = 0; n < 10; n += 1) await inAct(() => client.deliver(event({ data: `${n}` })))
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    await vi.waitFor(() => {
      collect()
      expect(first.deref()).toBeUndefined()
    })
  })

  it('shares one subscription among components', async () => {
    const { client, unmount } = show(
      <>
        <List limit={3} />
        <ListCount />
      </>,
    )
    expect(client.opened).toHaveLength(1)
    unmount()
    await frame()
    expect(client.subscriptions).toHaveLength(0)
  })
  const ListCount = () => <b>{useEvents('tasks.*', { limit: 3 }).length}</b>

  it('begins anew with another log', async () => {
    const { client } = show(<List />)
    await inAct(() => client.deliver(event({ data: 'old' })))
    await inAct(() => {
      client.opened[0]?.tell('gap', gap({ reason: 'log_changed' }))
      client.deliver(event({ data: 'new' }))
    })
    expect(text()).toBe('new')
  })

  it('says that its filter was refused, and keeps what is there', async () => {
    const Refused = () => {
      const events = useEvents('tasks.*')
      return <Out>{`${events.length} ${events.error?.code}`}</Out>
    }
    const { client } = show(<Refused />)
    await inAct(() => client.deliver(event()))
    expect(text()).toBe('1 undefined')
    await inAct(() => client.opened[0]?.tell('error', new TidingsError('permission_denied', 'not for you')))
    expect(text()).toBe('1 permission_denied')
  })

  it('renders once a frame, whatever comes', async () => {
    let renders = 0
    const Counted = () => {
      renders += 1
      return <Out>{useEvents('tasks.*').length}</Out>
    }
    const { client } = show(<Counted />)
    await act(frame)
    renders = 0
    await inAct(() => {
      for (let n = 0; n < 10_000; n += 1) client.deliver(event())
    })
    expect(text()).toBe('200')
    // Strict Mode renders twice.
    expect(renders).toBe(2)
  })

  it('gives the same list until something comes', async () => {
    const lists: unknown[] = []
    const Same = () => {
      const [count, setCount] = useState(0)
      const events = useEvents('tasks.*')
      useEffect(() => {
        lists.push(events)
        if (count < 3) setCount(count + 1)
      })
      return <Out>{count}</Out>
    }
    const { client } = show(<Same />)
    await inAct(() => client.deliver(event()))
    const last = lists.at(-1)
    lists.length = 0
    await inAct(() => {})
    expect(lists.every((list) => list === last)).toBe(true)
  })
})

describe('useLatest', () => {
  it('keeps the last of every topic and key', async () => {
    const Latest = () => (
      <Out>
        {useLatest<number>('cpu.*', { limit: 2 })
          .map((event: TidingsEvent<number>) => `${event.topic}/${event.key}=${event.data}`)
          .join(' ')}
      </Out>
    )
    const { client } = show(<Latest />)
    expect(client.opened[0]?.options).toEqual({ lastPerKey: true })
    await inAct(() => {
      client.deliver(event({ topic: 'cpu.1', key: 'a', data: 1 }))
      client.deliver(event({ topic: 'cpu.1', key: 'b', data: 2 }))
      client.deliver(event({ topic: 'cpu.1', key: 'a', data: 3 }))
    })
    expect(text()).toBe('cpu.1/a=3 cpu.1/b=2')
    await inAct(() => client.deliver(event({ topic: 'cpu.2', key: 'a', data: 4 })))
    expect(text()).toBe('cpu.1/b=2 cpu.2/a=4')
  })
})

describe('usePublish', () => {
  it('counts what is pending and keeps what was refused', async () => {
    const Button = () => {
      const { publish, pending, error } = usePublish()
      return (
        <button type="button" onClick={() => publish('a', 1, { key: 'k' })}>
          <Out>{`${pending} ${error?.code}`}</Out>
        </button>
      )
    }
    const { client } = show(<Button />)
    client.answers = false
    await inAct(() => screen.getByRole('button').click())
    expect(client.published[0]).toMatchObject({ topic: 'a', data: 1, options: { key: 'k' } })
    expect(text()).toBe('1 undefined')
    await inAct(() => client.published[0]?.reject(new TidingsError('rate_limited', 'slow down')))
    expect(text()).toBe('0 rate_limited')
    await inAct(() => screen.getByRole('button').click())
    await inAct(() => client.published[1]?.resolve(client.answer()))
    expect(text()).toBe('0 undefined')
    // What was said of an earlier one is no news.
    await inAct(() => screen.getByRole('button').click())
    await inAct(() => screen.getByRole('button').click())
    await inAct(() => client.published[3]?.resolve(client.answer()))
    await inAct(() => client.published[2]?.reject(new TidingsError('rate_limited', 'slow down')))
    expect(text()).toBe('0 undefined')
  })
})

describe('usePresence', () => {
  const member = (session: string) => ({ session, subject: session, since: '2026-11-22T07:00:00Z', data: {} })
  const Who = ({ data }: { data?: unknown }) => {
    const { members, ready, error } = usePresence('rooms.1', data)
    return <Out>{`${ready} ${members.map(({ session }) => session).join(' ')} ${error?.code ?? ''}`}</Out>
  }
  const joined = (session: string) =>
    event({ topic: '$presence.rooms.1', type: 'presence.joined', data: member(session) })
  const left = (session: string) => event({ topic: '$presence.rooms.1', type: 'presence.left', data: member(session) })

  it('reads the list and follows its news, those that came meanwhile too', async () => {
    const { client, unmount } = show(<Who />)
    let answer = (_: Member[]): void => {}
    const presence = client.presence
    client.presence = () =>
      new Promise((resolve) => {
        answer = resolve
      })
    expect(client.opened.map(({ filters }) => filters)).toEqual([['$presence.rooms.1']])
    await inAct(() => client.opened[0]?.become('live'))
    expect(text()).toBe('false  ')
    client.presence = presence
    await inAct(() => {
      client.deliver(joined('cid'))
      client.deliver(joined('ann'))
      client.deliver(left('zed'))
      answer([member('ann'), member('bob')])
    })
    expect(text()).toBe('true ann bob cid ')
    await inAct(() => client.deliver(left('ann')))
    expect(text()).toBe('true bob cid ')
    await inAct(() => {
      client.members = [member('eve')]
      client.opened[0]?.tell('gap', gap())
    })
    expect(text()).toBe('true eve ')
    unmount()
    await frame()
    expect(client.subscriptions).toHaveLength(0)
  })

  it('is listed while it is mounted, with its data', async () => {
    const { client, unmount } = show(<Who data={{ name: 'Ann' }} />)
    await act(frame)
    expect(client.opened).toHaveLength(2)
    expect(client.opened[1]?.options.presence).toEqual({ data: { name: 'Ann' } })
    expect(client.opened[1]?.filters).toEqual(['rooms.1'])
    unmount()
    await frame()
    expect(client.subscriptions).toHaveLength(0)
  })
})

describe('a client with a schema', () => {
  interface Topics {
    'tasks.*': { done: number }
  }
  it('is given to the provider as it is, and comes back with its types', () => {
    const typed = new FakeClient() as unknown as Client<Topics>
    const Task = () => {
      const client = useTidings<Topics>()
      expectTypeOf(client).toEqualTypeOf<Client<Topics>>()
      expectTypeOf<ReturnType<typeof useEvents<{ done: number }>>[number]>().toEqualTypeOf<
        TidingsEvent<{ done: number }>
      >()
      return <Out>{client === typed}</Out>
    }
    render(
      <TidingsProvider client={typed}>
        <Task />
      </TidingsProvider>,
    )
    expect(text()).toBe('true')
  })
})
