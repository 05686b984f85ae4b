// Writers: one event on its way at a time, and bounds for what waits.

import { expect, test, vi } from 'vitest'
import { streamWriter, terminalWriter } from '../../src/helpers/index.js'
import { TidingsError } from '../../src/index.js'
import { timed } from './timed.js'

const it = timed()

test('a writer sends one chunk at a time, what was written meanwhile together, and the end with the last', async () => {
  const { fake } = it
  fake.holding = true
  const writer = streamWriter(fake.client, 'a', { correlation: 'm' })
  await writer.write('a')
  await it.settle()
  for (const letter of 'bcdef') await writer.write(letter)
  expect(fake.held).toHaveLength(1)
  fake.held[0]?.answer()
  await it.settle()
  const ended = writer.end()
  fake.held[1]?.answer()
  await it.settle()
  fake.held[2]?.answer()
  await ended
  expect(fake.log.map(({ data, id, correlation }) => [id, correlation, data])).toEqual([
    ['m:0', 'm', { seq: 0, delta: 'a', final: false }],
    ['m:1', 'm', { seq: 1, delta: 'bcdef', final: false, start: 1 }],
    ['m:2', 'm', { seq: 2, delta: '', final: true, start: 1 }],
  ])
  await expect(writer.write('late')).rejects.toMatchObject({ code: 'closed' })
})

test('an end while a chunk is on its way is sent once', async () => {
  const { fake } = it
  fake.holding = true
  const writer = streamWriter(fake.client, 'a', { correlation: 'm' })
  await writer.write('a')
  await it.settle()
  const ends = [writer.end(), writer.end()]
  while (fake.held.length > 0) {
    fake.held.shift()?.answer()
    await it.settle()
  }
  await Promise.all(ends)
  expect(fake.log.map(({ data }) => data)).toEqual([
    { seq: 0, delta: 'a', final: false },
    { seq: 1, delta: '', final: true, start: 1 },
  ])
})

test('a message that was given up has no final chunk, and its last one says why', async () => {
  const { fake } = it
  const writer = streamWriter(fake.client, 'a', { correlation: 'm' })
  await writer.write('half of')
  await writer.flush()
  await writer.write(' it')
  await writer.abort('the model is gone')
  expect(fake.log.map(({ data }) => data)).toEqual([
    { seq: 0, delta: 'half of', final: false },
    { seq: 1, delta: ' it', final: false, start: 1 },
    { seq: 2, delta: '', final: false, start: 1, error: 'the model is gone' },
  ])
  await expect(writer.write('late')).rejects.toMatchObject({ code: 'closed' })
  await writer.end()
  expect(fake.log).toHaveLength(3)
})

test('a message that has ended is whole, whatever is said behind its end', async () => {
  const { fake } = it
  fake.holding = true
  const writer = streamWriter(fake.client, 'a', { correlation: 'm' })
  await writer.write('all of it')
  const ended = writer.end()
  const aborted = writer.abort('a second thought')
  while (fake.log.length < 2) {
    fake.held.shift()?.answer()
    await it.settle()
  }
  await Promise.all([ended, aborted])
  expect(fake.log.map(({ data }) => data)).toEqual([
    { seq: 0, delta: 'all of it', final: false },
    { seq: 1, delta: '', final: true, start: 1 },
  ])
})

test('a writer waits when too much waits, and one that does not is stopped', async () => {
  const { fake } = it
  fake.holding = true
  const writer = streamWriter(fake.client, 'a', { maxWaitingChars: 10, maxChars: 4 })
  let went = false
  const wrote = writer.write('x'.repeat(15)).then(() => {
    went = true
  })
  await it.settle()
  expect(went).toBe(false)
  while (!went) {
    fake.held.shift()?.answer()
    await it.settle()
  }
  await wrote
  const failed = await Promise.allSettled(Array.from({ length: 5 }, () => writer.write('x'.repeat(9))))
  expect(failed.at(-1)).toMatchObject({ reason: { code: 'too_large' } })
  for (const held of fake.held) held.answer()
  await it.settle()
  for (const { data } of fake.log) expect((data as { delta: string }).delta.length).toBeLessThanOrEqual(4)
})

test('a writer that was refused says so to whoever writes, and a pair of surrogates is not torn', async () => {
  const { fake } = it
  fake.refusal = new TidingsError('conflict', 'somebody else')
  const writer = streamWriter(fake.client, 'a')
  await writer.write('a')
  await expect(writer.flush()).rejects.toMatchObject({ code: 'conflict' })
  await expect(writer.write('b')).rejects.toMatchObject({ code: 'conflict' })
  const other = streamWriter(fake.client, 'b', { maxChars: 3 })
  await other.write('ab🔑🔑')
  await other.end()
  const deltas = fake.log.map(({ data }) => (data as { delta: string }).delta)
  expect(deltas.join('')).toBe('ab🔑🔑')
  for (const delta of deltas) expect(() => encodeURIComponent(delta)).not.toThrow()
})

test('a terminal gathers what is written within 10 ms', async () => {
  const { fake } = it
  const out = terminalWriter(fake.client, '7')
  for (let n = 0; n < 100; n++) void out.write(`line ${n}\n`)
  await vi.advanceTimersByTimeAsync(9)
  expect(fake.log).toHaveLength(0)
  await vi.advanceTimersByTimeAsync(1)
  expect(fake.log).toHaveLength(1)
  await out.write('a')
  await out.end(3)
  expect(fake.log.map(({ type }) => type)).toEqual(['terminal.output', 'terminal.output', 'terminal.closed'])
  expect(fake.log[2]?.data).toEqual({ exit: 3 })
})

test('characters that lie across writes are whole, and what was begun stands before what follows', async () => {
  const { fake } = it
  const out = terminalWriter(fake.client, '7')
  const bytes = new TextEncoder().encode('é€🔑')
  for (const byte of bytes) await out.write(Uint8Array.of(byte))
  await out.write(bytes.subarray(0, 1))
  await out.write('!')
  await out.write(bytes.subarray(2, 4))
  await out.end()
  const text = fake.log.map(({ data }) => (typeof data === 'string' ? data : '')).join('')
  expect(text).toBe('é€🔑\ufffd!\ufffd')
  expect(fake.log.at(-1)?.type).toBe('terminal.closed')
})
