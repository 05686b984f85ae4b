// WebSockets that are not ours: `ws` for Node and the one of a browser. Each connects, publishes, subscribes, is
// cut off, resumes with compression, and closes cleanly.
//
// TIDINGS_BIN names the broker, CHROMIUM the browser.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { inflateRawSync } from 'node:zlib'
import { chromium } from 'playwright-core'
import WebSocket from 'ws'
import { CHROMIUM, start, stop, stopAll } from './broker.mjs'

let browser

before(async () => {
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] })
})

after(async () => {
  await browser?.close()
  await stopAll()
})

/**
 * All of it, with the WebSocket that the place where this runs has. It goes into the page as text, so it needs
 * nothing from around it; what is wrong it throws.
 */
async function script(url) {
  const expect = (holds, what) => { if (!holds) throw new Error(what) }
  const inflate = globalThis.inflate ?? (async (bytes) => {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate-raw'))
    return new Uint8Array(await new Response(stream).arrayBuffer())
  })

  /** A socket whose messages are awaited one after another. */
  async function open() {
    const socket = new globalThis.WebSocket(url, ['tidings.v1.json'])
    socket.binaryType = 'arraybuffer'
    const inbox = []
    let wake = () => {}
    socket.addEventListener('message', ({ data }) => { inbox.push(data); wake() })
    const closed = new Promise((resolve) => socket.addEventListener('close', resolve))
    await new Promise((resolve, reject) => {
      socket.addEventListener('open', resolve)
      socket.addEventListener('error', reject)
    })
    expect(socket.protocol === 'tidings.v1.json' && socket.extensions === '', 'negotiated otherwise')
    const peer = { socket, closed, compressed: 0, aside: [], lastId: 0 }
    peer.message = async () => {
      while (inbox.length === 0) await new Promise((resolve) => { wake = resolve })
      const data = inbox.shift()
      if (typeof data === 'string') return JSON.parse(data)
      const view = new DataView(data)
      expect(view.getUint8(0) === 1, 'a binary frame is a compressed batch')
      const behind = 5 + view.getUint32(1, true)
      const text = (bytes) => new TextDecoder().decode(bytes)
      const message = JSON.parse(text(new Uint8Array(data, 5, behind - 5)))
      message.events.events = JSON.parse(text(await inflate(new Uint8Array(data, behind))))
      peer.compressed += 1
      return message
    }
    peer.call = async (kind, body) => {
      const id = ++peer.lastId
      socket.send(JSON.stringify({ id, [kind]: body }))
      for (;;) {
        const message = await peer.message()
        if (message.reply !== id) { peer.aside.push(message); continue }
        expect(!message.error, JSON.stringify(message))
        return message
      }
    }
    peer.events = async (count) => {
      const events = []
      let cursor
      while (events.length < count) {
        const message = peer.aside.shift() ?? await peer.message()
        if (!message.events) continue
        events.push(...message.events.events)
        cursor = message.events.cursor
      }
      return { events, cursor }
    }
    return peer
  }

  const first = await open()
  const { connected } = await first.call('connect', {})
  await first.call('subscribe', { filters: ['a.*'], after: 0 })
  const large = 'grüße 😀 '.repeat(5000)
  for (const data of ['x', large, { deep: [1, 2.5, null] }]) await first.call('publish', { topic: 'a.1', data })
  const { events, cursor } = await first.events(3)
  expect(events.map((event) => event.offset).join() === '1,2,3' && events[1].data === large, 'other events')
  // As a cut connection where that can be done, else without waiting for the answer.
  if (first.socket.terminate) first.socket.terminate(); else first.socket.close()

  const second = await open()
  const batch = Array.from({ length: 300 }, (_, n) => ({ topic: 'a.2', data: { n, text: 'the same again' } }))
  await second.call('publish_batch', { events: batch })
  const answer = await second.call('connect', { compress: ['deflate-raw'] })
  expect(answer.connected.compress === 'deflate-raw', 'not compressed')
  await second.call('subscribe', { filters: ['a.*'], after: cursor, log: connected.log })
  const rest = (await second.events(300)).events
  expect(rest.every((event, n) => event.offset === n + 4 && event.data.n === n), 'other events behind the cut')
  expect(second.compressed > 0, 'nothing came compressed')
  second.socket.close(1000)
  const close = await second.closed
  return { code: close.code, wasClean: close.wasClean }
}

test('the ws package of Node', async () => {
  const broker = await start({ data: 'ws' })
  Object.assign(globalThis, { WebSocket, inflate: inflateRawSync })
  assert.deepEqual(await script(`ws://${broker.listen}/v1/ws`), { code: 1000, wasClean: true })
  const last = new WebSocket(`ws://${broker.listen}/v1/ws`)
  await new Promise((resolve) => last.once('open', resolve))
  const closed = new Promise((resolve) => last.once('close', resolve))
  assert.equal(await stop(broker), 0)
  assert.equal(await closed, 1001)
})

test('the WebSocket of a browser', async () => {
  const broker = await start({ data: 'browser' })
  const page = await browser.newPage()
  // A page of the broker that publishes nothing of its own, as the demo app does.
  await page.goto(`http://${broker.listen}/v1/capabilities`)
  assert.deepEqual(await page.evaluate(script, `ws://${broker.listen}/v1/ws`), { code: 1000, wasClean: true })
  await page.close()
  assert.equal(await stop(broker), 0)
})
