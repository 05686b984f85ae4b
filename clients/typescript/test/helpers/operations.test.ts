// Operations: how often they speak, how they end, and what is made of what others say.

import { expect, test, vi } from 'vitest'
import { operation, operations } from '../../src/helpers/index.js'
import { TidingsError } from '../../src/index.js'
import { timed } from './timed.js'

const it = timed()

test('a client that is closed leaves no timer of an operation, one that may not hear of cancels has its deadline', async () => {
  const { fake } = it
  const work = await operation(fake.client, '7').start({ deadlineMs: 60_000 })
  work.progress(1)
  expect(vi.getTimerCount()).toBe(2)
  const { sub } = fake
  sub.state = 'closed'
  sub.tell('state', 'closed')
  expect(vi.getTimerCount()).toBe(0)
  const other = await operation(fake.client, '8').start({ deadlineMs: 1_000 })
  fake.sub.refuse(new TidingsError('permission_denied', 'no'))
  await vi.advanceTimersByTimeAsync(1_000)
  expect(other.signal.reason).toMatchObject({ code: 'timeout' })
})

test('progress is published so often and not more often, the newest of it, and the end has the last word', async () => {
  const { fake } = it
  const work = await operation(fake.client, '7').start({ of: 1_000, progressEveryMs: 100 })
  for (let done = 1; done <= 1_000; done++) {
    work.progress(done)
    await vi.advanceTimersByTimeAsync(1)
  }
  expect(it.of('operation.progress').length).toBeGreaterThan(8)
  expect(it.of('operation.progress').length).toBeLessThanOrEqual(11)
  for (const { key } of it.of('operation.progress')) expect(key).toBe('progress')
  const [first, second] = [work.complete({ rows: 7 }), work.fail(new Error('too late'))]
  expect(await second).toBe(await first)
  work.progress(5)
  await it.settle()
  expect(fake.log.at(-1)).toMatchObject({
    type: 'operation.completed',
    data: { attempt: 1, done: 1_000, of: 1_000, result: { rows: 7 } },
  })
})

test('one progress is on its way at a time, whatever the line', async () => {
  const { fake } = it
  const work = await operation(fake.client, '7').start({ progressEveryMs: 10 })
  fake.holding = true
  for (let done = 1; done <= 50; done++) {
    work.progress(done)
    await vi.advanceTimersByTimeAsync(10)
  }
  expect(fake.held).toHaveLength(1)
  fake.held[0]?.answer()
  await vi.advanceTimersByTimeAsync(10)
  expect(fake.held[1]?.requests[0]?.data).toEqual({ attempt: 1, done: 50 })
  fake.held[1]?.answer()
  fake.holding = false
  await work.complete()
})

test('a deadline is told to the worker and to all, and a watcher sees that nobody said how it ended', async () => {
  const { fake } = it
  const watched = operation(fake.client, '7').watch({ notifyMs: 0 })
  const work = await operation(fake.client, '7').start({ deadlineMs: 1_000 })
  fake.holding = true
  // As the conventions have it, and nothing else that says when.
  expect(fake.log[0]?.data).toEqual({ attempt: 1, deadline: '2026-11-21T05:16:01.000Z' })
  expect(watched.snapshot()).toMatchObject({ status: 'running', overdue: false, deadline: Date.now() + 1_000 })
  const told = vi.fn()
  watched.subscribe(told)
  await vi.advanceTimersByTimeAsync(1_000)
  expect(work.signal.reason).toMatchObject({ code: 'timeout' })
  expect(told).toHaveBeenCalled()
  expect(watched.snapshot()).toMatchObject({ status: 'running', overdue: true })
  fake.held[0]?.answer()
  await it.settle()
  expect(watched.snapshot()).toMatchObject({ status: 'timed_out', overdue: false })
  await watched.close()
})

test('a deadline holds where the start took long, where it is far away, and is refused where it is no moment', async () => {
  const { fake } = it
  fake.holding = true
  const starting = operation(fake.client, '7').start({ deadlineMs: 1_000 })
  await vi.advanceTimersByTimeAsync(900)
  fake.holding = false
  fake.held[0]?.answer()
  const slow = await starting
  await vi.advanceTimersByTimeAsync(99)
  expect(slow.signal.aborted).toBe(false)
  await vi.advanceTimersByTimeAsync(1)
  expect(slow.signal.reason).toMatchObject({ code: 'timeout' })

  // A timer takes 24 days at most.
  const day = 24 * 60 * 60 * 1_000
  const far = await operation(fake.client, '8').start({ deadlineMs: 60 * day })
  await vi.advanceTimersByTimeAsync(60 * day - 1)
  expect(far.signal.aborted).toBe(false)
  await vi.advanceTimersByTimeAsync(1)
  expect(far.signal.reason).toMatchObject({ code: 'timeout' })
  expect(it.of('operation.timed_out').map(({ topic }) => topic)).toEqual(['operations.7', 'operations.8'])

  const before = fake.log.length
  for (const deadlineMs of [Number.NaN, Infinity, 1e15, -1e15]) {
    const refused = operation(fake.client, '9').start({ deadlineMs })
    await expect(refused).rejects.toMatchObject({ code: 'invalid_argument' })
  }
  expect(fake.log).toHaveLength(before)
})

test('a deadline is a moment in RFC 3339, and what is none is no deadline', async () => {
  const { fake } = it
  const watched = operation(fake.client, '7').watch({ notifyMs: 0 })
  const read = (deadline: unknown): number | undefined => {
    fake.other({ topic: 'operations.7', type: 'operation.started', data: { deadline, deadline_ms: 5 } })
    return watched.snapshot().deadline
  }
  const moment = Date.UTC(2028, 1, 29, 5, 16, 1)
  for (const text of ['2028-02-29T05:16:01Z', '2028-02-29t05:16:01.000000z', '2028-02-29T06:46:01+01:30']) {
    expect(read(text), text).toBe(moment)
  }
  const none: unknown[] = ['', '5', 'tomorrow', '2028-02-29', '2028-02-29T05:16:01', 'Tue, 29 Feb 2028 05:16:01 GMT']
  none.push('2027-02-29T05:16:01Z', '2028-13-01T05:16:01Z', '2028-02-29T24:00:00Z', '2028-02-29T05:16:01+24:00')
  none.push(
    '1969-12-31T23:59:59Z',
    '+012028-02-29T05:16:01Z',
    moment,
    null,
    [new Date(moment).toISOString()],
    undefined,
  )
  for (const value of none) expect(read(value), JSON.stringify(value)).toBeUndefined()
  await watched.close()
})

test('what is said with progress holds until something else is, though not every progress is published', async () => {
  const { fake } = it
  const watched = operation(fake.client, '7').watch({ notifyMs: 0 })
  const work = await operation(fake.client, '7').start()
  expect(watched.snapshot().confidence).toBeUndefined()
  work.progress(1, { of: 10, confidence: 0.25 })
  expect(it.of('operation.progress')[0]?.data).toEqual({ attempt: 1, done: 1, of: 10, confidence: 0.25 })
  // The first of these is left out for the second.
  work.progress(2, { of: 20, message: 'reading', confidence: 0.75 })
  work.progress(3)
  await vi.advanceTimersByTimeAsync(100)
  work.progress(4)
  await vi.advanceTimersByTimeAsync(100)
  // Each is all that a late reader needs.
  const kept = { attempt: 1, of: 20, message: 'reading', confidence: 0.75 }
  const [, second, third] = it.of('operation.progress').map(({ data }) => data)
  expect([second, third]).toEqual([
    { ...kept, done: 3 },
    { ...kept, done: 4 },
  ])
  expect(watched.snapshot()).toMatchObject({ ...kept, done: 4 })
  for (const confidence of [-0.1, 1.1, '0.5', null, undefined]) {
    fake.other({ topic: 'operations.7', type: 'operation.progress', key: 'progress', data: { done: 5, confidence } })
    expect(watched.snapshot().confidence).toBe(0.75)
  }
  await work.complete()
  expect(watched.snapshot()).toMatchObject({ status: 'completed', confidence: 0.75 })
  await (await operation(fake.client, '7').start({ attempt: 2 })).fail('no')
  expect(watched.snapshot()).toMatchObject({ attempt: 2, confidence: undefined })
  await watched.close()
})

test('a cancel is said by itself when the handlers have ended, unless they say otherwise', async () => {
  const { fake } = it
  const watched = operation(fake.client, '7').watch({ notifyMs: 0 })
  const first = await operation(fake.client, '7').start()
  let release = () => {}
  first.onCancel(
    () =>
      new Promise<void>((resolve) => {
        release = resolve
      }),
  )
  await operation(fake.client, '7').cancel('enough')
  await it.settle()
  expect(watched.snapshot()).toMatchObject({ status: 'running', cancelRequested: true, reason: 'enough' })
  release()
  await it.settle()
  expect(watched.snapshot()).toMatchObject({ status: 'cancelled', reason: 'enough' })

  const second = await operation(fake.client, '7').start({ attempt: 2 })
  expect(watched.snapshot()).toMatchObject({ status: 'running', attempt: 2, cancelRequested: false, reason: undefined })
  second.onCancel(() => second.complete('in time'))
  await operation(fake.client, '7').cancel()
  await it.settle()
  expect(watched.snapshot()).toMatchObject({ status: 'completed', result: 'in time', ratio: 1 })
  // Nothing more is heard of an end that was.
  await operation(fake.client, '7').cancel('late')
  await it.settle()
  expect(watched.snapshot()).toMatchObject({ status: 'completed', reason: undefined })
  await watched.close()
})

test('who takes the work over begins with the next try, also where it was not here before', async () => {
  const { fake } = it
  const topic = 'operations.7'
  const watched = operation(fake.client, '7').watch({ notifyMs: 0 })
  fake.other({ topic, type: 'operation.started', data: { attempt: 2 } })
  const work = await operation(fake.client, '7').start()
  expect(work.attempt).toBe(3)
  await work.complete()
  expect(watched.snapshot()).toMatchObject({ status: 'completed', attempt: 3 })
  // Where nothing can be read, it is the first.
  fake.client.read = () => Promise.reject(new TidingsError('permission_denied', 'no'))
  const other = await operation(fake.client, '7').start()
  expect(other.attempt).toBe(1)
  await other.complete()
  await watched.close()
})

test('who listens for a cancel behind it is told at once', async () => {
  const { fake } = it
  const work = await operation(fake.client, '7').start()
  await operation(fake.client, '7').cancel('enough')
  await it.settle()
  const heard = vi.fn()
  work.onCancel(heard)
  work.onCancel(() => {
    throw new Error('in vain')
  })
  await it.settle()
  expect(heard).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ reason: 'enough' }))
  await work.cancelled()
})

test('who was declared dead is not listened to, a retry begins anew, another log is another story', async () => {
  const { fake } = it
  const topic = 'operations.7'
  const watched = operation(fake.client, '7').watch({ notifyMs: 0 })
  fake.other({ topic, type: 'operation.started', data: { attempt: 1, of: 10 } })
  fake.other({ topic, type: 'operation.progress', key: 'progress', data: { attempt: 1, done: 5 } })
  fake.other({ topic, type: 'operation.failed', data: { attempt: 1, message: 'no' } })
  fake.other({ topic, type: 'operation.progress', key: 'progress', data: { attempt: 1, done: 6 } })
  expect(watched.snapshot()).toMatchObject({ status: 'failed', message: 'no', done: 5 })
  fake.other({ topic, type: 'operation.started', data: { attempt: 2 } })
  expect(watched.snapshot()).toMatchObject({ status: 'running', attempt: 2, done: undefined, message: undefined })
  fake.other({ topic, type: 'operation.completed', data: { attempt: 1 } })
  expect(watched.snapshot().status).toBe('running')
  const same = watched.snapshot()
  fake.other({ topic, type: 'operation.unheard_of', data: 7 })
  fake.other({ topic, type: 'message', data: 7 })
  expect(watched.snapshot()).toBe(same)
  fake.gap(fake.sub, 'log_changed')
  expect(watched.snapshot()).toMatchObject({ status: 'unknown', attempt: 0 })
  await watched.close()
})

test('a board of operations is bounded', async () => {
  const { fake } = it
  const board = operations(fake.client, undefined, { max: 3, notifyMs: 0 })
  for (let n = 0; n < 10; n++) fake.other({ topic: `operations.${n}`, type: 'operation.started', data: {} })
  fake.other({ topic: 'operations.9.control', type: 'operation.cancel', data: {} })
  expect(board.snapshot().operations.map(({ id, cancelRequested }) => [id, cancelRequested])).toEqual([
    ['7', false],
    ['8', false],
    ['9', true],
  ])
  const [seventh, eighth] = board.snapshot().operations
  fake.other({ topic: 'operations.8', type: 'operation.completed', data: {} })
  expect(board.snapshot().operations[0]).toBe(seventh)
  expect(board.snapshot().operations[1]).not.toBe(eighth)
  // The deadlines of several, whichever is first, and one that is over before its own.
  const now = Date.now()
  for (const [id, ms] of [
    ['7', 300],
    ['8', 100],
    ['9', 200],
  ] as const) {
    const deadline = new Date(now + ms).toISOString()
    fake.other({ topic: `operations.${id}`, type: 'operation.started', data: { attempt: 2, deadline } })
  }
  fake.other({ topic: 'operations.9', type: 'operation.completed', data: { attempt: 2 } })
  const late = () =>
    board
      .snapshot()
      .operations.filter(({ overdue }) => overdue)
      .map(({ id }) => id)
  await it.settle()
  const told: [number, string[]][] = []
  board.subscribe(() => told.push([Date.now() - now, late()]))
  await vi.advanceTimersByTimeAsync(1_000)
  expect(told).toEqual([
    [100, ['8']],
    [300, ['7', '8']],
  ])
  await board.close()
  expect(() => operation(fake.client, 'a.*')).toThrow(TidingsError)
})

test('a board whose filter is refused says why it stays empty', async () => {
  const { fake } = it
  const board = operations(fake.client, 'operations.*', { notifyMs: 0 })
  await it.settle()
  expect(board.snapshot()).toEqual({ operations: [], caughtUp: true, error: undefined })
  fake.sub.refuse(new TidingsError('permission_denied', 'not for you'))
  expect(board.snapshot().error).toMatchObject({ code: 'permission_denied' })
  await board.close()
})
