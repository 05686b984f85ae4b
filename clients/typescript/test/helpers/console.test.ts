// Logs that are forwarded: few, short, without secrets, and never because of themselves.

import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { forwardConsole, type LogEntry } from '../../src/helpers/index.js'
import { textOfArguments } from '../../src/helpers/log-entry.js'
import { TidingsError } from '../../src/index.js'
import { Fake } from './fake.js'

let fake: Fake
const target = { debug: vi.fn(), log: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() }
const original = { ...target }

beforeEach(() => {
  vi.useFakeTimers()
  fake = new Fake()
  for (const mock of Object.values(original)) mock.mockReset()
  Object.assign(target, original)
})
afterEach(() => {
  expect(vi.getTimerCount()).toBe(0)
  vi.useRealTimers()
})
const entries = () => fake.log.map(({ data }) => data as LogEntry)

test('warnings and errors are forwarded together and still logged; the console is given back', async () => {
  const forwarding = forwardConsole(fake.client, 'logs.1', { console: target })
  target.warn('careful', { n: 1 })
  target.error(new Error('broken'))
  target.log('not this')
  expect(original.warn).toHaveBeenCalledWith('careful', { n: 1 })
  expect(fake.log).toHaveLength(0)
  await vi.advanceTimersByTimeAsync(1_000)
  expect(fake.log).toMatchObject([
    { topic: 'logs.1', type: 'log.warn', priority: 'low', data: { level: 'warn', message: 'careful {n: 1}' } },
    { type: 'log.error', data: { message: 'Error: broken', stack: expect.stringContaining('console.test') } },
  ])
  target.warn('the last')
  await forwarding.close()
  expect(entries().at(-1)?.message).toBe('the last')
  expect(target.warn).toBe(original.warn)
  target.warn('after')
  await vi.advanceTimersByTimeAsync(5_000)
  expect(fake.log).toHaveLength(3)
})

test('what is logged while an entry is made, redacted or published feeds nothing', async () => {
  const publish = fake.publishBatch.bind(fake)
  fake.publishBatch = (requests) => {
    target.error('the client logs')
    return publish(requests)
  }
  const forwarding = forwardConsole(fake.client, 'logs.1', {
    console: target,
    redact: (entry) => {
      target.warn('the hook logs')
      return entry
    },
  })
  const hostile = {
    get name() {
      target.error('a getter logs')
      return 'x'
    },
  }
  target.warn('one', hostile)
  for (let n = 0; n < 20; n++) await vi.advanceTimersByTimeAsync(1_000)
  expect(entries()).toHaveLength(1)
  // A failure is not logged either, and is told with the next entry.
  fake.refusal = new TidingsError('permission_denied', 'no')
  target.warn('two')
  await vi.advanceTimersByTimeAsync(1_000)
  target.warn('three')
  await vi.advanceTimersByTimeAsync(1_000)
  expect(entries().map(({ message, left_out }) => [message, left_out])).toEqual([
    ['one {name: "x"}', undefined],
    ['three', 1],
  ])
  await forwarding.close()
})

test('a flood is held to its rate and its room, and says how much was left out', async () => {
  const forwarding = forwardConsole(fake.client, 'logs.1', { console: target, maxPerSecond: 5 })
  for (let n = 0; n < 1_000; n++) target.error(`e${n}`)
  await vi.advanceTimersByTimeAsync(1_000)
  expect(entries().map(({ message }) => message)).toEqual(['e0', 'e1', 'e2', 'e3', 'e4'])
  target.error('later')
  await vi.advanceTimersByTimeAsync(1_000)
  // 995 over the rate; told once.
  expect(entries().reduce((sum, { left_out = 0 }) => sum + left_out, 0)).toBe(995)
  await forwarding.close()
})

test('without a connection the newest wait here and not in the outbox', async () => {
  fake.state = 'reconnecting'
  const forwarding = forwardConsole(fake.client, 'logs.1', { console: target, maxPerSecond: 1_000, maxWaiting: 3 })
  for (let n = 0; n < 10; n++) target.error(`e${n}`)
  await vi.advanceTimersByTimeAsync(10_000)
  expect(fake.log).toHaveLength(0)
  fake.state = 'connected'
  await vi.advanceTimersByTimeAsync(1_000)
  expect(entries().map(({ message, left_out }) => [message, left_out])).toEqual([
    ['e7', 7],
    ['e8', undefined],
    ['e9', undefined],
  ])
  await forwarding.close()
})

test('what has waited goes in as many batches as it takes', async () => {
  fake.state = 'reconnecting'
  const batches: number[] = []
  const { publishBatch } = fake.client
  fake.client.publishBatch = (events, ...more) => {
    batches.push(JSON.stringify(events).length)
    return publishBatch.call(fake.client, events, ...more)
  }
  const forwarding = forwardConsole(fake.client, 'logs.1', { console: target, maxPerSecond: 1_000 })
  const stack = `Error: x\n${'    at somewhere (file.ts:1:1)\n'.repeat(200)}`
  for (let n = 0; n < 200; n++)
    target.error(`e${n} ${'\u2028'.repeat(1_900)}`, Object.assign(new Error('x'), { stack }))
  fake.state = 'connected'
  await vi.advanceTimersByTimeAsync(2_000)
  expect(entries().map(({ message }) => message.split(' ')[0])).toEqual(Array.from({ length: 200 }, (_, n) => `e${n}`))
  expect(batches.length).toBeGreaterThan(5)
  expect(Math.max(...batches)).toBeLessThan(1 << 18)
  await forwarding.close()
})

test('samples and hooks decide, and what they get wrong is left out', async () => {
  const forwarding = forwardConsole(fake.client, 'logs.1', {
    console: target,
    sample: ({ message }) => message !== 'not me',
    redact: (entry) => {
      if (entry.message === 'throw') throw new Error('hook')
      if (entry.message === 'drop') return null
      return { ...entry, message: entry.message.replace(/tok_\w+/g, '[token]').repeat(5_000) }
    },
    maxChars: 100,
  })
  for (const message of ['not me', 'throw', 'drop', 'with tok_abc']) target.error(message)
  await vi.advanceTimersByTimeAsync(1_000)
  expect(entries()).toHaveLength(1)
  expect(entries()[0]?.message).toHaveLength(100)
  expect(JSON.stringify(entries())).not.toContain('tok_abc')
  await forwarding.close()
})

test('whatever is logged becomes a text of bounded length', () => {
  const circle: Record<string, unknown> = { name: 'c' }
  circle.self = circle
  const deep = Array.from({ length: 100 }).reduce((inner) => [inner], 'x')
  const proxy = new Proxy(
    {},
    {
      ownKeys: () => {
        throw new Error('proxy')
      },
    },
  )
  expect(textOfArguments(['a', 1, null, undefined, true, 7n, Symbol('s')], 1_000)).toBe(
    'a 1 null undefined true 7n Symbol(s)',
  )
  expect(textOfArguments([circle], 1_000)).toBe('{name: "c", self: [circular]}')
  expect(textOfArguments([deep], 1_000)).toBe('[[[[[…]]]]]')
  expect(textOfArguments([proxy], 1_000)).toBe('[unreadable: proxy]')
  expect(textOfArguments([Object.create(null), new Date(Number.NaN), () => 1], 1_000)).toBe(
    '{} unknown [function without a name]',
  )
  const wide = Array.from({ length: 1_000 }, (_, n) => ({ n, text: 'x'.repeat(1_000) }))
  expect(textOfArguments([wide, wide, wide], 500)).toHaveLength(500)
})
