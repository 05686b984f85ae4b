// Operations: how often they speak, how they end, and what is made of what others say.

import { expect, test, vi } from 'vitest'
import { operation, operations } from '../../src/helpers/index.js'
import { TidingsError } from '../../src/index.js'
import { timed } from './timed.js'

const it = timed()

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
    fake.other({ topic: `operations.${id}`, type: 'operation.started', data: { attempt: 2, deadline_ms: ms } })
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
