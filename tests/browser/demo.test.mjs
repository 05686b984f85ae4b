// The demo app in a real browser against the real broker, in two windows: nothing is lost and nothing comes twice, through
// a cut network, a broker that is killed, another transport, and windows that are closed at their work.
//
// TIDINGS_BIN names the broker, CHROMIUM the browser; SCREENSHOT=1 writes docs/demo*.png.

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { chromium } from 'playwright-core'
import { CHROMIUM, ROOT, kill, start, stopAll } from './broker.mjs'

const PATIENCE_MS = 90_000
// That nobody answered while the broker was dead is the browser's to say, and nothing else is.
const REFUSED = /ERR_CONNECTION|ERR_EMPTY_RESPONSE|closed before/

let browser
let context
/** What the windows of a test have complained of and asked for. */
let seen

before(async () => {
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] })
})

after(async () => {
  await browser?.close()
  await stopAll()
})

beforeEach(async () => {
  seen = { complaints: [], requests: [] }
  context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: 'reduce' })
  context.setDefaultTimeout(PATIENCE_MS)
  await context.exposeFunction('violated', (what) => seen.complaints.push(`CSP: ${what}`))
  await context.addInitScript(() => {
    addEventListener('securitypolicyviolation', (event) => {
      window.violated(`${event.violatedDirective} ${event.blockedURI}`)
    })
  })
})

afterEach(() => context?.close())

/** Opens a window, and notes everything the browser complains of and asks for. */
async function open({ listen }) {
  const page = await context.newPage()
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) seen.complaints.push(message.text())
  })
  page.on('pageerror', (error) => seen.complaints.push(String(error)))
  page.on('request', (request) => seen.requests.push(request.url()))
  page.on('websocket', (socket) => seen.requests.push(socket.url()))
  await page.goto(`http://${listen}/`)
  await says(page, 'Connected')
  return page
}

/** Nothing was complained of, and nobody else was asked. */
function clean({ listen }, allowed) {
  assert.deepEqual(seen.complaints.filter((text) => !allowed?.test(text)), [])
  const ours = [`http://${listen}/`, `ws://${listen}/v1/ws`]
  const api = `http://${listen}/v1/`
  const foreign = seen.requests.filter((url) => !ours.includes(url) && !url.startsWith(api) && !url.startsWith('data:'))
  assert.deepEqual(foreign, [])
}

const pane = (page, name) => page.getByRole('region', { name, exact: true })
const press = (page, where, name) => pane(page, where).getByRole('button', { name }).first().click()

/** Waits until the connection panel says this. */
const says = (page, text) => pane(page, 'Connection').locator('.tidings-connection', { hasText: text }).waitFor()

/** Waits until a function of the page's document gives true; says what there was where it never does. */
async function until(page, what, ...args) {
  try {
    await page.waitForFunction(what, ...args)
  } catch (cause) {
    throw new Error(`${what} ${JSON.stringify(args)} never came, but\n${await page.innerText('body')}`, { cause })
  }
}

/** Waits until the counters with these names say these numbers. */
const counts = (page, wanted) =>
  until(
    page,
    (wanted) =>
      Object.entries(wanted).every(
        ([name, count]) => document.querySelector(`[data-count="${name}"]`)?.textContent === String(count),
      ),
    wanted,
  )

const all = (count) => ({ published: count, stored: count, received: count, 'on the way': 0, doubled: 0, 'out of order': 0 })

/** All events that match, from the log itself. */
async function logged({ listen }, filter) {
  const found = []
  for (let after = 0; ; ) {
    const read = await fetch(`http://${listen}/v1/topics/${encodeURIComponent(filter)}/events?after=${after}&limit=1000`)
    const { events, cursor, last } = await read.json()
    found.push(...events)
    if (cursor >= last || cursor === after) return found
    after = cursor
  }
}

/** Whether so many events are in the outbox that outlives the page: until the browser has them there, they do not. */
async function kept(count) {
  const answer = (request) =>
    new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result)
      request.onerror = () => reject(request.error)
    })
  const database = await answer(indexedDB.open('tidings-demo'))
  const found = await answer(database.transaction('outbox').objectStore('outbox').count())
  database.close()
  return found === count
}

/** Which window runs what: only this one does. */
async function only(one, others, where, name) {
  for (const page of others) await pane(page, where).getByRole('checkbox', { name }).uncheck()
  await pane(one, where).getByRole('checkbox', { name }).check()
}

test('the page is sealed, and only there where it is asked for', async () => {
  const demo = await start({ data: 'sealed' })
  const response = await fetch(`http://${demo.listen}/`)
  assert.equal(response.status, 200)
  assert.equal(response.headers.get('content-type'), 'text/html; charset=utf-8')
  assert.equal(response.headers.get('x-content-type-options'), 'nosniff')
  assert.equal(response.headers.get('referrer-policy'), 'no-referrer')
  const policy = response.headers.get('content-security-policy')
  for (const rule of ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"]) {
    assert.ok(policy.includes(rule), policy)
  }
  assert.match(policy, /script-src 'nonce-[0-9a-f]{64}'; style-src 'nonce-[0-9a-f]{64}'/)
  assert.ok((await response.text()).length < 900_000, 'the page stays small')
  assert.equal((await fetch(`http://${demo.listen}/`, { method: 'HEAD' })).status, 200)
  assert.equal((await fetch(`http://${demo.listen}/`, { method: 'POST' })).status, 405)
  assert.equal((await fetch(`http://${demo.admin}/`)).status, 404)
  await kill(demo)
  const plain = await start({ data: 'sealed', flags: [] })
  assert.equal((await fetch(`http://${plain.listen}/`)).status, 404)
  await kill(plain)
})

test('nothing is lost and nothing doubled through a cut network, a killed broker and a reload', async () => {
  let broker = await start({ data: 'numbers' })
  const { listen, admin } = broker
  const [one, other] = [await open(broker), await open(broker)]
  const publish = (page) => press(page, 'Log', 'Publish 100')
  await publish(one)
  await publish(other)
  await counts(one, all(100))
  await counts(other, all(100))

  // One is cut off, and the other goes on.
  const cut = pane(one, 'Connection').getByRole('button', { name: 'Cut the network' })
  await cut.click()
  await says(one, 'Reconnecting')
  await publish(one)
  await counts(one, { published: 200, stored: 100, received: 100 })
  await publish(other)
  await counts(other, all(200))
  clean(broker)

  // Killed with as much under way as there happens to be.
  await publish(other)
  await kill(broker)
  await says(other, 'Reconnecting')
  await publish(other)
  await counts(other, { published: 400 })
  await pane(one, 'Connection').getByRole('button', { name: 'Restore the network' }).click()
  await publish(one)
  await counts(one, { published: 300, received: 100 })
  broker = await start({ data: 'numbers', listen, admin })
  await counts(one, all(300))
  await counts(other, all(400))
  assert.equal(await pane(one, 'Connection').getByText('0 events').count(), 1, 'the outbox is empty')

  // What a page has published and not got rid of is sent by the next one.
  await cut.click()
  await says(one, 'Reconnecting')
  await publish(one)
  await until(one, kept, 100)
  await one.reload()
  await says(one, 'Connected')
  await pane(one, 'Log').getByLabel('Filter').fill('numbers.demo')
  await press(one, 'Log', 'Show')
  await until(one, () => document.querySelector('.tail td:last-child')?.textContent.includes('"n":400'))
  const offsets = (await pane(one, 'Log').locator('tbody td:first-child').allTextContents()).map(Number)
  assert.equal(offsets.length, 200, 'the newest stay in the page')
  assert.ok(offsets.every((offset, at) => at === 0 || offset < offsets[at - 1]), `the newest first: ${offsets}`)

  const sources = new Map()
  for (const { data } of await logged(broker, 'numbers.demo')) {
    sources.set(data.from, [...(sources.get(data.from) ?? []), data.n])
  }
  assert.deepEqual([...sources.values()].map((numbers) => numbers.length).sort(), [400, 400])
  for (const numbers of sources.values()) {
    assert.deepEqual(numbers, Array.from({ length: 400 }, (_, at) => at + 1), 'each once, in the order of the window')
  }
  clean(broker, REFUSED)
  await kill(broker)
})

test('what is published by hand is in the log of both windows, and what is refused says so', async () => {
  const broker = await start({ data: 'by-hand' })
  const [one, other] = [await open(broker), await open(broker)]
  const publish = async (topic, data) => {
    await pane(one, 'Log').getByLabel('Topic').fill(topic)
    await pane(one, 'Log').getByLabel('Data', { exact: true }).fill(data)
    await pane(one, 'Log').getByRole('button', { name: 'Publish', exact: true }).click()
  }
  await pane(other, 'Log').getByLabel('Filter').fill('other.*')
  await press(other, 'Log', 'Show')
  await publish('other.json', '{"a":1}')
  await publish('other.text', 'no JSON <b>1</b>')
  const rows = pane(other, 'Log').locator('tbody tr')
  await rows.nth(1).waitFor()
  const cells = await rows.evaluateAll((rows) => rows.map(({ cells }) => [...cells].slice(1).map((cell) => cell.textContent)))
  assert.deepEqual(cells, [
    ['other.text', 'message', '"no JSON <b>1</b>"'],
    ['other.json', 'message', '{"a":1}'],
  ])
  await publish('no topic', '1')
  await pane(one, 'Log').getByText(/^Refused: /).waitFor()
  await pane(other, 'Log').getByLabel('Filter').fill('a..b')
  await press(other, 'Log', 'Show')
  await pane(other, 'Log').getByText(/^Refused: /).waitFor()
  clean(broker)
  await kill(broker)
})

test('answers and batches lost on the way cost nothing', async () => {
  const broker = await start({ data: 'lossy' })
  const lost = { answers: 0, batches: 0 }
  await context.routeWebSocket('**/v1/ws', (socket) => {
    const server = socket.connectToServer()
    server.onMessage((text) => {
      const { published, events } = JSON.parse(text)
      if (published && lost.answers < 50) {
        // All are stored, and the page does not hear of it.
        lost.answers += 1
        if (lost.answers === 50) server.close().then(() => socket.close({ code: 1001 }))
      } else if (events?.events.some(({ topic }) => topic === 'numbers.demo') && lost.batches === 0) {
        lost.batches += 1
      } else socket.send(text)
    })
  })
  const page = await open(broker)
  await press(page, 'Log', 'Publish 100')
  await counts(page, all(100))
  assert.deepEqual(lost, { answers: 50, batches: 1 })
  const numbers = (await logged(broker, 'numbers.demo')).map(({ data }) => data.n)
  assert.deepEqual(numbers, Array.from({ length: 100 }, (_, at) => at + 1), 'sent twice is stored once')
  await kill(broker)
})

test('another log is another state, and the page goes on with it', async () => {
  let broker = await start({ data: 'one-log' })
  const { listen, admin } = broker
  const page = await open(broker)
  await press(page, 'Log', 'Publish 100')
  await counts(page, all(100))
  await pane(page, 'Plan').getByLabel('Title').fill('Of the first log')
  await pane(page, 'Plan').getByText(/^As of offset \d+$/).waitFor()
  await kill(broker)
  broker = await start({ data: 'another-log', listen, admin })
  await until(page, () => document.querySelector('.pane-plan input')?.value === '')
  await press(page, 'Log', 'Publish 100')
  await counts(page, all(200))
  clean(broker, REFUSED)
  await kill(broker)
})

test('a message, who types it, and an answer word by word are in both windows', async () => {
  const broker = await start({ data: 'chat' })
  const [one, other] = [await open(broker), await open(broker)]
  await one.getByLabel('This window is').fill('Ann')
  await one.getByLabel('This window is').press('Enter')
  await other.getByLabel('People').getByText('Ann').waitFor()

  const field = pane(one, 'Chat').getByLabel('Write a message')
  await field.pressSequentially('Good morning')
  await pane(other, 'Chat').getByText('Ann is typing…').waitFor()
  await field.press('Enter')
  const message = pane(other, 'Chat').locator('.tidings-message', { hasText: 'Good morning' })
  await message.getByText('Ann').waitFor()
  await pane(other, 'Chat').getByText('Ann is typing…').waitFor({ state: 'detached' })

  await only(other, [one], 'Chat', 'The assistant answers')
  await field.fill('What is an offset?')
  await press(one, 'Chat', 'Ask the assistant')
  const answer = (page) => pane(page, 'Chat').locator('.tidings-message', { hasText: 'Assistant' })
  for (const page of [one, other]) await answer(page).and(page.locator('[data-state="streaming"]')).waitFor()
  await answer(one).getByText(/place in one log\. Offsets/).waitFor()

  // In the middle of it the window that writes is closed: the next one goes on there.
  await other.close()
  assert.equal(await answer(one).getAttribute('data-state'), 'streaming')
  await only(one, [], 'Chat', 'The assistant answers')
  await answer(one).and(one.locator('[data-state="received"]')).waitFor()
  const late = await open(broker)
  await answer(late).and(late.locator('[data-state="received"]')).waitFor()
  const texts = await Promise.all([one, late].map((page) => answer(page).innerText()))
  assert.equal(texts[0], texts[1], 'whoever comes late reads the same')
  assert.match(texts[0], /Every event has an offset: its place in one log\. Offsets rise .* read on after that number\./)
  assert.equal(texts[0].match(/Offsets rise/g).length, 1)
  const chunks = (await logged(broker, 'rooms.demo')).filter(({ type }) => type === 'message.chunk')
  assert.deepEqual(chunks.map(({ data }) => data.seq), chunks.map((_, at) => at), 'every chunk is in the log once')
  clean(broker)
  await kill(broker)
})

test('a structure that both windows edit at once comes out the same', async () => {
  const broker = await start({ data: 'plan' })
  const pages = [await open(broker), await open(broker)]
  const [one, other] = pages
  const plan = (page) =>
    page.evaluate(() => {
      const values = [...document.querySelectorAll('.pane-plan input')].map(({ type, value, checked }) =>
        type === 'checkbox' ? checked : value,
      )
      return JSON.stringify([values, document.querySelector('.pane-plan output').textContent])
    })
  const addAndVote = async (page) => {
    await press(page, 'Plan', 'Add a step')
    for (let n = 0; n < 5; n += 1) await press(page, 'Plan', 'Vote for it')
  }
  const write = async (page, label, text) => {
    const field = pane(page, 'Plan').getByLabel(label, { exact: true })
    await field.press('End')
    await field.pressSequentially(text)
  }

  await Promise.all(pages.map(addAndVote))
  for (const page of pages) {
    await pane(page, 'Plan').getByText('10 votes').waitFor()
    await pane(page, 'Plan').getByLabel('Step 2', { exact: true }).waitFor()
  }
  await Promise.all([write(one, 'Title', 'Both at once'), write(other, 'Step 2', 'from the other')])

  // One of them cut off, both go on.
  await press(one, 'Connection', 'Cut the network')
  await says(one, 'Reconnecting')
  await write(one, 'Step 1', 'while cut off')
  await write(one, 'Title', ', and cut off')
  await pane(other, 'Plan').getByLabel('Step 2 is done').check()
  await press(other, 'Plan', 'Move step 2 up')
  await pane(other, 'Plan').getByLabel('Step 1 is done').and(other.locator(':checked')).waitFor()
  await press(one, 'Connection', 'Restore the network')
  const wanted = JSON.stringify([
    ['Both at once, and cut off', true, 'from the other', false, 'while cut off'],
    '10 votes',
  ])
  for (const page of pages) {
    const deadline = Date.now() + PATIENCE_MS
    while ((await plan(page)) !== wanted) assert.ok(Date.now() < deadline, `${await plan(page)} is not ${wanted}`)
  }
  await press(other, 'Plan', 'Remove step 1')
  await pane(one, 'Plan').getByLabel('Step 2', { exact: true }).waitFor({ state: 'detached' })
  clean(broker)
  await kill(broker)
})

test('tasks run, fail, time out, are tried again and cancelled, in both windows', async () => {
  const broker = await start({ data: 'tasks' })
  const [one, other] = [await open(broker), await open(broker)]
  const task = (page, title) => pane(page, 'Task board').getByRole('listitem').filter({ hasText: title })
  const stands = (page, title, words, more = '') =>
    task(page, title).filter({ hasText: words }).filter({ hasText: more }).first().waitFor()
  const worker = 'A worker runs in this window'

  // It waits for somebody who does it.
  for (const page of [one, other]) await pane(page, 'Task board').getByRole('checkbox', { name: worker }).uncheck()
  await press(one, 'Task board', 'Import 60 rows')
  for (const page of [one, other]) await stands(page, 'Import', 'Waiting for a worker')
  await only(other, [one], 'Task board', worker)
  for (const page of [one, other]) {
    await stands(page, 'Import', 'Running')
    await until(page, () => Number(document.querySelector('.task [role=progressbar]')?.getAttribute('aria-valuenow')) > 10)
  }
  // Its window is closed in the middle of it: the next worker begins anew.
  await other.close()
  await only(one, [], 'Task board', worker)
  await stands(one, 'Import', 'Done', 'try 2')

  const third = await open(broker)
  await press(one, 'Task board', 'Fetch from a shaky source')
  for (const page of [one, third]) await stands(page, 'Fetch', 'Failed', 'The source did not answer')
  // Asked for in both, neither of which knows of the other, it is tried again once.
  for (const page of [one, third]) {
    await press(page, 'Connection', 'Cut the network')
    await task(page, 'Fetch').getByRole('button', { name: 'Try again' }).click()
  }
  for (const page of [one, third]) await press(page, 'Connection', 'Restore the network')
  for (const page of [one, third]) await stands(page, 'Fetch', 'Done', 'try 2')
  const seconds = (await logged(broker, 'jobs.*')).filter(({ data }) => data.kind === 'flaky' && data.attempt === 2)
  assert.equal(seconds.length, 1)

  await press(one, 'Task board', 'Count every grain of sand')
  for (const page of [one, third]) await stands(page, 'Count', 'Timed out')
  await task(third, 'Count').getByRole('button', { name: 'Try again' }).click()
  for (const page of [one, third]) await stands(page, 'Count', 'Running', 'try 2')
  await task(third, 'Count').getByRole('button', { name: 'Cancel' }).click()
  for (const page of [one, third]) await stands(page, 'Count', 'Cancelled', 'try 2')
  clean(broker)
  await kill(broker)
})

test('an agent runs in one window, is told and stopped from the other, on every transport', async () => {
  const broker = await start({ data: 'agents' })
  const [one, other] = [await open(broker), await open(broker)]
  const agents = (page) => pane(page, 'Agents').getByRole('list', { name: 'Agents' })
  const builder = (page, state) => agents(page).locator(`[data-state="${state}"]`, { hasText: 'builder' }).waitFor()
  const run = (page, name) => pane(page, 'Agents').getByRole('radio', { name }).check()
  const tell = (page, line) => pane(page, 'Agents').getByRole('button', { name: line, exact: true }).click()
  const screen = (page) => page.locator('.xterm-accessibility-tree > div').allTextContents()
  const shows = (page, text) =>
    until(page, (text) => [...document.querySelectorAll('.xterm-accessibility-tree > div')].some((row) => row.textContent.includes(text)), text)

  await run(other, 'builder')
  await builder(one, 'online')
  await tell(one, 'build')
  await builder(one, 'busy')
  for (const page of [one, other]) await shows(page, 'Compiling proto......')

  // What is told while it is away waits.
  await run(other, 'tester')
  await builder(one, 'offline')
  await agents(one).locator('[data-state="online"]', { hasText: 'tester' }).waitFor()
  await tell(one, 'count 500')
  await run(one, 'builder')
  for (const page of [one, other]) await shows(page, '$ count 500')
  await shows(one, 'built')

  // While it writes, one window goes down to a long poll and up again.
  const transport = (name) => pane(other, 'Connection').getByRole('radio', { name }).check()
  for (const name of ['event stream', 'long poll', 'event stream', 'WebSocket']) {
    const before = (await logged(broker, 'terminals.builder')).length
    await transport(name)
    await says(other, name)
    await until(other, (count) => Number(document.querySelector('.tail td')?.textContent) > count, before)
  }
  await builder(other, 'busy')
  await agents(other).getByRole('button', { name: 'Stop builder' }).click()
  for (const page of [one, other]) {
    await builder(page, 'idle')
    await shows(page, '^C')
  }
  const [left, right] = [await screen(one), await screen(other)]
  assert.deepEqual(left, right, 'both show the same')
  const numbers = left.filter((row) => /^\d/.test(row)).join(' ').trim().split(/\s+/).filter((word) => /^\d+$/.test(word)).map(Number)
  assert.ok(numbers.length > 10, `${left}`)
  assert.ok(numbers.every((number, at) => number === numbers[0] + at), `${numbers}`)
  clean(broker)
  await kill(broker)
})

test('notifications are counted and read in all windows in step', async () => {
  const broker = await start({ data: 'inbox' })
  const [one, other] = [await open(broker), await open(broker)]
  const badge = (page, text) => page.locator('header .tidings-badge', { hasText: text }).waitFor()
  const unread = (page, text) => page.locator('header').getByText(text, { exact: true }).waitFor()
  await press(one, 'Notices', 'Notify')
  await press(other, 'Notices', 'Notify urgently')
  await press(one, 'Notices', 'Notify in five seconds')
  for (const page of [one, other]) {
    await page.getByRole('alert').getByText('Urgent 1').waitFor()
    await badge(page, '3')
  }
  await one.locator('header').getByRole('button', { name: 'Notifications' }).click()
  await one.locator('header').getByRole('button', { name: 'Mark as read' }).first().click()
  for (const page of [one, other]) await badge(page, '2')
  await other.locator('header').getByRole('button', { name: 'Notifications' }).click()
  await other.locator('header').getByRole('button', { name: 'Mark all as read' }).click()
  for (const page of [one, other]) await unread(page, 'none unread')
  const late = await open(broker)
  await unread(late, 'none unread')
  await late.locator('header').getByRole('button', { name: 'Notifications' }).click()
  await late.locator('header').getByText('Reminder 2').waitFor()
  clean(broker)
  await kill(broker)
})

test('a slow line is slow, and loses nothing', async () => {
  const broker = await start({ data: 'slow' })
  const page = await open(broker)
  await pane(page, 'Connection').getByLabel('Speed').selectOption({ label: 'slow: 300 ms, 20 kB/s' })
  const began = Date.now()
  await press(page, 'Log', 'Publish 100')
  await counts(page, all(100))
  // There and back, and what comes has more than 100 bytes each.
  assert.ok(Date.now() - began > 600 + 10_000 / 20, `${Date.now() - began} ms`)
  await press(page, 'Log', 'Publish 100')
  await pane(page, 'Connection').getByLabel('Speed').selectOption({ label: 'as fast as it goes' })
  await counts(page, all(200))
  clean(broker)
  await kill(broker)
})

test('it can be read and used by everybody, at every width', async () => {
  const broker = await start({ data: 'looks' })
  const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
  const [page, other] = [await open(broker), await open(broker)]
  for (const [window, name] of [[page, 'Ann'], [other, 'Bob']]) {
    await window.getByLabel('This window is').fill(name)
    await window.getByLabel('This window is').press('Enter')
    await page.getByLabel('People').getByText(name).waitFor()
  }
  await pane(other, 'Agents').getByRole('radio', { name: 'builder' }).check()
  await pane(page, 'Agents').getByRole('button', { name: 'build', exact: true }).click()
  await pane(other, 'Chat').getByLabel('Write a message').fill('Shall we publish it?')
  await pane(other, 'Chat').getByLabel('Write a message').press('Enter')
  await pane(page, 'Chat').getByText('Shall we publish it?').waitFor()
  await pane(page, 'Plan').getByLabel('Title').fill('A release')
  for (const [at, text] of ['Read the log', 'Cut the network', 'Publish it'].entries()) {
    await press(page, 'Plan', 'Add a step')
    await pane(page, 'Plan').getByLabel(`Step ${at + 1}`, { exact: true }).fill(text)
  }
  await pane(page, 'Plan').getByLabel('Step 1 is done').check()
  await pane(page, 'Chat').getByLabel('Write a message').fill('What happens when the broker is killed?')
  await press(page, 'Chat', 'Ask the assistant')
  for (const name of ['Fetch', 'Count', 'Import']) await press(page, 'Task board', name)
  await press(page, 'Log', 'Publish 100')
  await pane(page, 'Task board').getByText('Timed out').waitFor()
  await pane(page, 'Chat').locator('[data-state="received"]', { hasText: 'Assistant' }).waitFor()
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [1280, 390]) {
      await page.setViewportSize({ width, height: width === 390 ? 844 : 1000 })
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
      assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= width, `no wider than ${width}`)
      await page.evaluate(axe)
      // The inside of xterm is not ours.
      const { violations } = await page.evaluate(() =>
        window.axe.run({ exclude: ['.xterm'] }, { resultTypes: ['violations'] }),
      )
      const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => html + failureSummary)}`)
      assert.deepEqual(found, [], `${colorScheme} at ${width}`)
      if (process.env.SCREENSHOT !== '1') continue
      const name = width === 390 ? (colorScheme === 'light' ? 'demo-phone' : undefined) : { light: 'demo', dark: 'demo-dark' }[colorScheme]
      if (!name) continue
      await page.evaluate(() => scrollTo(0, 0))
      await page.screenshot({ path: join(ROOT, `docs/${name}.png`), fullPage: width !== 390 })
    }
  }
  clean(broker)
  await kill(broker)
})
