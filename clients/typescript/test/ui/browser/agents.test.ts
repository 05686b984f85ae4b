// Two dashboards in Chromium and an agent in Node: a command that waits, what is seen of it and how soon, a kill -9 of
// the broker in the middle, and an interrupt.

import type { Page } from 'playwright-core'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { agent, terminalWriter } from '../../../src/helpers/index.js'
import { createClient } from '../../../src/index.js'
import { until } from '../../support/wait.js'
import { run } from './bundle.js'
import { Windows } from './windows.js'

/** So many lines are written, one every 10 ms, before the broker is killed. */
const LINES = 500
let windows: Windows

beforeAll(async () => {
  windows = await Windows.start('./board.tsx')
})
afterAll(() => windows?.close())

/** In milliseconds. */
function figures(delays: readonly number[]): { of: number; p50: number; p99: number; max: number } {
  const sorted = [...delays].sort((a, b) => a - b)
  const at = (share: number): number => sorted[Math.ceil(sorted.length * share) - 1] ?? Number.NaN
  return { of: sorted.length, p50: at(0.5), p99: at(0.99), max: at(1) }
}

it('a command that waited is done in sight of two dashboards, over kill -9, until an interrupt', async () => {
  const boards = [await windows.open('Ann'), await windows.open('Bob')]
  const [ann, bob] = boards.map(({ page }) => page) as [Page, Page]
  const each = (act: (page: Page) => Promise<unknown>) => Promise.all([ann, bob].map(act))

  // Nobody is there to take it.
  await each((page) => page.getByText('No agents').waitFor())
  await ann.getByRole('button', { name: 'Build' }).click()

  const machine = createClient(windows.broker.url, { reconnect: { minMs: 50, maxMs: 200 } })
  let written = 0
  let stoppedMs = 0
  const worker = agent(machine, 'builder', {
    run: async (command, { signal, status }) => {
      expect(command.data).toEqual({ lines: 'many' })
      const out = terminalWriter(machine, 'builder')
      signal.addEventListener('abort', () => {
        stoppedMs = Date.now()
      })
      while (!signal.aborted) {
        if (written % 10 === 0) status(`step ${written / 10} @${Date.now()}`)
        await out.write(`line ${written++} @${Date.now()}\r\n`)
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
      await out.end(130)
      throw signal.reason
    },
  })
  await worker.ready()
  await each((page) => page.locator('.tidings-agents li[data-state="busy"]').waitFor())

  // How soon each line, and each status, is on both screens.
  await until(() => written >= LINES, 60_000)
  const last = `line ${LINES - 1} @`
  const has = (page: Page) => run<boolean>(page, `lines().some((line) => line.startsWith('${last}'))`)
  await each((page) => until(() => has(page)))
  const seen: Record<string, ReturnType<typeof figures>> = {}
  for (const [name, page] of [['Ann', ann] as const, ['Bob', bob] as const]) {
    for (const kind of ['line', 'step'] as const) {
      const delays = await run<[number, number][]>(page, `delays('${kind}')`)
      seen[`${kind}s of ${name}`] = figures(delays.map(([, delayMs]) => delayMs))
    }
    // All lines were drawn, not only the last of many.
    expect(seen[`lines of ${name}`]?.of).toBeGreaterThan(LINES * 0.9)
    expect(seen[`steps of ${name}`]?.of).toBeGreaterThan(LINES / 20)
  }
  console.info('from the agent to the screen in ms', seen)
  // A figure of the machine: on request only, where nothing else runs.
  if (process.env.TIDINGS_LATENCY) {
    for (const [what, { p99 }] of Object.entries(seen)) expect(p99, what).toBeLessThan(200)
  }
  expect(boards.flatMap(({ complaints }) => complaints)).toEqual([])

  const before = written
  await windows.broker.kill()
  await each((page) => page.locator('.tidings-connection[data-state="reconnecting"]').waitFor())
  await windows.startAgain()
  await until(() => written > before + 100)
  await each((page) => page.locator('.tidings-agents li[data-state="busy"]').waitFor())

  // Stopped by the other one.
  const askedMs = Date.now()
  await bob.getByRole('button', { name: 'Stop builder' }).click()
  await until(() => stoppedMs > 0)
  console.info('from the click to the agent in ms', stoppedMs - askedMs)
  await each((page) => page.locator('.tidings-agents li[data-state="idle"]').waitFor())
  await each((page) => page.locator('.tidings-terminal[data-state="closed"]').waitFor())

  // Every line, once and in order, for both.
  const want = Array.from({ length: written }, (_, n) => `line ${n}`)
  for (const page of [ann, bob]) {
    const lines = await run<string[]>(page, 'lines()')
    expect(lines.map((line) => line.replace(/ @\d+$/, ''))).toEqual(want)
  }
  await worker.close()
  await each((page) => page.locator('.tidings-agents li[data-state="offline"]').waitFor())
  await machine.close()
})
