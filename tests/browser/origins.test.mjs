// A page of another origin in a real browser: it may neither change nor read anything, unless the broker allows its
// origin.
//
// TIDINGS_BIN names the broker, CHROMIUM the browser.

import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { after, before, test } from 'node:test'
import { chromium } from 'playwright-core'
import { CHROMIUM, start, stopAll } from './broker.mjs'

let browser, pages, origin

before(async () => {
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] })
  pages = createServer((_, response) => response.setHeader('content-type', 'text/html').end('<title>elsewhere</title>'))
  await new Promise((resolve) => pages.listen(0, '127.0.0.1', resolve))
  origin = `http://127.0.0.1:${pages.address().port}`
})

after(async () => {
  await browser?.close()
  pages?.close()
  await stopAll()
})

/** What a page gets of a broker: `true` for each door that let it in. Runs in the page. */
async function tryAll(broker) {
  const outcome = (promise) => promise.then((is) => is, () => false)
  const json = { 'content-type': 'application/json' }
  const publish = (options) => fetch(`http://${broker}/v1/events`, {
    method: 'POST', body: '{"topic":"a","data":1}', ...options,
  })
  return {
    socket: await new Promise((resolve) => {
      const socket = new WebSocket(`ws://${broker}/v1/ws`, ['tidings.v1.json'])
      socket.onopen = () => { socket.close(); resolve(true) }
      socket.onerror = () => resolve(false)
    }),
    publish: await outcome(publish({ headers: json }).then((response) => response.ok)),
    // Without asking first, as a form does: the answer is nobody's to read, but it might have been carried out.
    blind: await outcome(publish({ mode: 'no-cors' }).then((response) => response.ok)),
    read: await outcome(fetch(`http://${broker}/v1/topics`).then((response) => response.ok)),
    stream: await new Promise((resolve) => {
      const stream = new EventSource(`http://${broker}/v1/subscriptions/worker/events`)
      stream.onopen = () => { stream.close(); resolve(true) }
      stream.onerror = () => { stream.close(); resolve(false) }
    }),
  }
}

/** What a page can ask for without saying who it is: an image, and fetches whose answers are kept from it. */
async function askBlindly(broker) {
  const durable = `http://${broker}/v1/subscriptions/worker/events`
  const image = new Image()
  await new Promise((resolve) => {
    image.onload = image.onerror = resolve
    image.src = durable
    // A stream that is given to it has no end.
    setTimeout(resolve, 2000)
  })
  image.src = ''
  const headers = { accept: 'text/event-stream' }
  for (const url of [durable, `http://${broker}/v1/topics/room/events?presence=%7B%7D`]) {
    const given = new AbortController()
    // The answer's head is awaited: what it does to the broker is done by then.
    await fetch(url, { mode: 'no-cors', headers, signal: given.signal }).catch(() => {})
    given.abort()
  }
}

/** A broker with one event and a durable that has not got it. */
async function busy(data, flags) {
  const { listen } = await start({ data, flags })
  const ask = async (path, method, body) => {
    const response = await fetch(`http://${listen}${path}`, {
      method, body: body && JSON.stringify(body), headers: { 'content-type': 'application/json' },
    })
    assert.ok(response.ok, `${method} ${path}: ${response.status}`)
    return response.json()
  }
  await ask('/v1/subscriptions/worker', 'PUT', { filters: ['a'], start: 'first' })
  await ask('/v1/events', 'POST', { topic: 'a', data: 0 })
  return { listen, ask }
}

test('a page of another origin is kept out of every door', async () => {
  const { listen, ask } = await busy('foreign', [])
  const page = await browser.newPage()
  await page.goto(origin)
  const nothing = { socket: false, publish: false, blind: false, read: false, stream: false }
  assert.deepEqual(await page.evaluate(tryAll, listen), nothing)
  // Nothing was published, and nobody has taken the worker's event.
  assert.deepEqual((await ask('/v1/topics/a/events?after=0', 'GET')).events.map((event) => event.data), [0])
  const worker = await ask('/v1/subscriptions/worker', 'GET')
  assert.deepEqual([worker.lag, worker.in_flight], [1, 0])
  await page.close()
})

// The one page is of another site than the broker, the other of the same with another port.
for (const host of ['localhost', '127.0.0.1']) {
  test(`a page of ${host} changes nothing without saying its origin`, async () => {
    const { listen, ask } = await busy(`blind-${host}`, [])
    const page = await browser.newPage()
    await page.goto(origin.replace('127.0.0.1', host))
    const sent = []
    const statuses = []
    page.on('request', (request) => sent.push(request.resourceType()))
    // What an image would have been is kept from the page, and from us.
    const answered = new Promise((resolve) => {
      page.on('response', (response) => { if (statuses.push(response.status()) === 2) resolve() })
    })
    await page.evaluate(askBlindly, listen)
    // One that was given the stream would have left it again, and what it was given would come a second time.
    const worker = await ask('/v1/subscriptions/worker', 'GET')
    assert.deepEqual([worker.lag, worker.in_flight, worker.redelivered], [1, 0, 0])
    const [given] = (await ask('/v1/subscriptions/worker/fetch', 'POST', { limit: 1 })).events
    assert.equal(given.data, 0)
    // Nobody was listed: the worker's making and the event are all that is in the log.
    const room = await ask('/v1/topics/$presence.room/events?after=0', 'GET')
    assert.deepEqual(room.events, [])
    await answered
    assert.deepEqual([sent, statuses], [['image', 'fetch', 'fetch'], [403, 403]])
    await page.close()
  })
}

test('a page whose origin is allowed comes in', async () => {
  const { listen } = await busy('allowed', ['--allow-origin', origin])
  const page = await browser.newPage()
  await page.goto(origin)
  const { socket, publish, read, stream } = await page.evaluate(tryAll, listen)
  assert.deepEqual({ socket, publish, read, stream }, { socket: true, publish: true, read: true, stream: true })
  await page.close()
})
