// What a page does to a client: it is looked at again, the network is back, it goes and comes back from the cache.

import { beforeEach, expect, test } from 'vitest'
import { type Client, localCursors } from '../../src/index.js'
import { connect, heldClients, settle } from '../support/clients.js'
import { batch, FakeSocket, LOG } from '../support/fake-socket.js'

let client: Client

heldClients()
beforeEach(() => {
  localStorage.clear()
  client = connect({ cursors: localCursors(), reconnect: { jitter: 'none', minMs: 5_000 } })
})

const show = (state: 'visible' | 'hidden'): void => {
  Object.defineProperty(document, 'visibilityState', { value: state, configurable: true })
  document.dispatchEvent(new Event('visibilitychange', { bubbles: true }))
}
const transition = (name: string, persisted: boolean): Event => Object.assign(new Event(name), { persisted })

test('a wait is cut short when the network is back or the page is looked at', async () => {
  await settle()
  for (const wake of [() => window.dispatchEvent(new Event('online')), () => show('visible')]) {
    FakeSocket.last.drop()
    await settle()
    const made = FakeSocket.made.length
    show('hidden')
    await settle()
    expect(FakeSocket.made).toHaveLength(made)
    wake()
    await settle()
    expect(FakeSocket.made).toHaveLength(made + 1)
  }
})

test('a connection that may be dead is asked when the page is looked at', async () => {
  await settle()
  FakeSocket.last.accept()
  await settle()
  show('visible')
  expect(FakeSocket.last.asked('ping')).toBeDefined()
})

test('a page that goes hangs up and saves its cursors, and comes back where it was', async () => {
  await settle()
  FakeSocket.last.accept()
  await settle()
  const got: number[] = []
  client.subscribe('a.*', { key: 'k', after: 0 }, (event) => void got.push(event.offset))
  await settle()
  FakeSocket.last.reply('subscribe', { subscribed: { subscription: 1, cursor: 0 } })
  FakeSocket.last.say(batch(0, 2, [1, 2]))
  await settle()
  window.dispatchEvent(transition('pagehide', true))
  await settle()
  expect(FakeSocket.last.closed).toBe(true)
  expect(JSON.parse(localStorage.getItem('tidings:cursor:k') ?? '')).toEqual({ log: LOG, cursor: 2 })
  window.dispatchEvent(transition('pageshow', true))
  await settle()
  expect(FakeSocket.made).toHaveLength(2)
  FakeSocket.last.accept()
  await settle()
  expect(FakeSocket.last.asked('subscribe')).toMatchObject({ after: 2, log: LOG })
  expect(got).toEqual([1, 2])
})

test('after close the page is not listened to any more', async () => {
  await settle()
  await client.close()
  const made = FakeSocket.made.length
  window.dispatchEvent(new Event('online'))
  window.dispatchEvent(transition('pageshow', true))
  await settle()
  expect(FakeSocket.made).toHaveLength(made)
})
