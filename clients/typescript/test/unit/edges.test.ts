// What goes wrong at the edges: taken over, refused, answered by others, slow, and thrown by the program.

import { afterEach, describe, expect, test, vi } from 'vitest'
import { createAcks } from '../../src/core/acks.js'
import { createEmitter } from '../../src/core/emitter.js'
import type { Feed } from '../../src/core/link.js'
import type { TidingsEvent } from '../../src/index.js'
import { connect, connected, heldClients, settle } from '../support/clients.js'
import { batch, FakeSocket } from '../support/fake-socket.js'

const durable = { durable: 'd', cursor: 0, last_acked: 0 }

heldClients()
afterEach(() => {
  vi.restoreAllMocks()
})

const count = (kind: string): number => FakeSocket.last.sent.filter((request) => kind in request).length

describe('subscriptions', () => {
  test.each([
    ['of the log, or of a mirror, end after what is here', { durable: 'd', mode: 'mirror', ack: 'manual' }, [1, 2, 3]],
    ['of the log end after what is here', { after: 'first' }, [1, 2, 3]],
    ['of what is leased end at once', { durable: 'd' }, [1]],
  ] as const)('iterators %s', async (_, options, expected) => {
    const client = await connected()
    const subscription = client.subscribe('a.*', options)
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, ...durable } })
    FakeSocket.last.say(batch(0, 3, [1, 2, 3]))
    const got: unknown[] = []
    for await (const event of subscription) {
      got.push(event.offset)
      // Nobody waits for the answer: the broker does not give it.
      if (got.length === 1) void subscription.unsubscribe()
    }
    expect(got).toEqual(expected)
  })

  test('who leaves the loop has left what is here', async () => {
    const client = await connected()
    const subscription = client.subscribe('a.*', { after: 'first' })
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, ...durable } })
    FakeSocket.last.say(batch(0, 3, [1, 2, 3]))
    const leaving = (async () => {
      for await (const event of subscription) if (event.offset === 1) break
    })()
    await settle()
    FakeSocket.last.reply('unsubscribe', { unsubscribed: {} })
    await leaving
    expect(await subscription[Symbol.asyncIterator]().next()).toMatchObject({ done: true })
  })

  test('one that the broker refuses is told on the client too', async () => {
    const client = await connected()
    const told: unknown[] = []
    client.on('error', (error) => told.push(error))
    const subscription = client.subscribe('a.*', () => {})
    subscription.on('error', (error) => told.push(error))
    FakeSocket.last.reply('subscribe', { error: { code: 'invalid_argument', message: 'no', retryable: false } })
    await settle()
    expect(subscription.error).toMatchObject({ code: 'invalid_argument' })
    expect(told).toEqual([subscription.error, subscription.error])
  })

  test('a store of cursors that hangs keeps nothing open', async () => {
    const cursors = { get: () => undefined, set: () => new Promise<void>(() => {}) }
    const client = await connected({ cursors, requestTimeoutMs: 1_000 })
    client.subscribe('a.*', { key: 'k' }, () => {})
    await settle()
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, cursor: 7 } })
    const closed = vi.fn()
    const closing = client.close().then(closed)
    await settle()
    expect([FakeSocket.last.closed, client.state]).toEqual([true, 'disconnected'])
    await expect(client.publish('a.b')).rejects.toMatchObject({ code: 'closed' })
    await vi.advanceTimersByTimeAsync(999)
    expect(closed).not.toHaveBeenCalled()
    await vi.advanceTimersByTimeAsync(1)
    await closing
  })

  test('one that was taken over does not take it back', async () => {
    const client = await connected()
    const handled = client.subscribe('a.*', { durable: 'd' }, () => {})
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, ...durable } })
    FakeSocket.last.say({ superseded: { subscription: 1 } })
    await settle()
    expect(handled.state).toBe('closed')
    expect(count('subscribe')).toBe(1)
  })

  test('one that was taken over while its handler is busy stays so on a new connection', async () => {
    const client = await connected()
    const paused = client.subscribe('a.*', { durable: 'd' }, () => new Promise(() => {}))
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, ...durable } })
    FakeSocket.last.say(batch(0, 1, [1]))
    FakeSocket.last.say({ superseded: { subscription: 1 } })
    FakeSocket.last.drop()
    await vi.advanceTimersByTimeAsync(500)
    FakeSocket.last.accept()
    await settle()
    expect(count('subscribe')).toBe(0)
    await paused.unsubscribe()
  })

  test('one that the broker ends is asked for again where that may help, and closed where not', async () => {
    const client = await connected()
    const subscription = client.subscribe('a.*', { durable: 'd' }, () => {})
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, ...durable } })
    const ends = { message: 'subscription 1 ends: it went wrong' }
    FakeSocket.last.say({ error: { ...ends, code: 'unavailable', retryable: true } })
    expect(subscription.state).toBe('subscribing')
    await vi.advanceTimersByTimeAsync(1_000)
    expect(count('subscribe')).toBe(2)
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, ...durable } })
    FakeSocket.last.say({ error: { ...ends, code: 'internal', retryable: false } })
    await settle()
    expect(subscription).toMatchObject({ state: 'closed', error: { code: 'internal' } })
  })

  /** Event 1 of a durable comes, and then event 1 of another log. */
  const inTwoLogs = async () => {
    const first = async () => {
      FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, ...durable } })
      FakeSocket.last.say(batch(0, 1, [1]))
      await settle()
    }
    await first()
    FakeSocket.last.drop()
    await vi.advanceTimersByTimeAsync(500)
    FakeSocket.last.accept({ log: 'another' })
    await settle()
    await first()
  }

  test('in another log an offset is another event', async () => {
    const client = await connected()
    const got: unknown[] = []
    client.subscribe('a.*', { durable: 'd', ack: 'manual' }, (event) => void got.push(event.offset))
    await inTwoLogs()
    expect(got).toEqual([1, 1])
  })

  describe('a handler that is busy while the log becomes another one', () => {
    /** Event 1 is being handled, and then there is another event 1. */
    const changed = async (ack: 'auto' | 'manual') => {
      const client = await connected()
      const errors: unknown[] = []
      client.on('error', ({ code }) => errors.push(code))
      const done: (() => void)[] = []
      const events: TidingsEvent[] = []
      const subscription = client.subscribe('a.*', { durable: 'd', ack }, (event) => {
        events.push(event)
        return new Promise<void>((resolve) => done.push(resolve))
      })
      await inTwoLogs()
      return { subscription, events, done, errors }
    }

    test('acknowledges no event of the new one', async () => {
      const { events, done } = await changed('auto')
      expect(events).toHaveLength(1)
      done[0]?.()
      await settle()
      // It has the second one in hand, and nothing was said of it.
      expect(events).toHaveLength(2)
      expect(count('ack')).toBe(0)
      done[1]?.()
      await settle()
      expect(FakeSocket.last.asked('ack')).toMatchObject({ offsets: [1], log: 'another' })
      expect(count('ack')).toBe(1)
    })

    test('and neither does its program, by the event it was given', async () => {
      const { subscription, events, done } = await changed('manual')
      await expect(subscription.ack(events[0] ?? 0)).rejects.toMatchObject({ code: 'offset_gone' })
      await expect(subscription.nack([events[0] ?? 0])).rejects.toMatchObject({ code: 'offset_gone' })
      expect(count('ack') + count('nack')).toBe(0)
      done[0]?.()
      await settle()
      const said = subscription.ack(events[1] ?? 0)
      await settle()
      FakeSocket.last.reply('ack', { acked: { subscription: 1, cursor: 1 } })
      await said
    })
  })

  test('a mirror remembers nothing of what it has handed over', async () => {
    const set = vi.spyOn(Map.prototype, 'set')
    const client = await connected()
    const got: unknown[] = []
    client.subscribe('a.*', { durable: 'd', mode: 'mirror', ack: 'manual' }, (event) => void got.push(event.offset))
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, ...durable } })
    FakeSocket.last.say(batch(0, 2, [1, 2]))
    await settle()
    expect(got).toEqual([1, 2])
    // Leases are told by words, or by when they ended; all else that is kept under a number is no such value.
    expect(set.mock.calls.filter(([, lease]) => ['string', 'number'].includes(typeof lease))).toEqual([])
  })

  test('a slow answer to a subscribe is waited for', async () => {
    const client = await connected({ requestTimeoutMs: 1_000 })
    const subscription = client.subscribe('a.*', { lastPerKey: true }, () => {})
    await vi.advanceTimersByTimeAsync(20_000)
    expect(count('subscribe')).toBe(1)
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, cursor: 0 } })
    expect(subscription.state).toBe('catching-up')
  })

  test('what is said once is sent once, also where the stream begins anew', async () => {
    let answer: (cursor: number) => void = () => {}
    const say = vi.fn(() => new Promise<number>((resolve) => (answer = resolve)))
    const feed: Feed = { _say: say, _close: () => Promise.resolve() }
    const acks = createAcks(
      { durable: 'd' },
      () => {},
      () => {},
      () => undefined,
    )
    acks._attach(feed)
    const said = acks._say('ack', { offsets: [1] })
    await settle()
    acks._attach(feed)
    await settle()
    expect(say).toHaveBeenCalledOnce()
    answer(1)
    await said
    await acks._flush()
  })
})

describe('others in the way', () => {
  test('a publish outlives a portal that refuses it in place of the broker', async () => {
    let portal = true
    const answered: typeof fetch = async (_, init) => {
      if (init?.method !== 'POST') return Response.json({})
      return portal ? new Response('<h1>Log in</h1>', { status: 403 }) : Response.json({ offset: 1, id: 'x' })
    }
    const client = connect({ transports: ['poll'], fetch: answered })
    const published = client.publish('a', 1)
    published.catch(() => {})
    await settle()
    expect(client.status).toMatchObject({ state: 'reconnecting', outboxEvents: 1 })
    portal = false
    await vi.advanceTimersByTimeAsync(1_000)
    expect(await published).toMatchObject({ offset: 1 })
  })

  test.each([403, 404, 407, 511])('a proxy that answers %i in place of the broker is waited for', async (status) => {
    let proxy = true
    const answered: typeof fetch = async () =>
      proxy ? new Response('<h1>Not here</h1>', { status }) : Response.json({ limits: {} })
    const client = connect({ transports: ['poll'], fetch: answered })
    await vi.advanceTimersByTimeAsync(2_000)
    expect(client.status).toMatchObject({ state: 'connecting' })
    expect(client.status.attempt).toBeGreaterThan(1)
    proxy = false
    await vi.advanceTimersByTimeAsync(10_000)
    expect(client.state).toBe('connected')
    // Also while it is in use.
    proxy = true
    await vi.advanceTimersByTimeAsync(30_000)
    expect(client.status).toMatchObject({ state: 'reconnecting' })
    proxy = false
    await vi.advanceTimersByTimeAsync(30_000)
    expect(client.state).toBe('connected')
  })

  test('a broker that comes back between two tries is found by its socket', async () => {
    let up = false
    const answered: typeof fetch = async () => {
      if (!up) throw new TypeError('no network')
      return Response.json({})
    }
    const client = connect({ transports: ['websocket', 'poll'], fetch: answered })
    await settle()
    FakeSocket.last.drop()
    await vi.advanceTimersByTimeAsync(500)
    FakeSocket.last.drop()
    up = true
    await vi.advanceTimersByTimeAsync(1_000)
    // Only one of two failures was the socket's.
    expect(FakeSocket.made).toHaveLength(3)
    FakeSocket.last.accept()
    await settle()
    expect(client.status).toMatchObject({ state: 'connected', transport: 'websocket' })
  })

  test('a token that is refused says nothing of the transport', async () => {
    const client = connect({
      transports: ['websocket', 'poll'],
      fetch: async () => Response.json({}),
      getToken: async () => 'refused',
      reconnect: { minMs: 1, maxMs: 1 },
    })
    for (let tries = 0; tries < 5; tries++) {
      await settle()
      FakeSocket.last.onopen?.()
      await settle()
      const refused = { code: 'unauthenticated', message: 'it is over', retryable: false }
      FakeSocket.last.reply('connect', { error: refused })
      await vi.advanceTimersByTimeAsync(10)
    }
    expect(client.status).toMatchObject({ state: 'connecting', transport: undefined })
    expect(FakeSocket.made.length).toBeGreaterThan(4)
    await client.close()
  })

  test('who would be listed and is not, since requests stay nowhere, is told', async () => {
    const answered: typeof fetch = async (url, init) => {
      if (`${url}`.endsWith('/v1/capabilities')) return Response.json({})
      return new Promise((_, reject) => init?.signal?.addEventListener('abort', () => reject(init.signal?.reason)))
    }
    const client = connect({ transports: ['poll'], fetch: answered })
    const errors: unknown[] = []
    client.on('error', ({ code, message }) => errors.push(`${code}: ${message}`))
    await settle()
    client.subscribe('a', () => {})
    await settle()
    expect(errors).toEqual([])
    client.subscribe('a', { presence: {} }, () => {})
    await settle()
    expect(errors).toEqual(['unavailable: not listed by polls'])
  })

  test('a fetch says that the answer to the one before was lost', async () => {
    const refused = { code: 'rate_limited', detail: 'slower', retryable: true, retry_after_ms: 10 }
    const nothing = { events: [], cursor: 0 }
    const answers = [nothing, refused, 'lost', refused, nothing, nothing]
    const asked: unknown[] = []
    const answered: typeof fetch = async (url, init) => {
      const path = `${url}`
      if (path.endsWith('/capabilities')) return Response.json({})
      if (!path.endsWith('/fetch')) return Response.json({ cursor: 0 })
      const { reader, lost } = JSON.parse(`${init?.body}`)
      asked.push(lost)
      expect(reader).toMatch(/^[0-9a-f-]{36}$/)
      const answer = answers.shift()
      if (answer === 'lost') throw new TypeError('no answer')
      if (answer) return Response.json(answer, { status: answer === refused ? 429 : 200 })
      return new Promise((_, reject) => init?.signal?.addEventListener('abort', () => reject(init.signal?.reason)))
    }
    const client = connect({ transports: ['poll'], fetch: answered, reconnect: { minMs: 1, maxMs: 1 } })
    const subscription = client.subscribe('a', { durable: 'd' }, () => {})
    await vi.advanceTimersByTimeAsync(5_000)
    expect(asked.slice(0, 7)).toEqual([false, false, false, true, true, false, false])
    await subscription.unsubscribe()
  })

  test('a reader that has gone on over a socket fetches by another name afterwards', async () => {
    const asked: { reader: string; lost: boolean }[] = []
    const answered: typeof fetch = async (url, init) => {
      if (`${url}`.endsWith('/capabilities')) return Response.json({})
      if (!`${url}`.endsWith('/fetch')) return Response.json({ cursor: 0 })
      asked.push(JSON.parse(`${init?.body}`))
      return new Promise((_, reject) => init?.signal?.addEventListener('abort', () => reject(init.signal?.reason)))
    }
    const reconnect = { minMs: 1, maxMs: 1 }
    const client = connect({ transports: ['websocket', 'poll'], fetch: answered, reconnect, upgradeEveryMs: 100 })
    client.subscribe('a', { durable: 'd' }, () => {})
    const stepDown = async (fetches: number): Promise<void> => {
      while (asked.length < fetches) {
        FakeSocket.last.drop()
        await vi.advanceTimersByTimeAsync(5)
      }
      await vi.advanceTimersByTimeAsync(200)
    }
    await settle()
    await stepDown(1)
    FakeSocket.last.accept()
    await settle()
    // The fetch is on its way still, and may come to the broker behind this.
    expect(FakeSocket.last.asked('subscribe')).toMatchObject({ lost_reader: asked[0]?.reader })
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, cursor: 0 } })
    await settle()
    await stepDown(2)
    expect(asked.map(({ lost }) => lost)).toEqual([false, false])
    expect(asked[1]?.reader).not.toBe(asked[0]?.reader)
    await client.close()
  })

  test('what the broker itself refuses at the beginning ends it', async () => {
    const refused = { code: 'permission_denied', detail: 'not you', retryable: false }
    const client = connect({ transports: ['poll'], fetch: async () => Response.json(refused, { status: 403 }) })
    await vi.advanceTimersByTimeAsync(2_000)
    expect(client.status).toMatchObject({ state: 'disconnected', error: { code: 'permission_denied' } })
  })

  test('one that is too large for a proxy is refused', async () => {
    const answered: typeof fetch = async (_, init) =>
      init?.method === 'POST' ? new Response('', { status: 413 }) : Response.json({})
    const client = connect({ transports: ['poll'], fetch: answered })
    await expect(client.publish('a', 1)).rejects.toMatchObject({ code: 'too_large' })
  })

  test('a call whose answer has no body gives nothing', async () => {
    const client = connect({ fetch: async () => new Response(null, { status: 204 }) })
    expect(await client.call('DELETE', '/v1/x')).toBeUndefined()
  })

  test('what a later version says is passed over; nonsense is not', async () => {
    const client = await connected()
    FakeSocket.last.say({ weather: { rain: true } })
    await settle()
    expect(client.state).toBe('connected')
    FakeSocket.last.say({ reply: 99, weather: {} })
    await settle()
    expect(client.status).toMatchObject({ state: 'disconnected', error: { code: 'protocol' } })
  })
})

describe('the program', () => {
  test('a listener of errors that throws is told to the host, and not to itself', () => {
    const thrown: (() => void)[] = []
    vi.stubGlobal('queueMicrotask', (job: () => void) => thrown.push(job))
    const failed = vi.fn((cause: unknown) => emitter._emit('error', cause))
    const emitter = createEmitter<{ error: [unknown]; other: [] }>(failed)
    const cause = new Error('thrown')
    emitter._on('error', () => {
      throw cause
    })
    emitter._on('other', () => {
      throw new Error('first')
    })
    emitter._emit('other')
    vi.unstubAllGlobals()
    expect(failed).toHaveBeenCalledOnce()
    expect(thrown).toHaveLength(1)
    expect(thrown[0]).toThrow(cause)
  })

  test('what a listener of a subscription throws is told as that', async () => {
    const client = await connected()
    const errors: unknown[] = []
    client.on('error', ({ code, cause }) => errors.push([code, cause]))
    const cause = new Error('thrown')
    client
      .subscribe('a.*', () => {})
      .on('state', () => {
        throw cause
      })
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, cursor: 0 } })
    await settle()
    expect(errors).toContainEqual(['internal', cause])
    expect(errors).not.toContainEqual(['disconnected', cause])
  })

  test('a getToken that hangs is given up, and asked again', async () => {
    const signals: AbortSignal[] = []
    const getToken = vi.fn(({ signal }: { signal: AbortSignal }) => {
      signals.push(signal)
      return signals.length > 1 ? Promise.resolve('second') : new Promise<string>(() => {})
    })
    connect({ getToken, requestTimeoutMs: 1_000 })
    await vi.advanceTimersByTimeAsync(1_000)
    expect(signals[0]?.aborted).toBe(true)
    await vi.advanceTimersByTimeAsync(500)
    FakeSocket.last.accept()
    expect(FakeSocket.last.asked('connect')).toMatchObject({ token: 'second' })
  })

  test('a call does not wait for a token longer than it has time, or than its caller wants', async () => {
    const client = connect({ getToken: () => new Promise<string>(() => {}), requestTimeoutMs: 60_000 })
    const late = client.read('a', { timeoutMs: 200 }).catch((error) => error)
    const abort = new AbortController()
    const left = client.read('a', { signal: abort.signal }).catch((error) => error)
    abort.abort()
    await settle()
    expect(await left).toMatchObject({ code: 'aborted' })
    await vi.advanceTimersByTimeAsync(200)
    expect(await late).toMatchObject({ code: 'timeout' })
  })

  test('a token that ends a connection is not shown again', async () => {
    const getToken = vi.fn(async ({ reason }: { reason: string }) => reason)
    await connected({ getToken })
    FakeSocket.last.drop(4401, 'expired')
    await vi.advanceTimersByTimeAsync(500)
    FakeSocket.last.accept()
    expect(FakeSocket.last.asked('connect')).toMatchObject({ token: 'rejected' })
  })

  test('one that hangs up as soon as it has an answer leaves nothing behind', async () => {
    const client = connect()
    client.on('status', ({ latencyMs }) => latencyMs !== undefined && client.disconnect())
    await settle()
    FakeSocket.last.accept()
    await settle()
    expect(client.state).toBe('disconnected')
    expect(vi.getTimerCount()).toBe(0)
  })

  test('a nextDelay that throws is told, and the wait is as without it', async () => {
    const nextDelay = (): number => {
      throw new Error('thrown')
    }
    const client = await connected({ reconnect: { jitter: 'none', nextDelay } })
    const errors: unknown[] = []
    client.on('error', ({ message }) => errors.push(message))
    FakeSocket.last.drop()
    await vi.advanceTimersByTimeAsync(500)
    FakeSocket.last.accept()
    await settle()
    expect(client.state).toBe('connected')
    expect(errors).toContain('nextDelay threw')
  })
})
