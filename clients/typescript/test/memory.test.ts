// A day of a client in Node leaves nothing behind: the heap after a collection does not grow.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import type { TidingsEvent, TransportName } from '../src/index.js'
import { Day } from './support/day.js'
import { expectNothingLeft, GROWTH_MAX, HOURS, heapsOf } from './support/heaps.js'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Those of a client in this process. */
async function heaps(hours: number, transport: TransportName, seen?: (event: TidingsEvent) => void) {
  const day = new Day(transport, seen)
  const used = async () => {
    collect()
    return process.memoryUsage().heapUsed
  }
  const left = await heapsOf(hours, (minutes) => day.pass(minutes), used)
  const { figures } = day
  expect(await day.close()).toBe(0)
  return { figures, left }
}

test.each(['websocket', 'sse', 'poll'] as const)(
  'hours of events, lost connections, acks, publishes and timers over %s leave nothing behind',
  async (transport) => {
    const { figures, left } = await heaps(HOURS, transport)
    expectNothingLeft(figures, left)
  },
  1_200_000,
)

test('and where something is kept of every fourth event, that is seen', async () => {
  const kept: object[] = []
  const { left } = await heaps(0.5, 'websocket', (event) => {
    if (event.offset % 4 === 0) kept.push({ ...event })
  })
  expect(kept.length).toBeGreaterThan(5_000)
  expect(left.growth).toBeGreaterThan(GROWTH_MAX)
}, 120_000)
