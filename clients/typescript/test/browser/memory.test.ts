// A day of a client in Chromium leaves nothing behind: the heap after a collection does not grow.

import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { type Browser, type CDPSession, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { TransportName } from '../../src/index.js'
import { type Figures, slope } from '../support/day.js'

/** How many hours pass; a day on request. */
const HOURS = Number(process.env.TIDINGS_HOURS ?? 1)
/** What may be added in the seven tenths that are looked at, in bytes: of one hour 18 an event, of a day 0.7. */
const GROWTH_MAX = 500_000
let browser: Browser
let script: string

beforeAll(async () => {
  const entry = fileURLToPath(new URL('../support/day.ts', import.meta.url))
  const bundle = await build({ entryPoints: [entry], bundle: true, write: false, format: 'iife', globalName: 'days' })
  script = bundle.outputFiles[0]?.text ?? ''
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'
  browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] })
})
afterAll(() => browser?.close())

/** What V8 has in use behind a collection. */
async function heapOf(session: CDPSession): Promise<number> {
  await session.send('HeapProfiler.collectGarbage')
  return (await session.send('Runtime.getHeapUsage')).usedSize
}

/** The heap at the end of every tenth of that time, but for the first three; `seen` is what is done with each event. */
async function heaps(hours: number, transport: TransportName, seen: string) {
  const page: Page = await browser.newPage()
  const session = await page.context().newCDPSession(page)
  await page.addScriptTag({ content: script })
  await page.evaluate(`globalThis.kept = []; void (globalThis.day = new days.Day('${transport}', ${seen}))`)
  const heaps: number[] = []
  for (let tenth = 0; tenth < 10; tenth++) {
    await page.evaluate(`day.pass(${hours * 6})`)
    if (tenth >= 3) heaps.push(await heapOf(session))
  }
  const figures = (await page.evaluate('day.figures')) as Figures
  expect(await page.evaluate('day.close()')).toBe(0)
  await page.close()
  return { figures, heaps, growth: slope(heaps) * (heaps.length - 1) }
}

test.each(['websocket', 'sse', 'poll'] as const)(
  'hours of events, lost connections, acks, publishes and timers over %s leave nothing behind',
  async (transport) => {
    const { figures, heaps: seen, growth } = await heaps(HOURS, transport, '() => {}')
    const { events, published, connections, questions, errors } = figures
    const mb = seen.map((bytes) => (bytes / 1e6).toFixed(2)).join(' ')
    console.info(
      `${HOURS} h: ${events} events, ${published} publishes, ${questions} questions, ${connections} connections`,
    )
    console.info(`heap in MB: ${mb}; grown by ${Math.round(growth / 1e3)} kB`)
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
  const { growth } = await heaps(0.5, 'websocket', '(event) => { if (event.offset % 4 === 0) kept.push({ ...event }) }')
  expect(growth).toBeGreaterThan(GROWTH_MAX)
}, 120_000)
