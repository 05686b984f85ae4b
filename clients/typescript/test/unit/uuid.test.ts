// Ids are in the order in which they were made, whatever the clock does.

import { expect, test } from 'vitest'
import { uuidv7 } from '../../src/core/uuid.js'

const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

test('ids have the time, the version and the variant in their places, and differ', () => {
  const id = uuidv7(0x0192_3456_789a)
  expect(id).toMatch(UUID_V7)
  expect(id.slice(0, 13)).toBe('01923456-789a')
  // Those of one millisecond count; what is random differs in each.
  const tails = Array.from({ length: 100 }, () => uuidv7(0x0192_3456_789a).slice(19))
  expect(new Set(tails).size).toBe(100)
})

test('they are in order within a millisecond, beyond what it can count, and where the clock is set back', () => {
  const now = 0x0192_3456_0000 + 0x1_0000_0000
  const clock = [...Array(5_000).fill(now), now - 60_000, now - 60_000, now + 0.5, now + 2]
  const ids = clock.map((ms) => uuidv7(ms))
  for (const id of ids) expect(id).toMatch(UUID_V7)
  expect([...ids].sort()).toEqual(ids)
  expect(ids.at(-1)?.slice(0, 13)).toBe('01933456-0002')
})
