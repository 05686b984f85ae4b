// A day of a client in Chromium leaves nothing behind: the heap after a collection does not grow.

import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { type Browser, type CDPSession, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { TransportName } from '../../src/index.js'
import type { Figures } from '../support/day.js'
import { expectNothingLeft, GROWTH_MAX, HOURS, heapsOf } from '../support/heaps.js'

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

/** Those of a client in a page; `seen` is what is done with each event. */
async function heaps(hours: number, transport: TransportName, seen: string) {
  const page: Page = await browser.newPage()
  const session = await page.context().newCDPSession(page)
  await page.addScriptTag({ content: script })
  await page.evaluate(`globalThis.kept = []; void (globalThis.day = new days.Day('${transport}', ${seen}))`)
  const left = await heapsOf(
    hours,
    (minutes) => page.evaluate(`day.pass(${minutes})`),
    () => heapOf(session),
  )
  const figures = (await page.evaluate('day.figures')) as Figures
  expect(await page.evaluate('day.close()')).toBe(0)
  await page.close()
  return { figures, left }
}

test.each(['websocket', 'sse', 'poll'] as const)(
  'hours of events, lost connections, acks, publishes and timers over %s leave nothing behind',
  async (transport) => {
    const { figures, left } = await heaps(HOURS, transport, '() => {}')
    expectNothingLeft(figures, left)
  },
  1_200_000,
)

test('and where something is kept of every fourth event, that is seen', async () => {
  const { left } = await heaps(0.5, 'websocket', '(event) => { if (event.offset % 4 === 0) kept.push({ ...event }) }')
  expect(left.growth).toBeGreaterThan(GROWTH_MAX)
}, 120_000)
