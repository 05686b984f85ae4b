// What a client does over real sockets, on every transport.

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Client, type ClientOptions, createClient, type TidingsEvent, type TransportName } from '../src/index.js'
import { type Broker, startBroker, stopBrokers } from './support/broker.js'
import { gather, until } from './support/wait.js'

let broker: Broker
const clients: Client[] = []

beforeAll(async () => {
  broker = await startBroker()
})

afterAll(async () => {
  await Promise.all(clients.map((client) => client.close()))
  await stopBrokers()
})

function connect(transport: TransportName, options: ClientOptions = {}): Client {
  const client = createClient(broker.url, { transports: [transport], ...options })
  clients.push(client)
  return client
}

let topics = 0
const fresh = (): string => `t${++topics}`

describe.each(['websocket', 'sse', 'poll'] as const)('over %s', (transport) => {
  test('what is published comes to who subscribes, once and in order', async () => {
    const client = connect(transport)
    const topic = fresh()
    const got: TidingsEvent[] = []
    const subscription = client.subscribe(`${topic}.*`, (event) => void got.push(event))
    await subscription.ready()
    expect(client.status).toMatchObject({ state: 'connected', transport })
    const published = await Promise.all([1, 2, 3, 4, 5].map((n) => client.publish(`${topic}.a`, { n }, { key: 'k' })))
    await until(() => got.length === 5)
    expect(got.map((event) => event.data)).toEqual([1, 2, 3, 4, 5].map((n) => ({ n })))
    expect(got.map((event) => event.offset)).toEqual(published.map(({ offset }) => offset))
    expect(got[0]).toMatchObject({
      topic: `${topic}.a`,
      key: 'k',
      type: 'message',
      priority: 'normal',
      own: true,
      attempts: 1,
    })
    await until(() => subscription.state === 'live')
    expect(subscription.cursor).toBeGreaterThanOrEqual(published[4]?.offset ?? Infinity)
    await subscription.unsubscribe()
    expect(subscription.state).toBe('closed')
  })

  test('text, bytes, null and nothing arrive as what they were', async () => {
    const client = connect(transport)
    const topic = fresh()
    const subscription = client.subscribe(topic)
    await subscription.ready()
    await client.publish(topic, 'línea\n', { datacontenttype: 'text/plain' })
    await client.publish(topic, new Uint8Array([0, 255]))
    await client.publish(topic, null)
    await client.publish(topic)
    await client.publish(topic, 'a string of JSON')
    const got = await gather(subscription, 5)
    expect(got.map((event) => event.data)).toEqual([
      'línea\n',
      new Uint8Array([0, 255]),
      null,
      undefined,
      'a string of JSON',
    ])
    expect(got.map((event) => event.datacontenttype)).toEqual([
      'text/plain',
      'application/octet-stream',
      'application/json',
      undefined,
      'application/json',
    ])
  })

  test('a subscription after an offset, from the first and since a moment', async () => {
    const client = connect(transport)
    const topic = fresh()
    const places = []
    for (let n = 1; n <= 4; n++) places.push(await client.publish(topic, n))
    const after = places[1]?.offset ?? 0
    expect((await gather(client.subscribe(topic, { after }), 2)).map((event) => event.data)).toEqual([3, 4])
    expect((await gather(client.subscribe(topic, { after: 'first' }), 4)).map((event) => event.data)).toEqual([
      1, 2, 3, 4,
    ])
    const since = new Date(Date.now() - 60_000)
    expect((await gather(client.subscribe(topic, { after: since }), 4)).map((event) => event.data)).toEqual([
      1, 2, 3, 4,
    ])
  })

  test('a batch is appended as one, and an id is appended once', async () => {
    const client = connect(transport)
    const topic = fresh()
    const batch = await client.publishBatch([
      { topic, data: 1 },
      { topic: `${topic}.x`, data: 2 },
    ])
    expect(batch).toHaveLength(2)
    expect(batch[1]?.offset).toBe((batch[0]?.offset ?? 0) + 1)
    const first = await client.publish(topic, 3, { id: `${topic}-same` })
    const second = await client.publish(topic, 3, { id: `${topic}-same` })
    expect(second).toEqual({ ...first, duplicate: true })
    await expect(client.publish(topic, 4, { id: `${topic}-same` })).rejects.toMatchObject({ code: 'conflict' })
    await expect(client.publish('no topic', 4)).rejects.toMatchObject({ code: 'invalid_argument', retryable: false })
  })

  test('a durable is acknowledged when its handler is done, and goes on where it was', async () => {
    const client = connect(transport)
    const topic = fresh()
    for (let n = 1; n <= 3; n++) await client.publish(topic, n)
    const got: unknown[] = []
    const options = { durable: `d-${topic}`, start: 'first' } as const
    const first = client.subscribe(topic, options, async (event) => {
      got.push(event.data)
      await Promise.resolve()
    })
    await until(() => got.length === 3)
    const state = async (): Promise<{ lag: number; in_flight: number }> =>
      client.call('GET', `/v1/subscriptions/d-${topic}`)
    await until(async () => (await state()).lag === 0)
    await first.unsubscribe()
    await client.publish(topic, 4)
    client.subscribe(topic, options, (event) => void got.push(event.data))
    await until(() => got.length === 4)
    expect(got).toEqual([1, 2, 3, 4])
  })

  test('what is not acknowledged by hand comes again', async () => {
    const client = connect(transport)
    const topic = fresh()
    await client.publish(topic, 'x')
    const got: number[] = []
    const options = { durable: `m-${topic}`, start: 'first', ack: 'manual' } as const
    client.subscribe(topic, options, (event, subscription) => {
      got.push(event.attempts)
      return event.attempts < 3 ? subscription.nack(event, { delayMs: 0 }) : subscription.ack(event)
    })
    await until(() => got.length === 3)
    expect(got).toEqual([1, 2, 3])
    await until(async () => (await client.call<{ lag: number }>('GET', `/v1/subscriptions/m-${topic}`)).lag === 0)
  })

  test('reads, topics, presence, receipts, later and never', async () => {
    const client = connect(transport)
    const topic = fresh()
    const { offset } = await client.publish(`${topic}.a`, 1)
    await client.publish(`${topic}.b`, 2)
    const read = await client.read(`${topic}.*`, { limit: 1 })
    expect(read.events.map((event) => event.data)).toEqual([1])
    expect((await client.read(`${topic}.*`, { after: read.cursor })).events.map((event) => event.data)).toEqual([2])
    expect((await client.topics(`${topic}.*`)).topics.map(({ name }) => name)).toEqual([`${topic}.a`, `${topic}.b`])
    expect(await client.presence(topic)).toEqual([])
    expect(await client.receipts(offset)).toEqual([])
    const later = await client.publish(topic, 3, { deliverAt: new Date(Date.now() + 3_600_000) })
    expect(later.scheduled).toBe(true)
    await client.cancel(later)
    await expect(client.receipts(987_654_321)).rejects.toMatchObject({ code: 'not_found' })
  })

  test('a question is answered', async () => {
    const [asks, works] = [connect(transport), connect(transport)]
    const topic = fresh()
    await works
      .subscribe(topic, async (event) => {
        const replyTo = event.headers?.['reply-to'] ?? ''
        await works.publish(replyTo, { twice: (event.data as number) * 2 }, { correlation: event.correlation ?? '' })
      })
      .ready()
    expect((await asks.request(topic, 21)).data).toEqual({ twice: 42 })
    await expect(asks.request(`${topic}.nobody`, 1, { timeoutMs: 200 })).rejects.toMatchObject({ code: 'no_reply' })
  })
})
