// Chunks in any order, as often as they come, with any cuts.

import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Assembly, CHUNK } from '../../src/helpers/assembly.js'
import { TidingsError } from '../../src/index.js'
import type { TidingsEvent } from '../../src/types.js'

function chunk(correlation: string, seq: number, data: object, offset = seq + 1): TidingsEvent {
  return {
    offset,
    topic: 'a',
    id: `${correlation}:${seq}`,
    type: CHUNK,
    source: 'urn:tidings:subject:alice',
    time: '2026-11-21T05:16:00.123Z',
    correlation,
    data: { seq, ...data },
    priority: 'normal',
    attempts: 1,
    own: false,
  }
}

function chunksOf(correlation: string, deltas: readonly string[]): TidingsEvent[] {
  return deltas.map((delta, seq) => chunk(correlation, seq, { delta, final: seq === deltas.length - 1 }))
}

const messages = fc.dictionary(
  fc.string({ minLength: 1, maxLength: 4 }),
  fc.array(fc.string({ maxLength: 5 }), { minLength: 1, maxLength: 12 }),
  {
    minKeys: 1,
    maxKeys: 4,
    noNullPrototype: true,
  },
)

/** All chunks of the messages, in any order, each once and some of them more often. */
const replays = messages.chain((texts) => {
  const chunks = Object.entries(texts).flatMap(([name, deltas]) => chunksOf(name, deltas))
  const repeated = fc.array(fc.constantFrom(...chunks), { maxLength: 30 })
  return repeated.chain((more) => {
    const all = [...chunks, ...more]
    return fc.shuffledSubarray(all, { minLength: all.length, maxLength: all.length }).map((order) => ({ texts, order }))
  })
})

test('any order and any repetition makes the same texts', () => {
  fc.assert(
    fc.property(replays, ({ texts, order }) => {
      const assembly = new Assembly()
      for (const event of order) assembly.take(event)
      for (const [name, deltas] of Object.entries(texts)) {
        expect(assembly.get(name)).toMatchObject({
          text: deltas.join(''),
          complete: true,
          missing: false,
          error: undefined,
        })
      }
      expect(assembly.all()).toHaveLength(Object.keys(texts).length)
    }),
    { numRuns: 500 },
  )
})

test('at any moment what is shown is the beginning of the text, never shorter than before', () => {
  fc.assert(
    fc.property(replays, ({ texts, order }) => {
      const assembly = new Assembly()
      const longest = new Map<string, number>()
      for (const event of order) {
        const changed = assembly.take(event)
        for (const message of assembly.all()) {
          const whole = (texts[message.correlation] ?? []).join('')
          expect(whole.startsWith(message.text)).toBe(true)
          expect(message.text.length).toBeGreaterThanOrEqual(longest.get(message.correlation) ?? 0)
          longest.set(message.correlation, message.text.length)
          if (message.complete) expect(message.text).toBe(whole)
        }
        // Nothing is said to have changed that has not.
        if (changed !== undefined) expect(changed).toBe(event.correlation)
      }
    }),
    { numRuns: 300 },
  )
})

test('a cut anywhere and a replay from anywhere before it changes nothing', () => {
  const cuts = fc.array(fc.tuple(fc.nat(40), fc.nat(10)), { maxLength: 5 })
  fc.assert(
    fc.property(fc.array(fc.string({ maxLength: 3 }), { minLength: 1, maxLength: 40 }), cuts, (deltas, cut) => {
      const chunks = chunksOf('m', deltas)
      const assembly = new Assembly()
      let at = 0
      for (const [upTo, back] of [...cut, [chunks.length, 0] as const]) {
        for (; at < Math.min(upTo, chunks.length); at++) assembly.take(chunks[at] as TidingsEvent)
        at = Math.max(0, at - back)
      }
      for (const event of chunks.slice(at)) assembly.take(event)
      expect(assembly.get('m')).toMatchObject({ text: deltas.join(''), complete: true })
    }),
    { numRuns: 300 },
  )
})

test('a message that has not changed is the same object, one that has is another', () => {
  const assembly = new Assembly()
  const [first, second, third] = chunksOf('m', ['a', 'b', 'c']) as [TidingsEvent, TidingsEvent, TidingsEvent]
  assembly.take(first)
  const shown = assembly.get('m')
  expect(assembly.take(first)).toBeUndefined()
  expect(assembly.get('m')).toBe(shown)
  expect(assembly.take(third)).toBe('m')
  expect(assembly.get('m')).toMatchObject({ text: 'a', missing: true })
  assembly.take(second)
  expect(assembly.get('m')).toMatchObject({ text: 'abc', missing: false, complete: true })
})

test('the writer that gave up, what is gone and what is too much end a message with its text', () => {
  const assembly = new Assembly({ maxChars: 10, maxWaiting: 2 })
  assembly.take(chunk('gave-up', 0, { delta: 'so far', final: false }))
  assembly.take(chunk('gave-up', 1, { delta: '', final: false, error: 'out of tokens' }))
  const gaveUp = { text: 'so far', complete: false, error: { code: 'aborted', message: 'out of tokens' } }
  expect(assembly.get('gave-up')).toMatchObject(gaveUp)
  // One that says both is not whole.
  assembly.take(chunk('both', 0, { delta: 'so far', final: true, error: 'out of tokens' }))
  expect(assembly.get('both')).toMatchObject(gaveUp)
  assembly.take(chunk('late', 4, { delta: 'x', final: true }))
  expect(assembly.giveUp(new TidingsError('offset_gone', 'gone'))).toEqual(['late'])
  expect(assembly.get('late')).toMatchObject({ text: '', missing: false, error: { code: 'offset_gone' } })
  assembly.take(chunk('long', 0, { delta: 'x'.repeat(11) }))
  expect(assembly.get('long')).toMatchObject({ error: { code: 'too_large' } })
  for (const seq of [2, 3, 4]) assembly.take(chunk('holes', seq, { delta: '' }))
  expect(assembly.get('holes')).toMatchObject({ error: { code: 'too_large' } })
  // What comes behind an end changes nothing.
  expect(assembly.take(chunk('long', 1, { delta: 'y' }))).toBeUndefined()
})

test('what stands behind the last chunk is of no message', () => {
  const assembly = new Assembly()
  assembly.take(chunk('m', 5, { delta: 'never' }))
  expect(assembly.get('m')).toMatchObject({ missing: true })
  for (const event of chunksOf('m', ['a', 'b'])) assembly.take(event)
  expect(assembly.get('m')).toMatchObject({ text: 'ab', complete: true, missing: false })
})

test('there are at most so many messages, and what is no chunk is none', () => {
  const assembly = new Assembly({ maxMessages: 3 })
  for (let n = 0; n < 100; n++) assembly.take(chunk(`m${n}`, 0, { delta: 'x' }))
  expect(assembly.all().map(({ correlation }) => correlation)).toEqual(['m97', 'm98', 'm99'])
  for (const data of [null, 7, [], {}, { seq: -1 }, { seq: 0.5 }, { seq: '0' }]) {
    expect(assembly.take({ ...chunk('bad', 0, {}), data })).toBeUndefined()
  }
  expect(assembly.take({ ...chunk('bad', 0, { delta: 'x' }), type: 'message' })).toBeUndefined()
  expect(assembly.get('bad')).toBeUndefined()
})
