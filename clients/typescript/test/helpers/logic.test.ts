// What helpers do with time, with answers that come late or not, and with what others send.

import { expect, test, vi } from 'vitest'
import {
  agent,
  agents,
  assemble,
  chat,
  inbox,
  members,
  reply,
  streamWriter,
  structure,
  typing,
} from '../../src/helpers/index.js'
import { TidingsError, type TidingsEvent } from '../../src/index.js'
import { timed } from './timed.js'

const it = timed()

test('a message of our own is pending, sent, delivered; one that was refused can be sent again under its id', async () => {
  const { fake } = it
  const room = chat(fake.client, 'rooms.1', { notifyMs: 0 })
  const states = () => room.snapshot().messages.map(({ text, state }) => `${text}: ${state}`)
  fake.holding = true
  const id = room.send('hello')
  fake.other({ topic: 'rooms.1', data: { text: 'hi' } })
  await it.settle()
  // What is not in the log stands behind what is.
  expect(states()).toEqual(['hi: received', 'hello: pending'])
  fake.held[0]?.answer()
  await it.settle()
  expect(states()).toEqual(['hi: received', 'hello: sent'])
  const { offset } = room.snapshot().messages[1] ?? {}
  fake.other({ topic: '$receipts.alice', type: 'receipt.acked', data: { offset, subscription: 'bob-inbox' } })
  fake.other({ topic: '$receipts.alice', type: 'receipt.acked', data: { offset, subscription: 'bob-inbox' } })
  expect(room.snapshot().messages[1]).toMatchObject({ id, state: 'delivered', deliveredTo: ['bob-inbox'], own: true })

  const failing = room.send('again')
  fake.held[1]?.refuse(new TidingsError('permission_denied', 'no'))
  await it.settle()
  expect(room.snapshot().messages[2]).toMatchObject({ state: 'failed', error: { code: 'permission_denied' } })
  room.retry(failing)
  expect(states()[2]).toBe('again: pending')
  await it.settle()
  expect(fake.held[2]?.requests[0]).toMatchObject({ id: failing, data: { text: 'again' } })
  fake.held[2]?.refuse(new TidingsError('permission_denied', 'no'))
  await it.settle()
  room.discard(failing)
  expect(states()).toHaveLength(2)
  await room.close()
})

test('a receipt that comes before the event, and an event that comes before its answer, are not lost', async () => {
  const { fake } = it
  const room = chat(fake.client, 'rooms.1', { notifyMs: 0 })
  fake.holding = true
  const id = room.send('hello')
  await it.settle()
  // The event is there and the answer is not: a connection was cut in between.
  fake.append({ topic: 'rooms.1', id, data: { text: 'hello' } })
  expect(room.snapshot().messages).toMatchObject([{ id, state: 'sent', offset: 1 }])
  fake.other({ topic: '$receipts.alice', type: 'receipt.acked', data: { offset: 1, subscription: 'x' } })
  fake.held[0]?.refuse(new TidingsError('internal', 'whatever'))
  await it.settle()
  expect(room.snapshot().messages).toMatchObject([{ id, state: 'delivered' }])
  await room.close()
})

test('what waits and what was refused is there again when a conversation is opened anew', async () => {
  const { fake } = it
  fake.holding = true
  const first = chat(fake.client, 'rooms.1', { notifyMs: 0 })
  const failing = first.send('refused')
  const waiting = first.send('waits')
  const sent = first.send('sent meanwhile')
  await it.settle()
  await first.close()
  fake.held[0]?.refuse(new TidingsError('permission_denied', 'no'))
  fake.held[2]?.answer()
  await it.settle()
  // Another conversation has none of it, and those of the same one all.
  const others = [
    chat(fake.client, 'rooms.2', { notifyMs: 0 }),
    chat(fake.client, 'rooms.1', { type: 'x', notifyMs: 0 }),
  ]
  const rooms = [chat(fake.client, 'rooms.1', { notifyMs: 0 }), chat(fake.client, 'rooms.1', { max: 9, notifyMs: 0 })]
  await it.settle()
  const states = (room: (typeof rooms)[0]) => room.snapshot().messages.map(({ id, state }) => [id, state])
  for (const other of others) expect(states(other)).toEqual([])
  const before = [
    [sent, 'sent'],
    [failing, 'failed'],
    [waiting, 'pending'],
  ]
  for (const room of rooms) expect(states(room)).toEqual(before)
  rooms[0]?.retry(failing)
  fake.held[1]?.answer()
  fake.held[3]?.answer()
  await it.settle()
  const all = [sent, waiting, failing].map((id) => [id, 'sent'])
  for (const room of rooms) expect(states(room)).toEqual(all)
  for (const room of [...rooms, ...others]) await room.close()
})

test('a reload knows our own again, and what was delivered of it', async () => {
  const { fake } = it
  const ours = { source: 'urn:tidings:subject:alice' }
  const receipt = (offset: number) =>
    fake.other({ topic: '$receipts.alice', type: 'receipt.acked', data: { offset, subscription: 'bob-inbox' } })
  fake.other({ topic: 'rooms.1', data: { text: 'of bob' } })
  fake.other({ topic: 'rooms.1', data: { text: 'of ours' } }, ours)
  fake.other({ topic: 'rooms.1', data: { text: 'not read' } }, ours)
  receipt(2)
  const room = chat(fake.client, 'rooms.1', { notifyMs: 0 })
  // Sent before it is known what was there: the receipts of both are wanted.
  room.send('new')
  await it.settle()
  receipt(5)
  await it.settle()
  // Here it comes before what was there.
  const inOrder = room.snapshot().messages.toSorted((one, other) => (one.offset ?? 0) - (other.offset ?? 0))
  expect(inOrder.map(({ text, own, state }) => [text, own, state])).toEqual([
    ['of bob', false, 'received'],
    ['of ours', true, 'delivered'],
    ['not read', true, 'sent'],
    ['new', true, 'delivered'],
  ])
  await room.close()
  expect(fake.subs.filter(({ state }) => state !== 'closed')).toEqual([])
  const shared = chat(fake.client, 'rooms.1', { notifyMs: 0, sharedSubject: true })
  await it.settle()
  expect(shared.snapshot().messages.map(({ text, own }) => [text, own])).toContainEqual(['of ours', false])
  await shared.close()
  // Without subjects nobody knows: everybody is the same.
  fake.session.subject = 'anonymous'
  fake.other({ topic: 'rooms.9', data: { text: 'of whom' } }, { source: 'urn:tidings:subject:anonymous' })
  const open = chat(fake.client, 'rooms.9', { notifyMs: 0 })
  await it.settle()
  expect(open.snapshot().messages).toMatchObject([{ own: false, state: 'received' }])
  await open.close()
})

test('a streamed answer grows in its place, and the list is bounded', async () => {
  const { fake } = it
  const room = chat(fake.client, 'rooms.1', { max: 5, notifyMs: 0 })
  const writer = streamWriter(fake.client, 'rooms.1', { correlation: 'answer' })
  await writer.write('Hel')
  await writer.flush()
  fake.other({ topic: 'rooms.1', data: { text: 'me too' } })
  expect(room.snapshot().messages).toMatchObject([
    { id: 'answer', state: 'streaming', text: 'Hel' },
    { text: 'me too' },
  ])
  await writer.write('lo')
  await writer.end()
  expect(room.snapshot().messages).toMatchObject([
    { id: 'answer', state: 'received', text: 'Hello' },
    { text: 'me too' },
  ])
  for (let n = 0; n < 50; n++) fake.other({ topic: 'rooms.1', data: { text: `${n}` } })
  fake.other({ topic: 'rooms.1', type: 'typing', data: {} })
  expect(room.snapshot().messages.map(({ text }) => text)).toEqual(['45', '46', '47', '48', '49'])
  await room.close()
})

test('typing is said now and then, and ends by itself on both sides', async () => {
  const { fake } = it
  const here = typing(fake.client, 'rooms.1', { notifyMs: 0, name: 'Alice' })
  for (let ms = 0; ms < 4_000; ms += 100) {
    here.typing()
    await vi.advanceTimersByTimeAsync(100)
  }
  expect(it.of('typing').map(({ data }) => (data as { typing: boolean }).typing)).toEqual([true, true])
  await vi.advanceTimersByTimeAsync(3_000)
  expect(it.of('typing').map(({ data, key }) => [key, (data as { typing: boolean }).typing])).toEqual([
    ['alice', true],
    ['alice', true],
    ['alice', false],
  ])
  expect(here.snapshot()).toEqual([])

  fake.other({ topic: 'rooms.1', type: 'typing', key: 'bob', data: { typing: true, name: 'Bob' } })
  fake.other({ topic: 'rooms.1', type: 'typing', key: 'alice', data: { typing: true } })
  expect(here.snapshot()).toMatchObject([{ key: 'bob', name: 'Bob' }])
  const same = here.snapshot()
  await vi.advanceTimersByTimeAsync(2_000)
  fake.other({ topic: 'rooms.1', type: 'typing', key: 'bob', data: { typing: true, name: 'Bob' } })
  await vi.advanceTimersByTimeAsync(2_000)
  expect(here.snapshot()).toBe(same)
  await vi.advanceTimersByTimeAsync(1_000)
  expect(here.snapshot()).toEqual([])
  fake.other({ topic: 'rooms.1', type: 'typing', key: 'bob', data: { typing: true } })
  fake.other({ topic: 'rooms.1', type: 'typing', key: 'bob', data: { typing: false } })
  expect(here.snapshot()).toEqual([])
  for (let n = 0; n < 500; n++) fake.other({ topic: 'rooms.1', type: 'typing', key: `k${n}`, data: {} })
  expect(here.snapshot()).toHaveLength(100)
  // What would wait in the outbox is not said.
  fake.state = 'reconnecting'
  here.typing()
  expect(it.of('typing').at(-1)?.key).toBe('k499')
  await here.close()
})

test('typing ends and is said in time also where the clock is set back', async () => {
  const { fake } = it
  const here = typing(fake.client, 'rooms.1', { notifyMs: 0 })
  here.typing()
  fake.other({ topic: 'rooms.1', type: 'typing', key: 'bob', data: { typing: true } })
  vi.setSystemTime(Date.now() - 3_600_000)
  await vi.advanceTimersByTimeAsync(2_500)
  here.typing()
  expect(it.of('typing').filter(({ key }) => key === 'alice')).toHaveLength(2)
  await vi.advanceTimersByTimeAsync(500)
  expect(here.snapshot()).toEqual([])
  await here.close()
})

test('an inbox counts what is unread, takes back what could not be said, and hears of other devices', async () => {
  const { fake } = it
  const box = inbox(fake.client, 'alice', { historyMs: 0, notifyMs: 0, maxItems: 3 })
  const topic = 'users.alice.notifications'
  const sub = fake.subs[0]
  for (let n = 1; n <= 5; n++) fake.other({ topic, type: 'notification', data: { title: `${n}` } })
  expect(box.snapshot()).toMatchObject({ unread: 5, items: [{ offset: 5 }, { offset: 4 }, { offset: 3 }] })
  await box.markRead(5)
  expect(sub?.acked).toEqual([5])
  expect(box.snapshot()).toMatchObject({ unread: 4, items: [{ read: true }, { read: false }, { read: false }] })
  // Out of turn: other devices are told on the side.
  expect(it.of('inbox.read')).toMatchObject([{ topic: 'inboxes.alice-inbox', data: { offsets: [5] } }])
  fake.other({ topic: 'inboxes.alice-inbox', type: 'inbox.read', data: { offsets: [4, 99, 'x'] } })
  expect(box.snapshot().unread).toBe(3)
  sub?.tell('acked', 2)
  expect(box.snapshot().unread).toBe(1)
  await box.markAllRead()
  expect(box.snapshot().unread).toBe(0)
  expect(sub?.acked).toEqual([5, 3])
  fake.other({ topic, data: {} })
  sub?.refuse(new TidingsError('permission_denied', 'no'))
  await expect(box.markAllRead()).rejects.toMatchObject({ code: 'closed' })
  expect(box.snapshot()).toMatchObject({ unread: 1, error: { code: 'permission_denied' } })
  await box.close()
})

test('what comes again is not unread again, and what comes while the past is read is not read', async () => {
  const { fake } = it
  const topic = 'users.alice.notifications'
  fake.other({ topic, data: 'old' })
  const event = (offset: number) => ({ ...fake.log[0], offset, id: `${offset}`, data: offset }) as TidingsEvent
  // Others have read the second; the third is on its way.
  const page = { events: [event(1), event(2), event(3)], cursor: 3, last: 3, log: 'l', first: 1 }
  fake.read = () => Promise.resolve(page)
  const box = inbox(fake.client, 'alice', { notifyMs: 0 })
  const sub = fake.subs[0]
  sub?.tell('caught_up', 2)
  await it.settle()
  expect(box.snapshot().items.map(({ offset, read }) => [offset, read])).toEqual([
    [3, true],
    [2, true],
    [1, false],
  ])
  // The third was taken for one of the past, until it comes.
  sub?.offer(event(3))
  await box.markRead(1)
  for (const offset of [1, 3]) sub?.offer(event(offset))
  expect(box.snapshot()).toMatchObject({ unread: 1, items: [{ read: false }, { read: true }, { read: true }] })
  await box.close()
})

test('what does not come again up to caught_up was read elsewhere', async () => {
  const { fake } = it
  const box = inbox(fake.client, 'alice', { historyMs: 0, notifyMs: 0 })
  const sub = fake.subs[0]
  const topic = 'users.alice.notifications'
  for (let n = 1; n <= 5; n++) fake.other({ topic, data: n })
  const reads = () => box.snapshot().items.map(({ offset, read }) => [offset, read])
  // Cut off before all has come: nothing is known yet.
  sub?.tell('subscribed', 0)
  sub?.tell('again', 2)
  expect(box.snapshot().unread).toBe(5)
  sub?.tell('subscribed', 0)
  sub?.tell('again', 1)
  sub?.tell('again', 4)
  fake.other({ topic, data: 6 })
  // It is on its way when the connection is lost, comes again, and cannot be said.
  if (sub) sub.ack = () => Promise.reject(new TidingsError('permission_denied', 'no'))
  const marking = box.markRead(5)
  sub?.tell('again', 5)
  await expect(marking).rejects.toMatchObject({ code: 'permission_denied' })
  sub?.tell('caught_up', 6)
  expect(reads()).toEqual([
    [6, false],
    [5, false],
    [4, false],
    [3, true],
    [2, true],
    [1, false],
  ])
  expect(box.snapshot().unread).toBe(4)
  // What comes later is no part of it.
  fake.other({ topic, data: 7 })
  sub?.tell('caught_up', 7)
  expect(box.snapshot().unread).toBe(5)
  // In another log an offset is that of another event.
  sub?.tell('subscribed', 0)
  if (sub) fake.gap(sub, 'log_changed')
  const [first] = fake.log
  sub?.offer({ ...first, id: 'another' } as TidingsEvent)
  sub?.tell('caught_up', 1)
  expect(box.snapshot().unread).toBe(1)
  await box.close()
})

test('of notifications with one tag the newest is shown', async () => {
  const { fake } = it
  const box = inbox(fake.client, 'alice', { historyMs: 0, notifyMs: 0 })
  for (const title of ['1 of 3', '2 of 3'])
    fake.other({ topic: 'users.alice.notifications', key: 'ci', data: { title } })
  expect(box.snapshot().items).toMatchObject([{ tag: 'ci', data: { title: '2 of 3' } }])
  await box.close()
})

test('what a notification of the same tag has replaced counts as one with it, and is read with it', async () => {
  const { fake } = it
  const box = inbox(fake.client, 'alice', { historyMs: 0, notifyMs: 0 })
  for (const key of ['ci', 'build', 'ci', 'ci'])
    fake.other({ topic: 'users.alice.notifications', key, data: { title: key } })
  expect(box.snapshot()).toMatchObject({ unread: 2, items: [{ offset: 4 }, { offset: 2 }] })
  await box.markRead(4)
  expect(fake.subs[0]?.acked.toSorted()).toEqual([1, 3, 4])
  expect(box.snapshot()).toMatchObject({ unread: 1, items: [{ read: true }, { read: false }] })
  // A newer one is unread again; what was said of those that are read stands between.
  fake.other({ topic: 'users.alice.notifications', key: 'ci', data: { title: 'again' } })
  expect(box.snapshot()).toMatchObject({ unread: 2, items: [{ offset: 6, read: false }, { offset: 2 }] })
  await box.close()
})

test('what is heard while the list is on its way is not lost in it', async () => {
  const { fake } = it
  let answer = (_: object[]) => {}
  fake.presence = () =>
    new Promise((resolve) => {
      answer = resolve as never
    })
  const list = members(fake.client, 'rooms.1', { notifyMs: 0 })
  await it.settle()
  const member = (session: string) => ({ session, subject: 'x', since: '2026-11-21T05:16:00Z' })
  fake.other({ topic: '$presence.rooms.1', type: 'presence.joined', data: member('b') })
  fake.other({ topic: '$presence.rooms.1', type: 'presence.left', data: member('c') })
  answer([member('a'), member('c')])
  await it.settle()
  expect(list.snapshot()).toMatchObject({ ready: true, members: [{ session: 'a' }, { session: 'b' }] })
  await list.close()
})

test('a list that could not be had is asked for again when the news come again', async () => {
  const { fake } = it
  const whole = fake.presence
  fake.presence = () => Promise.reject(new TidingsError('disconnected', 'no connection'))
  const list = members(fake.client, 'rooms.1', { notifyMs: 0 })
  await it.settle()
  expect(list.snapshot()).toMatchObject({ ready: false, error: { code: 'disconnected' } })
  fake.presence = whole
  fake.subs[0]?.tell('state', 'live')
  await it.settle()
  expect(list.snapshot()).toMatchObject({ ready: true, error: undefined })
  await list.close()
})

test('of more agents than there is room for, those that are there stay', async () => {
  const { fake } = it
  const list = agents(fake.client, { max: 2, notifyMs: 0 })
  await it.settle()
  const said = (id: string) =>
    fake.other({ topic: `agents.${id}`, type: 'agent.status', key: 'status', data: { status: 'idle' } })
  said('a')
  said('b')
  const data = { session: 's', subject: 'x', since: '2026-11-22T05:16:00Z', data: { agent: 'z' } }
  fake.other({ topic: '$presence.agents', type: 'presence.joined', data })
  await it.settle()
  expect(list.snapshot().agents.map(({ id, online }) => `${id} ${online}`)).toEqual(['b false', 'z true'])
  await list.close()
})

test('our own changes are shown at once, and taken back where they are refused', async () => {
  const { fake } = it
  const plan = structure<{ title?: string }>(fake.client, 'plan', { notifyMs: 0 })
  await it.settle()
  fake.holding = true
  const set = plan.set('/title', 'mine')
  expect(plan.snapshot()).toMatchObject({ value: { title: 'mine' }, pending: 1 })
  fake.other({ topic: 'structures.plan', type: 'structure.changed', key: '/title', data: { value: 'theirs' } })
  // Ours comes behind theirs.
  expect(plan.snapshot().value).toEqual({ title: 'mine' })
  fake.held[0]?.refuse(new TidingsError('permission_denied', 'no'))
  await expect(set).rejects.toMatchObject({ code: 'permission_denied' })
  expect(plan.snapshot()).toMatchObject({ value: { title: 'theirs' }, pending: 0 })
  // What was seen stays what it was.
  const before = plan.snapshot().value
  for (const value of ['one', 'two']) {
    fake.other({ topic: 'structures.plan', type: 'structure.changed', key: '/title', data: { value } })
  }
  expect(before).toEqual({ title: 'theirs' })
  expect(plan.snapshot().value).toEqual({ title: 'two' })
  await plan.close()
})

test('an edit is computed anew where somebody else was faster', async () => {
  const { fake } = it
  const plan = structure<{ n?: number }>(fake.client, 'plan', { notifyMs: 0 })
  const seen: unknown[] = []
  fake.holding = true
  const edit = plan.edit((value) => {
    seen.push(value?.n)
    return { '/n': (value?.n ?? 0) + 1 }
  })
  await it.settle()
  expect(fake.held[0]?.requests[0]).toMatchObject({ expectLast: 0, key: '/n' })
  fake.held[0]?.refuse(new TidingsError('conflict', 'somebody was faster'))
  await it.settle()
  fake.other({ topic: 'structures.plan', type: 'structure.changed', key: '/n', data: { value: 7 } })
  await it.settle()
  expect(fake.held[1]?.requests[0]).toMatchObject({ expectLast: 1, data: { value: 8 } })
  fake.held[1]?.answer()
  await edit
  expect(seen).toEqual([undefined, 7])
  expect(plan.snapshot()).toMatchObject({ value: { n: 8 }, last: 2 })
  // One that waits for whoever was faster ends with the structure.
  const again = plan.edit(() => ({ '/n': 0 }))
  await it.settle()
  fake.held[2]?.refuse(new TidingsError('conflict', 'somebody was faster'))
  await it.settle()
  const closed = plan.close()
  await expect(again).rejects.toMatchObject({ code: 'closed' })
  await closed
})

test('questions are answered so many at a time, only where answers may go', async () => {
  const { fake } = it
  const failed = vi.fn()
  let running = 0
  let most = 0
  const open: (() => void)[] = []
  const responder = reply(
    fake.client,
    'ask.*',
    async ({ data }) => {
      most = Math.max(most, ++running)
      await new Promise<void>((resolve) => open.push(resolve))
      running--
      if (data === 'bad') throw new TidingsError('not_found', 'nobody')
      return data
    },
    { concurrency: 2, onError: failed },
  )
  const ask = (data: unknown, to = 'replies.me') =>
    fake.other({ topic: 'ask.a', data, headers: { 'reply-to': to }, correlation: `c-${data}` })
  ask(1)
  ask('bad')
  ask(3)
  await it.settle()
  expect(most).toBe(2)
  for (const one of open.splice(0)) one()
  await it.settle()
  expect(it.of('reply')).toMatchObject([{ topic: 'replies.me', correlation: 'c-1', data: 1 }])
  expect(it.of('reply.failed')).toMatchObject([
    { correlation: 'c-bad', data: { code: 'not_found', message: 'nobody' } },
  ])
  ask(2, 'agents.7.commands')
  await it.settle()
  for (const one of open.splice(0)) one()
  await it.settle()
  expect(failed).toHaveBeenCalledWith(expect.objectContaining({ code: 'permission_denied' }), expect.anything())
  expect(fake.log.filter(({ topic }) => topic.startsWith('agents.'))).toEqual([])
  await responder.close()
})

test('an interrupt that was sent before the command does not stop it, however late it comes', async () => {
  const { fake } = it
  let stopped = false
  const worker = agent(fake.client, '7', {
    run: (_, { signal }) =>
      new Promise<void>((resolve) =>
        signal.addEventListener('abort', () => {
          stopped = true
          resolve()
        }),
      ),
  })
  fake.other({ topic: 'agents.7.commands', type: 'command.run', data: 1 })
  const [command] = fake.log
  fake.other({ topic: 'agents.7.commands', type: 'command.run', data: 2 })
  await it.settle()
  expect(worker.running?.data).toBe(1)
  const heard = fake.subs.find(({ options }) => options.types?.includes('command.interrupt'))
  heard?.offer({ ...command, type: 'command.interrupt', offset: 0, data: {} } as TidingsEvent)
  heard?.offer({ ...command, type: 'command.interrupt', offset: 9, data: { command: 'another' } } as TidingsEvent)
  expect(stopped).toBe(false)
  heard?.offer({ ...command, type: 'command.interrupt', offset: 9, data: {} } as TidingsEvent)
  expect(stopped).toBe(true)
  await it.settle()
  expect(worker.running?.data).toBe(2)
  await worker.close()
})

test('a structure of snapshots and patches is not shown as an empty one of parts, and nothing is written into it', async () => {
  const { fake } = it
  fake.other({ topic: 'structures.list', type: 'state.snapshot', key: 'snapshot', data: { lines: [] } })
  const list = structure(fake.client, 'list', { notifyMs: 0 })
  await it.settle()
  expect(list.snapshot()).toMatchObject({ value: undefined, error: { code: 'invalid_argument' } })
  await expect(list.set('/lines', [1])).rejects.toMatchObject({ code: 'invalid_argument' })
  await expect(list.edit(() => ({ '/lines': [1] }))).rejects.toMatchObject({ code: 'invalid_argument' })
  expect(fake.log).toHaveLength(1)
})

test('a beginning that cannot be read now is read later, and one that never can be ends its message', async () => {
  const { fake } = it
  for (const letter of 'ab') {
    const seq = 'ab'.indexOf(letter)
    fake.other({ topic: 'a', type: 'message.chunk', correlation: 'm', data: { seq, delta: letter, final: false } })
  }
  const read = fake.read.bind(fake)
  const failing = vi.spyOn(fake, 'read')
  failing.mockRejectedValueOnce(new TidingsError('disconnected', 'away', { retryable: true }))
  failing.mockRejectedValueOnce(new TidingsError('unavailable', 'busy', { retryable: true, retryAfterMs: 3_000 }))
  failing.mockImplementation(read)
  const messages = assemble(fake.client.subscribe('a', { after: 'now' }), { client: fake.client, notifyMs: 0 })
  await it.settle()
  fake.other({ topic: 'a', type: 'message.chunk', correlation: 'm', data: { seq: 2, delta: 'c', final: true } })
  await it.settle()
  expect(messages.get('m')).toMatchObject({ text: '', missing: true, error: undefined })
  await vi.advanceTimersByTimeAsync(500)
  expect(failing).toHaveBeenCalledTimes(2)
  await vi.advanceTimersByTimeAsync(2_999)
  expect(messages.get('m')).toMatchObject({ missing: true })
  await vi.advanceTimersByTimeAsync(1)
  expect(messages.get('m')).toMatchObject({ text: 'abc', complete: true, missing: false })

  failing.mockRejectedValueOnce(new TidingsError('permission_denied', 'not yours'))
  fake.other({ topic: 'a', type: 'message.chunk', correlation: 'n', data: { seq: 1, delta: 'x', final: false } })
  await it.settle()
  expect(messages.get('n')).toMatchObject({ missing: false, error: { code: 'permission_denied' } })

  // One that is closed waits for no next try, and its messages have not failed.
  failing.mockRejectedValueOnce(new TidingsError('disconnected', 'away', { retryable: true }))
  fake.other({ topic: 'a', type: 'message.chunk', correlation: 'o', data: { seq: 1, delta: 'x', final: false } })
  await it.settle()
  await messages.close()
  await it.settle()
  expect(messages.get('o')).toMatchObject({ missing: true, error: undefined })
})
