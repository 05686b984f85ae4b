// The client in Chromium: all transports across origins, an outbox over a reload, and two tabs.

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type * as Tidings from '../../src/index.js'
import type { indexedDb } from '../../src/indexeddb.js'
import { type Broker, startBroker, stopBrokers } from '../support/broker.js'
import { Pages } from '../support/page.js'
import { until } from '../support/wait.js'

declare const tidings: typeof Tidings & { indexedDb: typeof indexedDb; msgpack: Tidings.Codec; protobuf: Tidings.Codec }

let pages: Pages
let broker: Broker

beforeAll(async () => {
  pages = await Pages.open()
  broker = await startBroker({ flags: ['--allow-origin', pages.origin] })
})

afterAll(async () => {
  await pages.close()
  await stopBrokers()
  expect(pages.problems).toEqual([])
})

async function events(topic: string): Promise<unknown[]> {
  const answer = await fetch(`${broker.url}/v1/topics/${topic}/events?limit=1000`)
  return ((await answer.json()) as { events: { data: unknown }[] }).events.map((event) => event.data)
}

describe.each(['websocket', 'sse', 'poll'] as const)('over %s', (transport) => {
  test.each(['json', 'msgpack', 'protobuf'] as const)('publishes and subscribes, %s', async (codec) => {
    const tab = await pages.tab(await pages.context())
    const got = await tab.evaluate(
      async ([url, transport, codec]) => {
        const client = tidings.createClient(url, {
          transports: [transport],
          codec: tidings[codec],
          compress: tidings.deflateRaw,
        })
        const topic = `browser.${transport}.${codec}`
        const got: unknown[] = []
        const subscription = client.subscribe(topic)
        await subscription.ready()
        await client.publish(topic, { text: 'x'.repeat(2_000) })
        await client.publishBatch([
          { topic, data: 'é' },
          { topic, data: null },
        ])
        for await (const event of subscription) if (got.push(event.data) === 3) break
        await client.close()
        return got
      },
      [broker.url, transport, codec] as const,
    )
    expect(got).toEqual([{ text: 'x'.repeat(2_000) }, 'é', null])
    await tab.context().close()
  })
})

test('500 unsent publishes survive a reload and arrive once and in order, though a second tab is there', async () => {
  const context = await pages.context()
  const [first, second] = [await pages.tab(context), await pages.tab(context)]
  const publish = ([url, topic, count]: readonly [string, string, number]): void => {
    const client = tidings.createClient(url, { transports: ['websocket'], outbox: { storage: tidings.indexedDb() } })
    for (let n = 0; n < count; n++) client.publish(topic, n).catch(() => {})
  }
  const stored = (): Promise<number> =>
    new Promise((resolve) => {
      const request = indexedDB.open('tidings', 1)
      // It is for the client to make it.
      request.onupgradeneeded = () => request.transaction?.abort()
      request.onerror = () => resolve(0)
      request.onsuccess = () => {
        const all = request.result.transaction('outbox').objectStore('outbox').count()
        all.onsuccess = () => {
          request.result.close()
          resolve(all.result)
        }
      }
    })
  // Nobody listens there: nothing is sent.
  await first.evaluate(publish, ['http://127.0.0.1:9', 'reload', 500] as const)
  await until(() => second.evaluate(stored).then((count) => count === 500))
  await first.reload()
  const connect = (url: string): void => {
    Object.assign(window, {
      client: tidings.createClient(url, { outbox: { storage: tidings.indexedDb({ adoptEveryMs: 100 }) } }),
    })
  }
  await Promise.all([first.evaluate(connect, broker.url), second.evaluate(connect, broker.url)])
  await until(async () => (await events('reload')).length >= 500)
  const waiting = (): number => (window as unknown as { client: Tidings.Client }).client.status.outboxEvents
  await until(async () => (await first.evaluate(waiting)) + (await second.evaluate(waiting)) === 0)
  expect(await events('reload')).toEqual([...Array(500).keys()])
  // What a tab holds that was closed is taken over by the one that stays.
  await second.evaluate((url) => {
    const client = tidings.createClient('http://127.0.0.1:9', {
      transports: ['websocket'],
      outbox: { storage: tidings.indexedDb() },
    })
    client.publish('left', url).catch(() => {})
  }, 'behind')
  await until(() => first.evaluate(stored).then((count) => count === 1))
  await second.close({ runBeforeUnload: false })
  await until(async () => (await events('left')).length === 1)
  expect(await events('left')).toEqual(['behind'])
  await context.close()
})
