// The demo page in a real browser against the real broker: nothing is lost and nothing comes twice,
// through a cut network and a broker that is killed.
//
// TIDINGS_BIN names the broker, CHROMIUM the browser; SCREENSHOT=1 writes docs/demo.png.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { chromium } from 'playwright-core'
import { CHROMIUM, ROOT, kill, start, stopAll } from './broker.mjs'

const PATIENCE_MS = 60_000

let browser

before(async () => {
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] })
})

after(async () => {
  await browser?.close()
  await stopAll()
})

/** Opens the page and notes everything the browser complains of and asks for. */
async function open(address) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } })
  page.setDefaultTimeout(PATIENCE_MS)
  const seen = { complaints: [], requests: [] }
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) seen.complaints.push(message.text())
  })
  page.on('pageerror', (error) => seen.complaints.push(String(error)))
  page.on('request', (request) => seen.requests.push(request.url()))
  page.on('websocket', (socket) => seen.requests.push(socket.url()))
  await page.exposeFunction('violated', (what) => seen.complaints.push(`CSP: ${what}`))
  await page.addInitScript(() => {
    addEventListener('securitypolicyviolation', (event) => {
      window.violated(`${event.violatedDirective} ${event.blockedURI}`)
    })
  })
  const response = await page.goto(`http://${address}/`)
  return { page, seen, response }
}

/** Waits until the counters with these names say these numbers. */
async function counters(page, wanted) {
  try {
    await page.waitForFunction((wanted) => Object.entries(wanted).every(([name, count]) =>
      document.getElementById(name).textContent === String(count)), wanted)
  } catch (error) {
    throw new Error(`${JSON.stringify(wanted)} never came, but\n${await page.innerText('body')}`, { cause: error })
  }
}

const said = (page, title, text) =>
  page.getByRole('region', { name: title }).getByRole('status').filter({ hasText: text }).first().waitFor()

/** What a list shows, the oldest first. */
const rows = (page, id) => page.locator(`#${id} tr`).evaluateAll((rows) => rows.reverse().map((row) =>
  ({ id: row.dataset.id, cells: [...row.cells].map((cell) => cell.textContent) })))

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
  assert.equal((await fetch(`http://${demo.listen}/`, { method: 'HEAD' })).status, 200)
  assert.equal((await fetch(`http://${demo.listen}/`, { method: 'POST' })).status, 405)
  assert.equal((await fetch(`http://${demo.admin}/`)).status, 404)
  await kill(demo)
  const plain = await start({ data: 'sealed', flags: [] })
  assert.equal((await fetch(`http://${plain.listen}/`)).status, 404)
  await kill(plain)
})

test('nothing is lost through a cut network and a killed broker', async () => {
  let broker = await start({ data: 'demo' })
  const { listen, admin } = broker
  const { page, seen } = await open(listen)
  await said(page, 'Publisher', 'connected')
  await said(page, 'Subscriber', 'live')

  await page.getByRole('button', { name: 'Send 100' }).click()
  await counters(page, { published: 100, stored: 100, received: 100, missing: 0 })

  const cut = page.getByRole('button', { name: 'Cut the network' })
  await cut.click()
  await said(page, 'Subscriber', 'cut by you')
  assert.equal(await cut.getAttribute('aria-pressed'), 'true')
  assert.deepEqual(seen.complaints, [])

  // Killed with as much under way as there happens to be.
  await page.getByRole('button', { name: 'Send 100' }).click()
  await kill(broker)
  await said(page, 'Publisher', 'trying again')
  assert.equal(await page.locator('#received').textContent(), '100', 'the cut holds')

  const data = page.getByLabel('Data')
  const press = async (times) => {
    for (let n = 0; n < times; n += 1) await data.press('Enter')
  }
  await press(10)
  await counters(page, { published: 210 })
  ;[broker] = await Promise.all([start({ data: 'demo', listen, admin }), press(40)])
  await counters(page, { published: 250, stored: 250, received: 100, missing: 150 })

  // That nobody answered while the broker was dead is the browser's to say, and nothing else is.
  const refused = /^WebSocket connection to '\S+' failed: .*(ERR_CONNECTION|closed before)/
  assert.deepEqual(seen.complaints.filter((text) => !refused.test(text)), [])
  seen.complaints.length = 0

  await cut.press('Space')
  await said(page, 'Subscriber', 'live')
  await counters(page, { published: 250, stored: 250, received: 250, missing: 0 })

  const events = await rows(page, 'events')
  const offsets = events.map(({ cells }) => Number(cells[0]))
  assert.equal(offsets.length, 250, 'an event a row, and no gap')
  assert.ok(offsets.every((offset, n) => n === 0 || offset > offsets[n - 1]), `offsets rise: ${offsets}`)
  assert.equal(new Set(events.map(({ id }) => id)).size, 250, 'none comes twice')
  const numbers = events.map(({ cells }) => JSON.parse(cells[3]).n)
  assert.deepEqual(numbers, Array.from({ length: 250 }, (_, n) => n + 1), 'in the order they were sent')

  const outbox = await rows(page, 'outbox')
  assert.equal(outbox.length, 150, 'the newest stay in the page')
  assert.ok(outbox.every(({ cells }) => /^stored at \d+$/.test(cells[3])))
  const stored = new Map(events.map(({ id, cells }) => [id, `stored at ${cells[0]}`]))
  assert.ok(outbox.every(({ id, cells }) => stored.get(id) === cells[3]), 'both sides name the same offset')

  const log = await (await fetch(`http://${listen}/v1/topics/greetings.%3E/events?after=0&limit=1000`)).json()
  assert.deepEqual(log.events.map(({ offset }) => offset), offsets, 'the log holds these and no others')

  assert.deepEqual(seen.complaints, [])
  const ours = [`http://${listen}/`, `ws://${listen}/v1/ws`]
  assert.deepEqual(seen.requests.filter((url) => !ours.includes(url) && !url.startsWith('data:')), [])
  if (process.env.SCREENSHOT === '1') await page.screenshot({ path: join(ROOT, 'docs/demo.png') })
  await page.close()
  await kill(broker)
})

test('the page stays small, and another filter begins anew', async () => {
  const broker = await start({ data: 'small' })
  const { page, seen } = await open(broker.listen)
  await said(page, 'Subscriber', 'live')
  for (let n = 0; n < 6; n += 1) await page.getByRole('button', { name: 'Send 100' }).click()
  await counters(page, { published: 600, stored: 600, received: 600, missing: 0 })
  assert.equal((await rows(page, 'events')).length + (await rows(page, 'outbox')).length, 500)

  await page.getByLabel('Filter').fill('other.*')
  await page.getByLabel('Filter').press('Enter')
  await said(page, 'Subscriber', 'live')
  await counters(page, { stored: 600, received: 0, missing: 0 })
  await page.getByLabel('Topic').fill('other.text')
  await page.getByLabel('Data').fill('no JSON <b>%n</b>')
  await page.getByRole('button', { name: 'Send', exact: true }).click()
  await counters(page, { stored: 601, received: 1, missing: 0 })
  assert.equal((await rows(page, 'events'))[0].cells[3], 'no JSON <b>601</b>')

  await page.getByLabel('Filter').fill('>')
  await page.getByLabel('from the first event').check()
  await page.getByRole('button', { name: 'Subscribe anew' }).click()
  await counters(page, { stored: 601, received: 601, missing: 0 })

  await page.getByLabel('Topic').fill('no topic')
  await page.getByRole('button', { name: 'Send', exact: true }).click()
  await page.locator('#outbox .refused').waitFor()
  await page.getByLabel('Filter').fill('a..b')
  await page.getByRole('button', { name: 'Subscribe anew' }).click()
  await said(page, 'Subscriber', 'refused')
  assert.deepEqual(seen.complaints, [])
  await page.close()
  await kill(broker)
})

test('another log is said, not passed over', async () => {
  let broker = await start({ data: 'one-log' })
  const { listen, admin } = broker
  const { page } = await open(listen)
  await said(page, 'Subscriber', 'live')
  await page.getByRole('button', { name: 'Send 100' }).click()
  await counters(page, { stored: 100, received: 100 })
  await kill(broker)
  broker = await start({ data: 'another-log', listen, admin })
  await page.locator('#events .gap', { hasText: 'log_changed' }).waitFor()
  await said(page, 'Publisher', 'connected')
  await page.getByRole('button', { name: 'Send 100' }).click()
  await counters(page, { published: 200, stored: 200, received: 200, missing: 0 })
  await page.close()
  await kill(broker)
})

test('answers and batches lost on the way cost nothing', async () => {
  const broker = await start({ data: 'lossy' })
  const page = await browser.newPage()
  page.setDefaultTimeout(PATIENCE_MS)
  const lost = { answers: 0, batches: 0 }
  await page.routeWebSocket('**/v1/ws', (socket) => {
    const server = socket.connectToServer()
    server.onMessage((text) => {
      const { published, events } = JSON.parse(text)
      if (published && lost.answers < 100) {
        // All hundred are stored, and the page does not hear of it.
        lost.answers += 1
        if (lost.answers === 100) server.close().then(() => socket.close({ code: 1001 }))
      } else if (events?.events.length > 0 && lost.batches === 0) {
        lost.batches += 1
      } else socket.send(text)
    })
  })
  await page.goto(`http://${broker.listen}/`)
  await said(page, 'Subscriber', 'live')
  await said(page, 'Publisher', 'connected')
  await page.getByRole('button', { name: 'Send 100' }).click()
  await counters(page, { published: 100, stored: 100 })
  await page.getByRole('button', { name: 'Send', exact: true }).click()
  await counters(page, { published: 101, stored: 101, received: 101, missing: 0 })
  assert.deepEqual(lost, { answers: 100, batches: 1 })
  const read = await fetch(`http://${broker.listen}/v1/topics/greetings.%3E/events?after=0&limit=1000`)
  const numbers = (await read.json()).events.map(({ data }) => data.n)
  assert.deepEqual(numbers, Array.from({ length: 101 }, (_, n) => n + 1), 'sent twice is stored once')
  await page.close()
  await kill(broker)
})
