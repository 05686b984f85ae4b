// The client with sockets and clocks of the test: states, ends, pings, tokens, order, backpressure, and what is left.

import { getEventListeners } from 'node:events'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { createClient, type Status, type TidingsEvent, type Words } from '../../src/index.js'
import { connect, connected, heldClients, settle } from '../support/clients.js'
import { asWebSocket, batch, FakeSocket, LOG } from '../support/fake-socket.js'

heldClients()

describe('the connection', () => {
  test('goes from connecting to connected, reconnecting and back', async () => {
    const client = connect()
    const seen: string[] = []
    client.on('state', (status: Status) => seen.push(status.state))
    await settle()
    expect(FakeSocket.last.url).toBe('ws://broker.test/base/v1/ws')
    expect(FakeSocket.last.protocol).toBe('tidings.v1.json')
    FakeSocket.last.accept()
    await client.ready()
    expect(client.session).toEqual({ id: 's', subject: 'alice', log: LOG })
    const before = client.status
    expect(client.status).toBe(before)
    FakeSocket.last.drop()
    await settle()
    expect(client.status).toMatchObject({ state: 'reconnecting', attempt: 1, error: { code: 'disconnected' } })
    expect(client.status.nextRetryAt).toBe(Date.now() + 500)
    await vi.advanceTimersByTimeAsync(500)
    FakeSocket.last.accept()
    await settle()
    expect(seen).toEqual(['connecting', 'connected', 'reconnecting', 'connected'].slice(1))
    expect(client.status).toMatchObject({ state: 'connected', transport: 'websocket', attempt: 0, error: undefined })
    client.disconnect()
    expect(client.state).toBe('disconnected')
    expect(FakeSocket.last.closed).toBe(true)
  })

  test.each([1002, 1003, 1007, 1008, 1009, 4500, 4503, 4999])('code %i ends it for good', async (code) => {
    const client = await connected()
    FakeSocket.last.drop(code, 'why')
    await vi.advanceTimersByTimeAsync(600_000)
    expect(client.status).toMatchObject({ state: 'disconnected', nextRetryAt: undefined })
    expect(client.status.error?.message).toContain('why')
    expect(FakeSocket.made).toHaveLength(1)
    await expect(client.ready()).rejects.toBe(client.status.error)
  })

  test.each([1000, 1001, 1006, 1011, 4400, 4408, 4429, 4499])('after code %i it comes again', async (code) => {
    const client = await connected()
    FakeSocket.last.drop(code)
    await vi.advanceTimersByTimeAsync(500)
    expect(FakeSocket.made).toHaveLength(2)
    FakeSocket.last.accept()
    await settle()
    expect(client.state).toBe('connected')
  })

  test('waits longer each time, and gives up after maxAttempts', async () => {
    const client = connect({ reconnect: { minMs: 100, maxMs: 1_000, jitter: 'none', maxAttempts: 6 } })
    const waits: number[] = []
    client.on('status', ({ nextRetryAt }) => nextRetryAt && waits.push(nextRetryAt - Date.now()))
    for (let n = 0; n < 7; n++) {
      await vi.advanceTimersByTimeAsync(1_000)
      if (client.state !== 'disconnected') FakeSocket.last.drop()
      await settle()
    }
    expect(waits).toEqual([100, 200, 400, 800, 1_000, 1_000])
    expect(client.status).toMatchObject({ state: 'disconnected', error: { code: 'disconnected' } })
  })

  test('connections that are lost soon are waited for longer each time, and never given up', async () => {
    const client = await connected({ reconnect: { minMs: 100, maxMs: 1_000, jitter: 'none', maxAttempts: 2 } })
    const waits: number[] = []
    for (let n = 0; n < 6; n++) {
      FakeSocket.last.drop()
      await settle()
      expect(client.status.attempt).toBe(1)
      waits.push((client.status.nextRetryAt ?? 0) - Date.now())
      await vi.advanceTimersByTimeAsync(1_000)
      FakeSocket.last.accept()
      await settle()
      expect(client.status).toMatchObject({ state: 'connected', attempt: 0 })
    }
    expect(waits).toEqual([100, 200, 400, 800, 1_000, 1_000])
    // One that lasts makes them short again.
    for (let n = 0; n < 3; n++) {
      await vi.advanceTimersByTimeAsync(20_000)
      FakeSocket.last.say({ pong: {} })
    }
    FakeSocket.last.drop()
    await settle()
    expect((client.status.nextRetryAt ?? 0) - Date.now()).toBe(100)
    // Tries that fail are counted.
    for (let n = 0; n < 2; n++) {
      await vi.advanceTimersByTimeAsync(1_000)
      FakeSocket.last.drop()
      await settle()
    }
    expect(client.state).toBe('disconnected')
  })

  test('a goodbye is told and its wait followed', async () => {
    const client = await connected()
    const told = vi.fn()
    client.on('goodbye', told)
    FakeSocket.last.say({ goodbye: { code: 'shutting_down', reconnect_after_ms: 7_000 } })
    FakeSocket.last.drop(1001)
    await vi.advanceTimersByTimeAsync(6_999)
    expect(told).toHaveBeenCalledWith({ code: 'shutting_down', reconnectAfterMs: 7_000 })
    expect(FakeSocket.made).toHaveLength(1)
    await vi.advanceTimersByTimeAsync(1)
    expect(FakeSocket.made).toHaveLength(2)
  })

  test('a broker that is silent is asked, and left when it stays silent', async () => {
    const client = await connected({ pingGraceMs: 3_000 })
    const socket = FakeSocket.last
    await vi.advanceTimersByTimeAsync(24_000)
    socket.say({ pong: {} })
    await vi.advanceTimersByTimeAsync(24_000)
    expect(socket.sent.some((request) => 'ping' in request)).toBe(false)
    await vi.advanceTimersByTimeAsync(1_000)
    await vi.advanceTimersByTimeAsync(20)
    socket.reply('ping', { pong: {} })
    await settle()
    expect(client.status.latencyMs).toBe(20)
    await vi.advanceTimersByTimeAsync(25_000 + 3_000 - 1)
    expect(client.state).toBe('connected')
    await vi.advanceTimersByTimeAsync(1)
    expect(client.state).toBe('reconnecting')
  })

  test('and also where the clock was set back meanwhile', async () => {
    const client = await connected({ pingGraceMs: 3_000 })
    await vi.advanceTimersByTimeAsync(1_000)
    FakeSocket.last.say({ pong: {} })
    vi.setSystemTime(Date.now() - 3_600_000)
    await vi.advanceTimersByTimeAsync(25_000 + 3_000)
    expect(client.state).toBe('reconnecting')
    expect(client.status.latencyMs).toBeGreaterThanOrEqual(0)
  })

  test('a connection that is not answered in time fails', async () => {
    const client = connect({ connectTimeoutMs: 1_000 })
    await settle()
    FakeSocket.last.onopen?.()
    await vi.advanceTimersByTimeAsync(1_000)
    expect(client.status).toMatchObject({ state: 'connecting', attempt: 1, error: { code: 'timeout' } })
  })
})

describe('tokens', () => {
  test('one that is refused is replaced, one that ends is refreshed', async () => {
    const getToken = vi.fn(async ({ reason }: { reason: string }) => `token-${reason}`)
    const client = connect({ getToken })
    await settle()
    FakeSocket.last.onopen?.()
    expect(FakeSocket.last.asked('connect')).toMatchObject({ token: 'token-initial' })
    FakeSocket.last.drop(4401, 'expired')
    await vi.advanceTimersByTimeAsync(500)
    FakeSocket.last.accept()
    expect(FakeSocket.last.asked('connect')).toMatchObject({ token: 'token-rejected' })
    await settle()
    FakeSocket.last.say({ token_expiring: { in_ms: 60_000 } })
    await settle()
    expect(FakeSocket.last.asked('refresh')).toMatchObject({ token: 'token-expiring' })
    FakeSocket.last.drop()
    await vi.advanceTimersByTimeAsync(1_000)
    FakeSocket.last.accept()
    expect(FakeSocket.last.asked('connect')).toMatchObject({ token: 'token-expiring' })
    expect(getToken.mock.calls.map(([context]) => context.reason)).toEqual(['initial', 'rejected', 'expiring'])
    await settle()
    expect(client.state).toBe('connected')
  })

  test('where there is only one, its refusal is the end', async () => {
    const client = connect({ token: 't' })
    await settle()
    FakeSocket.last.onopen?.()
    FakeSocket.last.reply('connect', { error: { code: 'unauthenticated', message: 'no', retryable: false } })
    await settle()
    expect(client.status).toMatchObject({ state: 'disconnected', error: { code: 'unauthenticated', message: 'no' } })
  })
})

describe('subscriptions', () => {
  const got: TidingsEvent[] = []
  beforeEach(() => {
    got.length = 0
  })
  const offsets = (): number[] => got.map((event) => event.offset)

  test('a batch that does not follow leads to a new subscribe, and none comes twice', async () => {
    const client = await connected()
    client.subscribe('a.*', { after: 0 }, (event) => void got.push(event))
    const socket = FakeSocket.last
    expect(socket.asked('subscribe')).toMatchObject({ filters: ['a.*'], after: 0 })
    socket.reply('subscribe', { subscribed: { subscription: 1, cursor: 0 } })
    socket.say(batch(0, 3, [1, 3]))
    await settle()
    expect(offsets()).toEqual([1, 3])
    socket.say(batch(5, 9, [9]))
    await settle()
    expect(socket.asked('unsubscribe')).toMatchObject({ subscription: 1 })
    expect(socket.asked('subscribe')).toMatchObject({ after: 3, log: LOG })
    socket.reply('subscribe', { subscribed: { subscription: 2, cursor: 3 } })
    socket.say(batch(3, 4, [4], { subscription: 1 }))
    socket.say(batch(3, 9, [2, 3, 4, 9], { subscription: 2 }))
    await settle()
    expect(offsets()).toEqual([1, 3, 4, 9])
  })

  test('a new connection goes on from the cursor', async () => {
    const client = await connected()
    const subscription = client.subscribe('a.*', (event) => void got.push(event))
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, cursor: 7 } })
    FakeSocket.last.say(batch(7, 9, []))
    await settle()
    expect(subscription.saved).toEqual({ log: LOG, cursor: 9 })
    FakeSocket.last.drop()
    await vi.advanceTimersByTimeAsync(500)
    FakeSocket.last.accept()
    await settle()
    expect(FakeSocket.last.asked('subscribe')).toMatchObject({ after: 9, log: LOG })
    expect(subscription.state).toBe('subscribing')
  })

  test('a gap is told in its place, and delivery goes on behind it', async () => {
    const client = await connected()
    const seen: unknown[] = []
    const subscription = client.subscribe('a.*', { after: 2 }, (event) => void seen.push(event.offset))
    subscription.on('gap', (gap) => seen.push(gap.reason))
    subscription.on('caught_up', (cursor) => seen.push(['caught up', cursor]))
    const socket = FakeSocket.last
    socket.reply('subscribe', { subscribed: { subscription: 1, cursor: 10 } })
    socket.say({ gap: { subscription: 1, requested: 2, first: 11, last: 12, log: LOG, reason: 'retention' } })
    socket.say(batch(10, 12, [11, 12]))
    socket.say({ caught_up: { subscription: 1, cursor: 12 } })
    await settle()
    expect(seen).toEqual(['retention', 11, 12, ['caught up', 12]])
    expect(subscription.state).toBe('live')
  })

  test('what is not taken stops the broker, and goes on where it stopped', async () => {
    const client = await connected()
    const subscription = client.subscribe('a.*', { after: 0, bufferEvents: 3 })
    const socket = FakeSocket.last
    socket.reply('subscribe', { subscribed: { subscription: 1, cursor: 0 } })
    socket.say(batch(0, 2, [1, 2]))
    await settle()
    expect(socket.sent.some((request) => 'unsubscribe' in request)).toBe(false)
    socket.say(batch(2, 4, [3, 4]))
    socket.say(batch(4, 5, [5]))
    await settle()
    expect(socket.asked('unsubscribe')).toMatchObject({ subscription: 1 })
    const subscribes = (): number => socket.sent.filter((request) => 'subscribe' in request).length
    expect(subscribes()).toBe(1)
    const iterator = subscription[Symbol.asyncIterator]()
    for (const offset of [1, 2, 3, 4]) expect((await iterator.next()).value?.offset).toBe(offset)
    const next = iterator.next()
    await settle()
    expect(subscribes()).toBe(2)
    expect(socket.asked('subscribe')).toMatchObject({ after: 4 })
    socket.reply('subscribe', { subscribed: { subscription: 2, cursor: 4 } })
    socket.say(batch(4, 5, [5], { subscription: 2 }))
    expect((await next).value?.offset).toBe(5)
    const left = iterator.return?.()
    await settle()
    socket.reply('unsubscribe', { unsubscribed: { subscription: 2 } })
    await left
    expect(subscription.state).toBe('closed')
    expect(await iterator.next()).toEqual({ value: undefined, done: true })
  })

  test('handlers take one event after the other', async () => {
    const client = await connected()
    const log: string[] = []
    client.subscribe('a.*', { after: 0 }, async (event) => {
      log.push(`begin ${event.offset}`)
      await new Promise((resolve) => setTimeout(resolve, 10))
      log.push(`end ${event.offset}`)
    })
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, cursor: 0 } })
    FakeSocket.last.say(batch(0, 2, [1, 2]))
    await vi.advanceTimersByTimeAsync(20)
    expect(log).toEqual(['begin 1', 'end 1', 'begin 2', 'end 2'])
  })

  test('acks wait for the handler, are gathered, and are said again on a new connection', async () => {
    const client = await connected()
    client.subscribe('a.*', { durable: 'd' }, (event) => void got.push(event))
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, durable: 'd', cursor: 0, last_acked: 0 } })
    FakeSocket.last.say(batch(0, 3, [1, 2, 3]))
    await settle()
    expect(FakeSocket.last.asked('ack')).toMatchObject({ subscription: 1, offsets: [1, 2, 3], log: LOG })
    FakeSocket.last.drop()
    await vi.advanceTimersByTimeAsync(500)
    FakeSocket.last.accept()
    await settle()
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 5, durable: 'd', cursor: 0, last_acked: 0 } })
    await settle()
    expect(FakeSocket.last.asked('ack')).toMatchObject({ subscription: 5, offsets: [1, 2, 3] })
    FakeSocket.last.say(batch(0, 4, [1, 2, 3, 4], { subscription: 5, attempts: { 1: 2, 2: 2, 3: 2 } }))
    FakeSocket.last.reply('ack', { acked: { subscription: 5, cursor: 3 } })
    await settle()
    expect(offsets()).toEqual([1, 2, 3, 4])
    expect(client.subscriptions[0]?.cursor).toBe(3)
  })

  test('a handler that throws is a nack, and told', async () => {
    const client = await connected()
    const errors: unknown[] = []
    client.on('error', (error) => errors.push(error.cause))
    const cause = new Error('no')
    client.subscribe('a.*', { durable: 'd' }, () => Promise.reject(cause))
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, durable: 'd', cursor: 0, last_acked: 0 } })
    FakeSocket.last.say(batch(0, 1, [1]))
    await settle()
    expect(FakeSocket.last.asked('nack')).toMatchObject({ offsets: [1] })
    expect(errors).toEqual([cause])
  })

  test('what was handed over and not acknowledged by hand comes once over a new connection, and again when it was waited for', async () => {
    const client = await connected()
    client.subscribe('a.*', { durable: 'd', ack: 'manual' }, (event) => void got.push(event))
    const again = { durable: 'd', cursor: 0, last_acked: 0 }
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, ...again } })
    FakeSocket.last.say(batch(0, 1, [1]))
    await settle()
    FakeSocket.last.drop()
    await vi.advanceTimersByTimeAsync(500)
    FakeSocket.last.accept()
    await settle()
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, ...again } })
    FakeSocket.last.say(batch(0, 2, [1, 2], { attempts: { 1: 2 } }))
    await settle()
    expect(offsets()).toEqual([1, 2])
    FakeSocket.last.say(batch(2, 2, [1], { attempts: { 1: 3 } }))
    await settle()
    expect(got.map((event) => [event.offset, event.attempts])).toEqual([
      [1, 1],
      [2, 1],
      [1, 3],
    ])
  })

  test('an ack that is refused is told, and what it was for is handed over again', async () => {
    const client = await connected()
    const errors: string[] = []
    client.on('error', (error) => errors.push(error.code))
    client.subscribe('a.*', { durable: 'd' }, (event) => void got.push(event))
    const socket = FakeSocket.last
    socket.reply('subscribe', { subscribed: { subscription: 1, durable: 'd', cursor: 0, last_acked: 0 } })
    socket.say(batch(0, 1, [1]))
    await settle()
    socket.reply('ack', { error: { code: 'conflict', message: 'reset', retryable: false } })
    await settle()
    socket.say(batch(1, 1, [1], { attempts: { 1: 2 } }))
    await settle()
    expect(errors).toEqual(['conflict'])
    expect(got.map((event) => event.attempts)).toEqual([1, 2])
  })

  test('superseded closes it; refused closes it with the reason', async () => {
    const client = await connected()
    const first = client.subscribe('a.*', { durable: 'd' })
    const told = vi.fn()
    first.on('superseded', told)
    FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, durable: 'd', cursor: 0, last_acked: 0 } })
    const next = first[Symbol.asyncIterator]().next()
    next.catch(() => {})
    FakeSocket.last.say({ superseded: { subscription: 1 } })
    await settle()
    expect(told).toHaveBeenCalledOnce()
    await expect(next).rejects.toMatchObject({ code: 'superseded' })
    const second = client.subscribe('b')
    const ready = second.ready()
    ready.catch(() => {})
    FakeSocket.last.reply('subscribe', { error: { code: 'permission_denied', message: 'no', retryable: false } })
    await settle()
    await expect(ready).rejects.toMatchObject({ code: 'permission_denied' })
    expect(client.subscriptions).toEqual([])
  })

  test('own events are known, and left out without echo', async () => {
    const client = await connected({ echo: false })
    const subscription = client.subscribe('a.*', { after: 0 }, (event) => void got.push(event))
    const socket = FakeSocket.last
    socket.reply('subscribe', { subscribed: { subscription: 1, cursor: 0 } })
    void client.publish('a.b', 1, { id: '2' })
    await settle()
    socket.reply('publish', { published: { offset: 2, id: '2' } })
    socket.say(batch(0, 3, [1, 2, 3]))
    await settle()
    expect(offsets()).toEqual([1, 3])
    expect(subscription.cursor).toBe(3)
  })
})

describe('publishes', () => {
  test('wait for a connection, keep their order and their ids, and are answered once', async () => {
    const client = connect()
    const done = [1, 2, 3].map((n) => client.publish('a', n))
    await settle()
    expect(client.status.outboxEvents).toBe(3)
    FakeSocket.last.accept()
    await settle()
    const sent = FakeSocket.last.sent.filter((request) => 'publish' in request)
    expect(sent.map((request) => (request.publish as { data: number }).data)).toEqual([1, 2, 3])
    FakeSocket.last.say({ reply: sent[1]?.id as number, published: { offset: 8, id: 'x' } })
    FakeSocket.last.drop()
    await vi.advanceTimersByTimeAsync(500)
    FakeSocket.last.accept()
    await settle()
    const again = FakeSocket.last.sent.filter((request) => 'publish' in request)
    expect(again.map((request) => request.publish)).toEqual([sent[0]?.publish, sent[2]?.publish])
    for (const [n, request] of again.entries())
      FakeSocket.last.say({ reply: request.id as number, published: { offset: n + 1, id: 'x', duplicate: true } })
    expect((await Promise.all(done)).map(({ offset }) => offset)).toEqual([1, 8, 2])
    expect(client.status.outboxEvents).toBe(0)
  })

  test('what the broker wants later holds up what is behind it', async () => {
    const client = await connected()
    const first = client.publish('a', 1)
    await settle()
    const socket = FakeSocket.last
    socket.reply('publish', { error: { code: 'rate_limited', message: 'slow', retryable: true, retry_after_ms: 300 } })
    await settle()
    const second = client.publish('a', 2)
    await vi.advanceTimersByTimeAsync(299)
    const count = (): number => socket.sent.filter((request) => 'publish' in request).length
    expect(count()).toBe(1)
    await vi.advanceTimersByTimeAsync(1)
    const sent = socket.sent.filter((request) => 'publish' in request).slice(1)
    expect(sent.map((request) => (request.publish as { data: number }).data)).toEqual([1, 2])
    for (const request of sent) socket.say({ reply: request.id as number, published: { offset: 1, id: 'x' } })
    await Promise.all([first, second])
  })

  test('what is on its way behind a publish that is refused for now is waited for, and sent again behind it', async () => {
    const client = await connected()
    const socket = FakeSocket.last
    const sent = (): Words[] => socket.sent.filter((request) => 'publish' in request)
    const said = (from: number): unknown[] =>
      sent()
        .slice(from)
        .map(({ follows, publish }) => [(publish as Words).data, follows])
    const error = { code: 'rate_limited', message: 'slow', retryable: true, retry_after_ms: 10 }
    const done = [1, 2, 3].map((n) => client.publish('a', n))
    await settle()
    expect(said(0)).toEqual([
      [1, undefined],
      [2, true],
      [3, true],
    ])
    socket.say({ reply: sent()[1]?.id as number, error })
    await vi.advanceTimersByTimeAsync(1_000)
    socket.say({ reply: sent()[0]?.id as number, published: { offset: 1, id: 'x' } })
    await vi.advanceTimersByTimeAsync(1_000)
    expect(sent()).toHaveLength(3)
    done.push(client.publish('a', 4))
    socket.say({ reply: sent()[2]?.id as number, error })
    await vi.advanceTimersByTimeAsync(9)
    expect(sent()).toHaveLength(3)
    await vi.advanceTimersByTimeAsync(1)
    expect(said(3)).toEqual([
      [2, undefined],
      [3, true],
      [4, true],
    ])
    for (const { id } of sent().slice(3)) socket.say({ reply: id as number, published: { offset: 2, id: 'x' } })
    await Promise.all(done)
  })

  test('no more than the window is on its way, also after a connection was lost', async () => {
    const client = await connected()
    for (let n = 0; n < 600; n++) client.publish('a', n).catch(() => {})
    await settle()
    const sent = (): { id: number }[] =>
      FakeSocket.last.sent.filter((request) => 'publish' in request) as { id: number }[]
    expect(sent()).toHaveLength(256)
    FakeSocket.last.drop()
    await vi.advanceTimersByTimeAsync(500)
    FakeSocket.last.accept()
    await settle()
    expect(sent()).toHaveLength(256)
    FakeSocket.last.say({ reply: sent()[0]?.id ?? 0, published: { offset: 1, id: 'x' } })
    await settle()
    expect(sent()).toHaveLength(257)
  })

  test('the outbox is bounded in events, bytes and age', async () => {
    const client = connect({ outbox: { maxEvents: 2, maxAgeMs: 5_000 } })
    const old = client.publish('a', 1)
    old.catch(() => {})
    await vi.advanceTimersByTimeAsync(1_000)
    const kept = client.publish('a', 2)
    kept.catch(() => {})
    await expect(client.publish('a', 3)).rejects.toMatchObject({ code: 'outbox_full', retryable: true })
    await vi.advanceTimersByTimeAsync(4_000)
    await expect(old).rejects.toMatchObject({ code: 'outbox_expired' })
    expect(client.status.outboxEvents).toBe(1)
    await client.close()
    await expect(kept).rejects.toMatchObject({ code: 'closed' })
    const dropping = connect({ outbox: { maxEvents: 1, overflow: 'drop-oldest' } })
    const first = dropping.publish('a', 1)
    first.catch(() => {})
    const second = dropping.publish('a', 2)
    second.catch(() => {})
    await expect(first).rejects.toMatchObject({ code: 'outbox_full' })
    // What is more than it ever holds costs nobody a place.
    const never = { code: 'too_large', retryable: false }
    const both = [{ topic: 'a' }, { topic: 'a' }]
    await expect(dropping.publishBatch(both)).rejects.toMatchObject(never)
    await expect(dropping.publish('a', 'x'.repeat(5_000_000))).rejects.toMatchObject(never)
    expect(dropping.status.outboxEvents).toBe(1)
  })

  test('one that was taken back is never sent', async () => {
    const client = connect()
    const stop = new AbortController()
    const published = client.publish('a', 1, { signal: stop.signal })
    published.catch(() => {})
    await settle()
    stop.abort()
    await expect(published).rejects.toMatchObject({ code: 'aborted' })
    FakeSocket.last.accept()
    await settle()
    expect(FakeSocket.last.sent.some((request) => 'publish' in request)).toBe(false)
  })

  test('one that is too large is refused here, and what the program changes later is not sent', async () => {
    const client = await connected()
    await expect(client.publish('a', 'x'.repeat(1_000))).rejects.toMatchObject({ code: 'too_large' })
  })

  test('what the program does to the data later changes nothing', async () => {
    const client = connect()
    const data = { n: 1 }
    const published = client.publish('a', data)
    data.n = 2
    await settle()
    FakeSocket.last.accept()
    await settle()
    expect(FakeSocket.last.asked('publish')).toMatchObject({ data: { n: 1 } })
    FakeSocket.last.reply('publish', { published: { offset: 1, id: 'x' } })
    await published
  })
})

test('nobody listens to a signal any more when what it was for has ended', async () => {
  const { signal } = new AbortController()
  const client = connect()
  const ready = client.ready({ signal })
  await settle()
  FakeSocket.last.accept()
  await ready
  const subscription = client.subscribe('a', { signal })
  const subscribed = subscription.ready({ signal })
  const published = client.publish('a', 1, { signal })
  await settle()
  FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, cursor: 0 } })
  FakeSocket.last.reply('publish', { published: { offset: 1, id: 'x' } })
  await Promise.all([subscribed, published])
  const read = client.read('a', { signal })
  await expect(read).rejects.toMatchObject({ code: 'disconnected' })
  const asked = client.request('a', 1, { signal, timeoutMs: 100 })
  asked.catch(() => {})
  await vi.advanceTimersByTimeAsync(100)
  await expect(asked).rejects.toMatchObject({ code: 'no_reply' })
  expect(getEventListeners(signal, 'abort').length).toBe(1)
  await client.close()
  expect(getEventListeners(signal, 'abort').length).toBe(0)
})

test('what is asked or subscribed with a signal ends by it, also where it is aborted already', async () => {
  const client = await connected()
  const stop = new AbortController()
  const asked = client.request('a', 1, { signal: stop.signal })
  asked.catch(() => {})
  FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, cursor: 0 } })
  await settle()
  FakeSocket.last.reply('publish', { published: { offset: 1, id: 'x' } })
  await settle()
  stop.abort()
  await expect(asked).rejects.toMatchObject({ code: 'aborted' })
  const late = client.subscribe('b', { signal: stop.signal }, () => {})
  expect(late.state).toBe('closed')
  await expect(client.request('a', 1, { signal: stop.signal })).rejects.toMatchObject({ code: 'aborted' })
  expect(client.subscriptions).toEqual([])
})

test('an address may be that of a socket, and in a page one beside the page', async () => {
  const asked = async (url: string): Promise<string> => {
    const urls: string[] = []
    const client = createClient(url, {
      autoConnect: false,
      fetch: async (to) => {
        urls.push(`${to}`)
        return Response.json({ members: [] })
      },
    })
    await client.presence('a')
    await client.close()
    return `${urls}`
  }
  expect(await asked('WSS://a:1/b/')).toBe('https://a:1/b/v1/presence/a')
  expect(await asked('ws://a')).toBe('http://a/v1/presence/a')
  vi.stubGlobal('location', { href: 'https://page.test/app/index.html' })
  expect(await asked('/')).toBe('https://page.test/v1/presence/a')
  expect(await asked('ws')).toBe('https://page.test/app/ws/v1/presence/a')
  vi.unstubAllGlobals()
})

test('an address that is none is refused', () => {
  for (const url of ['ftp://a', 'nowhere', 'http://a/?x=1']) {
    expect(() => createClient(url, { WebSocket: asWebSocket })).toThrowError(
      expect.objectContaining({ code: 'invalid_argument' }),
    )
  }
})
