// The parts in two windows, with a broker: both see the same, and what is done in one shows in the other.

import type { Page } from 'playwright-core'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createClient } from '../../../src/client.js'
import { run, tasksOf } from './bundle.js'
import { Windows } from './windows.js'

const WAIT = { timeout: 20_000 }
let windows: Windows

beforeAll(async () => {
  windows = await Windows.start('./live.tsx')
})
afterAll(() => windows?.close())

it('two windows stay in step, over a kill -9 of the broker too', async () => {
  const ann = await windows.open('Ann')
  const bob = await windows.open('Bob')
  const chat = (page: Page) => page.getByRole('log', { name: 'Messages' }).getByRole('listitem')
  const write = async (page: Page, text: string) => {
    await page.getByRole('textbox', { name: 'Write a message' }).fill(text)
    await page.keyboard.press('Enter')
  }
  for (const { page } of [ann, bob]) {
    const people = page.getByRole('list', { name: 'People' }).getByRole('listitem')
    await expect.poll(() => people.allTextContents().then((names) => names.sort()), WAIT).toEqual(['Ann', 'Bob'])
  }

  // Typing, and a message.
  await ann.page.getByRole('textbox', { name: 'Write a message' }).pressSequentially('Hel')
  await bob.page.getByText('Ann is typing…').waitFor()
  await write(ann.page, 'Hello')
  await chat(bob.page).getByText('Hello').waitFor()
  await ann.page.locator('.tidings-message[data-own="true"][data-state="sent"]').waitFor()
  expect(await bob.page.locator('.tidings-message').first().getAttribute('data-own')).toBe('false')

  // An operation is done in one window, watched in both, and cancelled in the other.
  await run(
    ann.page,
    `operation(client, 'import').start({ title: 'Import', of: 4 }).then((work) => { globalThis.work = work; work.progress(1) })`,
  )
  await bob.page.locator('[role="progressbar"][aria-valuenow="25"]').waitFor()
  await bob.page.getByRole('button', { name: 'Cancel Import' }).click()
  await ann.page.getByText(/^Cancell(ing…|ed)$/).waitFor()

  // A terminal is written in one window and drawn in both.
  await run(ann.page, `terminalWriter(client, 't1').write('\\x1b[32mline one\\x1b[0m\\n')`)
  for (const { page } of [ann, bob]) await page.locator('.xterm-rows').getByText('line one').waitFor()

  // Unread in both windows, read in one.
  await run(ann.page, `client.publish('users.team.notifications', { title: 'Build done' })`)
  for (const { page } of [ann, bob]) await page.getByText('1 unread').waitFor({ state: 'attached' })
  await ann.page.getByRole('button', { name: 'Notifications' }).click()
  await ann.page.getByRole('button', { name: 'Mark all as read' }).click()
  for (const { page } of [ann, bob]) await page.getByText('none unread').waitFor({ state: 'attached' })
  await ann.page.keyboard.press('Escape')

  // Up to here nothing was complained of; what follows, Chromium says of every refused connection.
  expect([...ann.complaints, ...bob.complaints]).toEqual([])

  // What is said last of the operation may still be on its way.
  for (const { page } of [ann, bob]) await expect.poll(() => run(page, 'client.status.outboxEvents'), WAIT).toBe(0)
  await windows.broker.kill()
  for (const { page } of [ann, bob]) await page.locator('.tidings-connection[data-state="reconnecting"]').waitFor()
  await ann.page.getByText('Connection lost').waitFor()
  await write(ann.page, 'one while away')
  await write(ann.page, 'two while away')
  await ann.page.locator('.tidings-message[data-state="pending"]').nth(1).waitFor()
  await ann.page.getByText('2 waiting to be sent').waitFor()
  await windows.startAgain()
  await ann.page.getByText('Connected again').waitFor()
  for (const { page } of [ann, bob]) {
    await chat(page).getByText('two while away').waitFor()
    const shown = await chat(page).allTextContents()
    expect(shown.map((text) => text.match(/Hello|one while away|two while away/)?.[0])).toEqual([
      'Hello',
      'one while away',
      'two while away',
    ])
    await expect.poll(() => page.locator('.tidings-message[data-state="pending"]').count(), WAIT).toBe(0)
    await expect.poll(() => page.locator('.tidings-outbox').textContent(), WAIT).toBe('')
  }
  const kinds = [...ann.complaints, ...bob.complaints].filter((complaint) => !complaint.includes('net::ERR_'))
  expect(kinds).toEqual([])

  // Strict Mode has left one subscription of each kind, and unmounting leaves none.
  const filters = () =>
    run<string[]>(
      ann.page,
      `client.subscriptions.map((s) => s.filters.join(' ') + (s.durable ? ' durable' : '')).sort()`,
    )
  const held = await filters()
  expect(held.filter((filter) => filter === 'terminals.t1')).toHaveLength(1)
  expect(held.filter((filter) => filter === 'users.team.notifications durable')).toHaveLength(1)
  expect(held.filter((filter) => filter === 'operations.import operations.import.control')).toHaveLength(1)
  expect(held.filter((filter) => filter === 'toasts.1')).toHaveLength(1)
  await run(ann.page, 'unmount()')
  await expect.poll(filters, WAIT).toEqual([])
  await ann.page.close()
  await bob.page.close()
})

it('the parts go on over every transport, and say which', async () => {
  const blocked = { sockets: true, streams: false }
  const ann = await windows.open('Ann', async (page) => {
    await page.routeWebSocket(/./, (socket) => {
      if (blocked.sockets) void socket.close()
      else socket.connectToServer()
    })
    await page.route('**/v1/events?*', (route, request) => {
      if (blocked.streams && request.headers().accept === 'text/event-stream') return route.abort()
      return route.continue()
    })
  })
  const bob = await windows.open('Bob')
  const over = (transport: string) => ann.page.locator(`.tidings-connection[data-transport="${transport}"]`).waitFor()
  const texts: string[] = []
  const say = async (from: Page, text: string) => {
    texts.push(text)
    await from.getByRole('textbox', { name: 'Write a message' }).fill(text)
    await from.keyboard.press('Enter')
    for (const { page } of [ann, bob]) {
      await page.getByRole('log', { name: 'Messages' }).getByText(text).waitFor()
    }
  }
  await over('sse')
  await ann.page.getByText('event stream').waitFor()
  // Which takes a stream, of which there are few, whatever else the page follows.
  await bob.page.getByRole('list', { name: 'People' }).getByText('Ann').waitFor()
  await say(ann.page, 'from the stream')
  await say(bob.page, 'to the stream')

  blocked.streams = true
  await ann.page.context().setOffline(true)
  await ann.page.locator('.tidings-connection[data-transport="none"]').waitFor()
  await ann.page.context().setOffline(false)
  await over('poll')
  await ann.page.getByText('long poll').waitFor()
  await say(ann.page, 'from the poll')
  await say(bob.page, 'to the poll')

  blocked.sockets = false
  await over('websocket')
  await say(ann.page, 'from the socket')
  await say(bob.page, 'to the socket')
  for (const { page } of [ann, bob]) {
    const shown = await page.getByRole('log', { name: 'Messages' }).getByRole('listitem').allTextContents()
    expect(shown.map((item) => texts.find((text) => item.includes(text))).filter(Boolean)).toEqual(texts)
  }
  await ann.page.close()
  await bob.page.close()
})

it('a message of our own is pending, then sent, then delivered when its reader has acknowledged it', async () => {
  const ann = await windows.open('Ann')
  const bob = createClient(windows.broker.url, { reconnect: { minMs: 50, maxMs: 200 } })
  const reader = bob.subscribe('chat.1', { durable: 'bob', ack: 'manual', types: ['message'] })
  await reader.ready()
  const mine = ann.page.locator('.tidings-message', { hasText: 'by receipt' })
  // Every state that the document has had, as it had it.
  await run(
    ann.page,
    `globalThis.states = []
    new MutationObserver(() => {
      const mine = [...document.querySelectorAll('.tidings-message')].find((item) => item.textContent.includes('by receipt'))
      const state = mine?.getAttribute('data-state')
      if (state && state !== states.at(-1)) states.push(state)
    }).observe(document, { subtree: true, childList: true, attributes: true })`,
  )
  await windows.broker.kill()
  await ann.page.locator('.tidings-connection[data-state="reconnecting"]').waitFor()
  await ann.page.getByRole('textbox', { name: 'Write a message' }).fill('by receipt')
  await ann.page.keyboard.press('Enter')
  await mine.and(ann.page.locator('[data-state="pending"]')).waitFor()
  await windows.startAgain()
  const next = await reader[Symbol.asyncIterator]().next()
  expect(next.value?.data).toMatchObject({ text: 'by receipt' })
  await mine.and(ann.page.locator('[data-state="sent"]')).waitFor()
  // The reader has it, and has not said so.
  expect(await run(ann.page, 'states')).toEqual(['pending', 'sent'])
  await reader.ack(next.value ?? 0)
  await mine.and(ann.page.locator('[data-state="delivered"]')).waitFor()
  expect(await run(ann.page, 'states')).toEqual(['pending', 'sent', 'delivered'])
  await bob.close()
  await ann.page.close()
})

it('a list takes 10,000 events a second from the broker', async () => {
  const { page, complaints } = await windows.open('load')
  const publisher = createClient(windows.broker.url, { outbox: { maxEvents: 50_000, maxBytes: 50_000_000 } })
  await publisher.ready()
  await windows.browser.startTracing(page, { categories: ['toplevel'] })
  const [rate, seconds, batch] = [10_000, 4, 500]
  const begin = Date.now()
  const answers: Promise<unknown>[] = []
  for (let sent = 0; sent < rate * seconds; sent += batch) {
    const events = Array.from({ length: batch }, (_, n) => ({ topic: `load.${n % 10}`, data: sent + n }))
    answers.push(publisher.publishBatch(events))
    const due = begin + ((sent + batch) * 1_000) / rate - Date.now()
    if (due > 0) await new Promise((resolve) => setTimeout(resolve, due))
  }
  await Promise.all(answers)
  const published = Date.now() - begin
  await page
    .locator('li:last-child')
    .getByText(`load.9 ${rate * seconds - 1}`)
    .waitFor()
  const shown = Date.now() - begin
  const tasks = tasksOf(await windows.browser.stopTracing())
  console.info('longest tasks in ms of the processor', tasks.slice(0, 5), { published, shown })
  expect(await page.locator('li').count()).toBe(200)
  // A figure of the machine: on request only, where nothing else runs.
  if (process.env.TIDINGS_FRAMES) expect(tasks[0]).toBeLessThan(50)
  expect(complaints).toEqual([])
  await publisher.close()
  await page.close()
})
