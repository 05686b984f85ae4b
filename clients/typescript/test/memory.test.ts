// A day of a client in Node leaves nothing behind: the heap after a collection does not grow.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import type { TidingsEvent, TransportName } from '../src/index.js'
import { Day, slope } from './support/day.js'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** How many hours pass; a day on request. */
const HOURS = Number(process.env.TIDINGS_HOURS ?? 1)
/** What may be added in the seven tenths that are looked at, in bytes: of one hour 18 an event, of a day 0.7. */
const GROWTH_MAX = 500_000

/** The heap in bytes at the end of every tenth of that time, but for the first three, in which things are warmed up. */
async function heaps(hours: number, transport: TransportName, seen?: (event: TidingsEvent) => void) {
  const day = new Day(transport, seen)
  const heaps: number[] = []
  for (let tenth = 0; tenth < 10; tenth++) {
    await day.pass(hours * 6)
    collect()
    if (tenth >= 3) heaps.push(process.memoryUsage().heapUsed)
  }
  const { figures } = day
  expect(await day.close()).toBe(0)
  return { figures, heaps, growth: slope(heaps) * (heaps.length - 1) }
}

test.each(['websocket', 'sse', 'poll'] as const)(
  'hours of events, lost connections, acks, publishes and timers over %s leave nothing behind',
  async (transport) => {
    const { figures, heaps: seen, growth } = await heaps(HOURS, transport)
    const { events, published, connections, questions, errors } = figures
    const mb = seen.map((bytes) => (bytes / 1e6).toFixed(2)).join(' ')
    console.info(
      `${HOURS} h: ${events} events, ${published} publishes, ${questions} questions, ${connections} connections`,
    )
    console.info(`heap in MB: ${mb}; grown by ${Math.round(growth / 1e3)} kB`)
    // It was at work.
    expect(events).toBeGreaterThan(HOURS * 3_600 * 12.9)
    // The last one may be on its way.
    expect(published).toBeGreaterThan(HOURS * 3_600 - 10)
    // What is made of requests takes time that the clock knows nothing of: a question may be late, a break not be met.
    const socket = transport === 'websocket'
    expect(questions).toBeGreaterThanOrEqual(HOURS * (socket ? 60 : 6))
    expect(connections).toBeGreaterThan(HOURS * (socket ? 6 : 1))
    expect(errors).toEqual([])
    expect(growth).toBeLessThan(GROWTH_MAX)
  },
  1_200_000,
)

test('and where something is kept of every fourth event, that is seen', async () => {
  const kept: object[] = []
  const { growth } = await heaps(0.5, 'websocket', (event) => {
    if (event.offset % 4 === 0) kept.push({ ...event })
  })
  expect(kept.length).toBeGreaterThan(5_000)
  expect(growth).toBeGreaterThan(GROWTH_MAX)
}, 120_000)
