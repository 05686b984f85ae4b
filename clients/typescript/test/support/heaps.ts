// What a day of a client may leave behind, in Node and in a page.

import { expect } from 'vitest'
import { type Figures, slope } from './day.js'

/** How many hours pass; a day on request. */
export const HOURS = Number(process.env.TIDINGS_HOURS ?? 1)
/** What may be added in the seven tenths that are looked at, in bytes: of one hour 18 an event, of a day 0.7. */
export const GROWTH_MAX = 500_000

/** The heap in bytes at the end of every tenth of that time, but for the first three, in which things are warmed up. */
export async function heapsOf(hours: number, pass: (minutes: number) => Promise<unknown>, heap: () => Promise<number>) {
  const heaps: number[] = []
  for (let tenth = 0; tenth < 10; tenth++) {
    await pass(hours * 6)
    if (tenth >= 3) heaps.push(await heap())
  }
  return { heaps, growth: slope(heaps) * (heaps.length - 1) }
}

/** The client was at work for so many hours, and nothing of it is left. */
export function expectNothingLeft(
  { events, published, connections, questions, errors }: Figures,
  { heaps, growth }: { heaps: number[]; growth: number },
): void {
  const mb = heaps.map((bytes) => (bytes / 1e6).toFixed(2)).join(' ')
  console.info(
    `${HOURS} h: ${events} events, ${published} publishes, ${questions} questions, ${connections} connections`,
  )
  console.info(`heap in MB: ${mb}; grown by ${Math.round(growth / 1e3)} kB`)
  expect(events).toBeGreaterThan(HOURS * 3_600 * 12.9)
  // The last one may be on its way.
  expect(published).toBeGreaterThan(HOURS * 3_600 - 10)
  expect(questions).toBe(HOURS * 60)
  expect(connections).toBeGreaterThanOrEqual(HOURS * 6)
  expect(errors).toEqual([])
  expect(growth).toBeLessThan(GROWTH_MAX)
}
