// Helpers against the real broker, over real sockets and lost connections.

import { describe, expect, test, vi } from 'vitest'
import {
  assemble,
  chat,
  forwardConsole,
  inbox,
  members,
  operation,
  operations,
  reply,
  streamedMessage,
  streamWriter,
  structure,
  terminal,
  terminalWriter,
  typing,
} from '../../src/helpers/index.js'
import type { Client } from '../../src/index.js'
import { gather, until } from '../support/wait.js'
import { world } from './world.js'

describe.each(['websocket', 'sse', 'poll'] as const)('over %s', (transport) => {
  const here = world(transport)

  test('an inbox with something unread asks no more than it must', async () => {
    const user = here.fresh()
    const sender = here.connect()
    const topic = `users.${user}.notifications`
    await sender.publish(topic, { title: 'Lunch?' })
    const asked = vi.spyOn(globalThis, 'fetch')
    const box = inbox<{ title: string }>(here.connect(), user)
    await until(() => box.snapshot().unread === 1 && box.snapshot().caughtUp)
    asked.mockClear()
    // How often it asks in a while, which is what this is about.
    await new Promise((resolve) => setTimeout(resolve, 1_500))
    const fetches = asked.mock.calls.filter(([url]) => `${url}`.endsWith('/fetch'))
    expect(fetches.length > 0).toBe(transport === 'poll')
    expect(fetches.length).toBeLessThan(5)
    asked.mockRestore()
    await box.close()
  })

  test('an inbox of more than a fetch has room for has all of it', async () => {
    const user = here.fresh()
    const sender = here.connect()
    // A fetch has 1 MiB.
    const text = 'x'.repeat(40_000)
    const publish = (n: number) => sender.publish(`users.${user}.notifications`, { n, text })
    for (let n = 0; n < 60; n++) await publish(n)
    const box = inbox(here.connect(), user)
    await until(() => box.snapshot().caughtUp && box.snapshot().unread === 60)
    // Nothing of it is taken for read by what is fetched later.
    await publish(60)
    await until(() => box.snapshot().unread === 61)
    const [newest] = box.snapshot().items
    await box.markRead(newest?.offset ?? 0)
    await until(() => box.snapshot().unread === 60)
    await box.close()
  })

  test('an inbox waits while nobody looks, and two windows are in step', async () => {
    const user = here.fresh()
    const sender = here.connect()
    const topic = `users.${user}.notifications`
    for (const title of ['Build failed', 'Bob mentioned you', 'Lunch?']) await sender.publish(topic, { title })

    const laptop = inbox<{ title: string }>(here.connect(), user)
    const phone = inbox<{ title: string }>(here.connect(), user)
    await until(() => [laptop, phone].every((box) => box.snapshot().unread === 3 && box.snapshot().caughtUp))
    expect(laptop.snapshot().items.map(({ data }) => data?.title)).toEqual([
      'Lunch?',
      'Bob mentioned you',
      'Build failed',
    ])
    const [lunch, bob, build] = laptop.snapshot().items.map(({ offset }) => offset) as [number, number, number]

    // The newest first: the floor stays, and the phone hears of it all the same.
    await laptop.markRead(lunch)
    await until(() => phone.snapshot().unread === 2)
    expect(phone.snapshot().items[0]).toMatchObject({ offset: lunch, read: true })
    await phone.markRead([build, bob])
    await until(() => laptop.snapshot().unread === 0)
    expect(laptop.snapshot().items.every(({ read }) => read)).toBe(true)

    // Over a broker that dies, and for a window that is opened late: what was read is there, and read.
    await here.restart()
    await sender.publish(topic, { title: 'Back' })
    await until(() => [laptop, phone].every((box) => box.snapshot().unread === 1))
    const late = inbox<{ title: string }>(here.connect(), user)
    await until(() => late.snapshot().items.length === 4)
    expect(late.snapshot().items.map(({ data, read }) => [data?.title, read])).toEqual([
      ['Back', false],
      ['Lunch?', true],
      ['Bob mentioned you', true],
      ['Build failed', true],
    ])
    expect(late.snapshot().unread).toBe(1)
    await laptop.markAllRead()
    await until(() => [phone, late].every((box) => box.snapshot().unread === 0))
    await Promise.all([laptop, phone, late].map((box) => box.close()))
  })

  test('what was read out of turn does not come again to who was away', async () => {
    const user = here.fresh()
    const sender = here.connect()
    const first = inbox(here.connect(), user)
    for (let n = 0; n < 5; n++) await sender.publish(`users.${user}.notifications`, { n })
    await until(() => first.snapshot().unread === 5)
    const newest = first.snapshot().items[0]?.offset ?? 0
    await first.markRead(newest)
    const late = inbox(here.connect(), user)
    await until(() => late.snapshot().items.length === 5)
    expect(late.snapshot()).toMatchObject({ unread: 4 })
    expect(late.snapshot().items[0]).toMatchObject({ offset: newest, read: true })
    await Promise.all([first, late].map((box) => box.close()))
  })

  test('what was read while a device was away is read there when it is back', async () => {
    const user = here.fresh()
    const sender = here.connect()
    const away = here.connect()
    // Nobody tells it on the side: what is said there is gone after a minute.
    const [laptop, phone] = [here.connect(), away].map((client) => inbox(client, user, { syncTopic: false }))
    if (!laptop || !phone) throw new Error('there are two')
    const publish = (n: number) => sender.publish(`users.${user}.notifications`, { n })
    for (let n = 0; n < 5; n++) await publish(n)
    await until(() => [laptop, phone].every((box) => box.snapshot().unread === 5 && box.snapshot().caughtUp))
    const [, fourth, , second] = laptop.snapshot().items.map(({ offset }) => offset)
    away.disconnect()
    await laptop.markRead([fourth ?? 0, second ?? 0])
    await publish(5)
    await until(() => laptop.snapshot().unread === 4)
    away.connect()
    await until(() => phone.snapshot().unread === 4)
    expect(phone.snapshot().items.map(({ read }) => read)).toEqual([false, false, true, false, true, false])
    // And all of it.
    away.disconnect()
    await laptop.markAllRead()
    away.connect()
    await until(() => phone.snapshot().unread === 0)
    await Promise.all([laptop, phone].map((box) => box.close()))
  })

  test('a streamed message is whole for who was there, who comes late, and who missed its beginning', async () => {
    const topic = here.fresh()
    const [writing, reading] = [here.connect(), here.connect()]
    const words = Array.from({ length: 300 }, (_, n) => `word${n} `)
    const early = assemble(reading.subscribe(topic, { after: 'now' }), { notifyMs: 0 })
    await until(() => reading.subscriptions[0]?.state === 'live')
    const writer = streamWriter(writing, topic)
    let texts = 0
    early.subscribe(() => texts++)
    for (const [n, word] of words.entries()) {
      await writer.write(word)
      if (n % 10 === 0) await writer.flush()
      if (n === 150) {
        // In the middle of it: a broker that dies, and a reader that has only now come.
        await here.restart()
        await writer.write('')
      }
    }
    const middle = here.connect()
    const late = assemble(middle.subscribe(topic, { after: 'now' }), { client: middle })
    await until(() => middle.subscriptions[0]?.state === 'live')
    await writer.end()
    const one = streamedMessage(here.connect(), topic, writer.correlation)
    const whole = words.join('')
    await until(() => early.snapshot()[0]?.complete === true && one.snapshot()?.complete === true)
    expect(early.snapshot()[0]).toMatchObject({ text: whole, correlation: writer.correlation, missing: false })
    expect(one.snapshot()?.text).toBe(whole)
    expect(texts).toBeGreaterThan(10)
    await until(() => late.get(writer.correlation)?.complete === true)
    expect(late.get(writer.correlation)?.text).toBe(whole)
    await Promise.all([early, late, one].map((watched) => watched.close()))
  })

  test('another writer goes on where one was cut off, and two that go on are told apart', async () => {
    const topic = here.fresh()
    const client = here.connect()
    const first = streamWriter(client, topic, { correlation: 'm' })
    await first.write('so far, ')
    await first.flush()
    const second = streamWriter(here.connect(), topic, { correlation: 'm', resume: true })
    expect(await second.resumed()).toBe('so far, ')
    await second.write('and further')
    await second.flush()
    // The first one believes that it writes still.
    await first.write('and elsewhere')
    await expect(first.flush()).rejects.toMatchObject({ code: 'conflict' })
    await second.end()
    const read = streamedMessage(here.connect(), topic, 'm')
    await until(() => read.snapshot()?.complete === true)
    expect(read.snapshot()?.text).toBe('so far, and further')
    await expect(streamWriter(client, topic, { correlation: 'm', resume: true }).resumed()).rejects.toMatchObject({
      code: 'conflict',
    })

    const exclusive = streamWriter(client, topic, { correlation: 'n', exclusive: true })
    await exclusive.write('a')
    await exclusive.flush()
    await client.publish(topic, 'somebody else')
    await exclusive.write('b')
    await expect(exclusive.flush()).rejects.toMatchObject({ code: 'conflict' })
    await read.close()
  })

  test('a structure is edited in two windows: no edit is lost, both end alike, also for who comes late', async () => {
    const id = here.fresh()
    const windows = [
      structure<{ n?: number; by?: Record<string, number> }>(here.connect(), id),
      structure<{ n?: number; by?: Record<string, number> }>(here.connect(), id),
    ]
    const edits = windows.flatMap((window, w) =>
      Array.from({ length: 20 }, () =>
        window.edit((value) => ({ '/n': (value?.n ?? 0) + 1, [`/by/w${w}`]: (value?.by?.[`w${w}`] ?? 0) + 1 })),
      ),
    )
    await here.restart()
    await Promise.all(edits)
    await until(() => windows.every(({ snapshot }) => snapshot().value?.n === 40 && snapshot().pending === 0))
    for (const window of windows)
      expect(window.snapshot()).toMatchObject({ value: { n: 40, by: { w0: 20, w1: 20 } }, pending: 0 })
    await windows[0]?.remove('/by')
    await until(() => windows[1]?.snapshot().value?.by === undefined)
    const late = structure(here.connect(), id)
    await until(() => late.snapshot().caughtUp)
    expect(late.snapshot()).toMatchObject({ value: { n: 40 }, last: windows[0]?.snapshot().last })
    await Promise.all([...windows, late].map((window) => window.close()))
  })

  test('a message is pending while there is no broker, then sent, then delivered to a durable', async () => {
    const topic = here.fresh()
    const [alice, bob] = [here.connect(), here.connect()]
    const [ours, theirs] = [chat(alice, topic, { notifyMs: 0 }), chat(bob, topic)]
    await until(() => [ours, theirs].every((room) => room.snapshot().caughtUp))
    const reader = bob.subscribe(topic, { durable: `${topic}-bob`, start: 'first', ack: 'manual' })
    await reader.ready()
    const { port, data } = here.broker
    await here.broker.kill()
    await until(() => alice.state === 'reconnecting')
    const states: string[] = []
    ours.subscribe(() => states.push(ours.snapshot().messages[0]?.state ?? 'none'))
    ours.send('hello')
    expect(ours.snapshot().messages).toMatchObject([{ text: 'hello', state: 'pending', own: true }])
    await here.start({ port, data })
    await until(() => ours.snapshot().messages[0]?.state === 'sent' && theirs.snapshot().messages.length === 1)
    expect(theirs.snapshot().messages).toMatchObject([{ text: 'hello', state: 'received', own: false }])
    const next = await reader[Symbol.asyncIterator]().next()
    await reader.ack(next.value ?? 0)
    await until(() => ours.snapshot().messages[0]?.state === 'delivered')
    expect(ours.snapshot().messages[0]?.deliveredTo).toEqual([`${topic}-bob`])
    expect(states.filter((state, at) => state !== states[at - 1])).toEqual(['pending', 'sent', 'delivered'])
    await ours.close()
    // Whoever comes back to it sees how far it has got.
    const again = chat(alice, topic)
    await until(() => again.snapshot().messages[0]?.state === 'delivered')
    await Promise.all([again, theirs].map((room) => room.close()))
  })

  test('who types is seen by the others', async () => {
    const topic = here.fresh()
    const [one, two] = [here.connect(), here.connect()]
    const [ours, theirs] = [typing(one, topic, { name: 'Alice' }), typing(two, topic)]
    await Promise.all([one, two].flatMap((client) => client.subscriptions.map((sub) => sub.ready())))
    ours.typing()
    await until(() => theirs.snapshot().length === 1)
    expect(theirs.snapshot()).toMatchObject([{ name: 'Alice' }])
    expect(ours.snapshot()).toEqual([])
    ours.stopped()
    await until(() => theirs.snapshot().length === 0)
    await Promise.all([ours, theirs].map((watched) => watched.close()))
  })

  // One is listed as long as one has a socket or a stream.
  test.runIf(transport !== 'poll')('who is there is listed, over a lost connection too', async () => {
    const topic = here.fresh()
    const looking = members<{ name: string }>(here.connect(), topic)
    const there = members(here.connect(), topic, { join: { data: { name: 'Bob' } } })
    // News may come before the list does.
    await until(() => [looking, there].every(({ snapshot }) => snapshot().ready && snapshot().members.length === 1))
    expect(looking.snapshot()).toMatchObject({ ready: true, members: [{ data: { name: 'Bob' } }] })
    await there.close()
    await until(() => looking.snapshot().members.length === 0)
    await looking.close()
  })

  test.runIf(transport === 'websocket')('who is there under another name leaves and comes again', async () => {
    const topic = here.fresh()
    const looking = members<{ name: string }>(here.connect(), topic)
    const client = here.connect()
    const before = members(client, topic, { join: { data: { name: 'Bob' } } })
    await until(() => looking.snapshot().members.length === 1)
    // As a component that is rendered with other data: the new one is there before the old one goes.
    const after = members(client, topic, { join: { data: { name: 'Rob' } } })
    await before.close()
    await until(() => looking.snapshot().members[0]?.data?.name === 'Rob')
    expect(looking.snapshot().members).toHaveLength(1)
    expect(after.snapshot().error).toBeUndefined()
    await Promise.all([after, looking].map((watched) => watched.close()))
  })

  test('questions are answered, also those that came while nobody was there, once', async () => {
    const topic = here.fresh()
    const asking = here.connect()
    const answers = Promise.all([1, 2, 3].map((n) => asking.request<number>(topic, n)))
    await until(async () => (await asking.read(topic)).events.length === 3)
    let calls = 0
    const responder = reply(here.connect(), topic, ({ data }) => (data as number) * (calls++ < 3 ? 2 : 3), {
      durable: `${topic}-answers`,
      subscription: { start: 'first' },
    })
    expect((await answers).map(({ data }) => data)).toEqual([2, 4, 6])
    await responder.close()
    const again = reply(here.connect(), topic, () => calls++, {
      durable: `${topic}-answers`,
      subscription: { start: 'first' },
    })
    await again.ready()
    expect((await asking.request(topic, 4)).type).toBe('reply')
    expect(calls).toBe(4)
    await again.close()
  })

  test('an operation is the same for who comes late, and a retry is another try', async () => {
    const id = here.fresh()
    const worker = operation(here.connect(), id)
    const first = await worker.start({ of: 3, title: 'Import' })
    first.progress(2, { message: 'two' })
    await first.fail(new Error('disk full'))
    const seen = operation(here.connect(), id).watch()
    await until(() => seen.snapshot().status === 'failed')
    expect(seen.snapshot()).toMatchObject({ attempt: 1, done: 2, of: 3, message: 'disk full' })
    const second = await worker.start({ of: 3 })
    await until(() => seen.snapshot().status === 'running')
    await second.complete({ rows: 3 }, { message: 'done' })
    await until(() => seen.snapshot().status === 'completed')
    expect(seen.snapshot()).toMatchObject({ attempt: 2, ratio: 1, result: { rows: 3 }, message: 'done' })
    const board = operations(here.connect())
    await until(() => board.snapshot().caughtUp)
    expect(board.snapshot().operations.find((one) => one.id === id)).toMatchObject({
      status: 'completed',
      attempt: 2,
      // Said with the first attempt; what is there of it now is the end of the second.
      title: 'Import',
    })
    await Promise.all([seen, board].map((watched) => watched.close()))
  })

  test('a deadline is over for all', async () => {
    const id = here.fresh()
    const seen = operation(here.connect(), id).watch()
    const work = await operation(here.connect(), id).start({ deadlineMs: 20 })
    await until(() => seen.snapshot().status === 'timed_out')
    expect(work.signal.reason).toMatchObject({ code: 'timeout' })
    await seen.close()
  })

  test('logs arrive', async () => {
    const topic = here.fresh()
    const client = here.connect()
    const sub = client.subscribe(topic, { minPriority: 'low' })
    await sub.ready()
    const target = { ...console, error: (..._: unknown[]) => {} }
    const forwarding = forwardConsole(client, topic, { console: target, everyMs: 10 })
    target.error('broken', { n: 1 })
    expect(await gather(sub, 1)).toMatchObject([
      { type: 'log.error', priority: 'low', data: { message: 'broken {n: 1}' } },
    ])
    await forwarding.close()
  })

  test('a signal ends whatever watches', async () => {
    const abort = new AbortController()
    const { signal } = abort
    const client: Client = here.connect()
    const id = here.fresh()
    terminal(client, id, { signal })
    operation(client, id).watch({ signal })
    operations(client, undefined, { signal })
    inbox(client, id, { signal })
    chat(client, id, { signal })
    typing(client, id, { signal })
    members(client, id, { signal, ...(transport === 'websocket' && { join: {} }) })
    structure(client, id, { signal })
    reply(client, id, () => 1, { signal })
    streamedMessage(client, id, 'm', { signal })
    assemble(client.subscribe(id), { signal })
    expect(client.subscriptions.length).toBeGreaterThan(10)
    abort.abort()
    await until(() => client.subscriptions.length === 0)
    const out = terminalWriter(client, id, { signal })
    await expect(out.write('x')).rejects.toMatchObject({ code: 'aborted' })
  })
})
