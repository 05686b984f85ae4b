// Changing the transport in mid-stream, codecs, compression, tokens that end, and the outbox over a restart.

import 'fake-indexeddb/auto'
import { createHmac } from 'node:crypto'
import { rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { type Client, type ClientOptions, createClient, deflateRaw, json, type TidingsEvent } from '../src/index.js'
import { indexedDb } from '../src/indexeddb.js'
import { msgpack } from '../src/msgpack.js'
import { protobuf } from '../src/protobuf.js'
import { type Broker, startBroker, stopBrokers } from './support/broker.js'
import { FakeLocks } from './support/locks.js'
import { TcpProxy } from './support/proxy.js'
import { gather, until } from './support/wait.js'

let broker: Broker
const open: (() => Promise<unknown>)[] = []

beforeAll(async () => {
  broker = await startBroker()
})

afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close()
  vi.unstubAllGlobals()
})

afterAll(stopBrokers)

function connect(url: string, options: ClientOptions = {}): Client {
  const client = createClient(url, { reconnect: { minMs: 5, maxMs: 50, resetAfterMs: 0 }, ...options })
  open.push(() => client.close())
  return client
}

async function proxied(): Promise<TcpProxy> {
  const proxy = await TcpProxy.start(() => broker.port)
  open.push(() => proxy.close())
  return proxy
}

test('a durable over long poll whose answers are lost gets every event once and in order, at once', async () => {
  // The broker has leased what is in an answer that does not come, for half a minute.
  let fetches = 0
  let lost = 0
  const losing: typeof fetch = async (url, init) => {
    const response = await fetch(url, init)
    if (!`${url}`.endsWith('/fetch') || ++fetches % 3 === 0) return response
    lost++
    throw new TypeError('the answer is lost')
  }
  const client = connect(broker.url, { transports: ['poll'], fetch: losing })
  const steady = connect(broker.url)
  const got: unknown[] = []
  // Slow, so that events wait in the client while answers are lost.
  const take = async ({ data }: TidingsEvent): Promise<void> => {
    await new Promise((resolve) => setTimeout(resolve, 2))
    got.push(data)
  }
  await client.subscribe('lossy', { durable: 'lossy', start: 'first' }, take).ready()
  for (let n = 0; n < 100; n++) await steady.publish('lossy', n)
  await until(() => got.length >= 100)
  expect(got).toEqual([...Array(100).keys()])
  expect(lost).toBeGreaterThan(5)
})

test.each(['websocket', 'sse'] as const)(
  'what a lost answer had leased comes first over the next, a %s',
  async (next) => {
    const proxy = await proxied()
    proxy.blocked.add('websocket').add('stream')
    let lost = 0
    const losing: typeof fetch = async (url, init) => {
      const response = await fetch(url, init)
      if (`${url}`.endsWith('/fetch') && (await response.clone().json()).events.length > 0) {
        lost++
        proxy.blocked.clear()
        throw new TypeError('the answer is lost')
      }
      return response
    }
    const client = connect(proxy.url, {
      transports: [next, 'poll'],
      fetch: losing,
      upgradeEveryMs: 20,
      connectTimeoutMs: 500,
    })
    const steady = connect(broker.url)
    const got: unknown[] = []
    const name = `left-${next}`
    const durable = client.subscribe(
      name,
      { durable: name, start: 'first', maxInFlight: 10 },
      ({ data }) => void got.push(data),
    )
    await durable.ready()
    expect(client.status.transport).toBe('poll')
    for (let n = 0; n < 5; n++) await steady.publish(name, n)
    await until(() => client.status.transport === next)
    for (let n = 5; n < 10; n++) await steady.publish(name, n)
    await until(() => got.length >= 10)
    expect(got).toEqual([...Array(10).keys()])
    expect(lost).toBeGreaterThan(0)
  },
)

test('WebSocket blocked → SSE → long poll → WebSocket again, with every event once and in order', async () => {
  const proxy = await proxied()
  const client = connect(proxy.url, { upgradeEveryMs: 100, connectTimeoutMs: 500 })
  const seen: string[] = []
  client.on('state', ({ state, transport }) => seen.push(transport ?? state))
  const got: unknown[] = []
  await client.subscribe('walk', (event) => void got.push(event.data)).ready()
  let n = 0
  const step = async (transport: string): Promise<void> => {
    await until(() => client.status.transport === transport)
    await client.publish('walk', ++n)
    await until(() => got.length === n)
    expect(client.status.transport).toBe(transport)
  }
  await step('websocket')
  proxy.blocked.add('websocket')
  proxy.cut()
  await step('sse')
  proxy.blocked.add('stream')
  proxy.cut()
  await step('poll')
  proxy.blocked.delete('stream')
  await step('sse')
  proxy.blocked.clear()
  await step('websocket')
  expect(got).toEqual([1, 2, 3, 4, 5])
  expect(seen).toEqual(expect.arrayContaining(['websocket', 'reconnecting', 'sse', 'poll']))
})

describe.each([
  ['json', json],
  ['msgpack', msgpack],
  ['protobuf', protobuf],
] as const)('%s on a socket', (name, codec) => {
  test.each([undefined, deflateRaw])('brings the same events, compression: %o', async (compress) => {
    const options: ClientOptions = { transports: ['websocket'], codec, ...(compress && { compress }) }
    const client = connect(broker.url, options)
    const topic = `codec-${name}-${compress ? 'deflated' : 'plain'}`
    const data = [
      { text: 'é'.repeat(200), n: [1, -2, 0.5, 2 ** 52] },
      'text',
      new Uint8Array([0, 1, 255]),
      null,
      undefined,
      7,
    ]
    const types = [undefined, 'text/plain', undefined, undefined, undefined, undefined]
    for (const [n, value] of data.entries()) {
      const datacontenttype = types[n]
      await client.publish(topic, value, {
        headers: { b: 'New York +1', a: '1' },
        priority: 'high',
        key: 'k',
        ...(datacontenttype && { datacontenttype }),
      })
    }
    const batch = await client.publishBatch(
      Array.from({ length: 50 }, (_, n) => ({ topic, data: { n, filler: 'x'.repeat(100) } })),
    )
    expect(batch).toHaveLength(50)
    const events = await gather(client.subscribe(topic, { after: 'first' }), 56)
    expect(events.slice(0, 6).map((event) => event.data)).toEqual(data)
    expect(events.slice(6).map((event) => (event.data as { n: number }).n)).toEqual([...Array(50).keys()])
    expect(events[0]).toMatchObject({
      priority: 'high',
      key: 'k',
      headers: { a: '1', b: 'New York +1' },
      type: 'message',
      own: true,
    })
    const same = connect(broker.url, { transports: ['sse'] })
    const plain = await gather(same.subscribe(topic, { after: 'first' }), 56)
    expect(events.map(({ own: _, ...event }) => event)).toEqual(plain.map(({ own: _, ...event }) => event))
    // What is said behind the `?` of a call is as over the socket.
    const headers = { b: 'New York +1' }
    const polling = connect(broker.url, { transports: ['poll'] })
    for (const other of [same, polling])
      expect((await gather(other.subscribe(topic, { after: 'first', headers }), 6)).map(({ data }) => data)).toEqual(
        data,
      )
    expect((await client.read(topic, { after: 'first', headers })).events).toHaveLength(6)
    await client.subscribe(topic, { presence: { data: { name: 'Alice', half: 0.5 } } }).ready()
    expect(await client.presence(topic)).toMatchObject([{ data: { name: 'Alice', half: 0.5 } }])
    // A stream is listed like a socket, a durable's too.
    await same.subscribe(topic, { presence: { data: { name: 'Bob + 1' } } }).ready()
    await same.subscribe(topic, { durable: `e-${topic}`, presence: { data: { name: 'Carol' } } }).ready()
    const names = (await same.presence<{ name: string }>(topic)).map(({ data }) => data?.name)
    expect(names).toEqual(['Alice', 'Bob + 1', 'Carol'])
    const durable = client.subscribe(topic, {
      durable: `d-${topic}`,
      start: 'first',
      minPriority: 'high',
      maxInFlight: 2,
    })
    expect((await gather(durable, 6)).map((event) => event.data)).toEqual(data)
    await expect(client.publish(topic, 1, { expectLast: 1 })).rejects.toMatchObject({
      code: 'conflict',
      retryable: false,
    })
  })
})

test.each(['websocket', 'sse', 'poll'] as const)(
  'a state of several pages comes without its history over %s',
  async (transport) => {
    const publisher = connect(broker.url)
    const [topic, keys] = [`state.${transport}`, Array.from({ length: 1_100 }, (_, n) => `k${n}`)]
    // The outbox has room for a thousand.
    for (const data of ['old', 'new'])
      for (const some of [keys.slice(0, 900), keys.slice(900)])
        await Promise.all(some.map((key) => publisher.publish(topic, data, { key })))
    const client = connect(broker.url, { transports: [transport] })
    const got: unknown[] = []
    client.subscribe(topic, { lastPerKey: true }, (event) => void got.push(event.data))
    await until(() => got.length >= keys.length)
    await publisher.publish(topic, 'next', { key: 'k0' })
    await until(() => got.includes('next'))
    expect(got).toEqual([...keys.map(() => 'new'), 'next'])
  },
)

test.each(['websocket', 'sse', 'poll'] as const)(
  'over %s publishes keep their order where some are refused for a while',
  async (transport) => {
    // A large one is refused where a small one behind it would not be.
    const limits = ['limits.message_bytes_max=2048', 'limits.per_session=bytes=20000/2048']
    const limited = await startBroker({ flags: limits.flatMap((limit) => ['--set', limit]) })
    const client = connect(limited.url, { transports: [transport] })
    const published = Array.from({ length: 40 }, (_, n) => client.publish('t.a', n % 2 ? n : 'x'.repeat(1_000)))
    const offsets = (await Promise.all(published)).map(({ offset }) => offset)
    expect(offsets).toEqual(offsets.toSorted((a, b) => a - b))
  },
)

test('a token that ends is replaced in mid-stream, on every transport', async () => {
  const secret = 'a secret of the test that is long enough to be one'
  const file = join(tmpdir(), `tidings-ts-secret-${process.pid}`)
  await writeFile(file, secret, { mode: 0o600 })
  open.push(() => rm(file))
  const guarded = await startBroker({ flags: ['--auth-jwt-hs256-secret-file', file, '--set', 'auth.leeway=0s'] })
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const token = (seconds: number): string => {
    const exp = Math.floor(Date.now() / 1_000) + seconds
    const head = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: 'alice', exp, tidings: { publish: ['>'], subscribe: ['>'], durable: ['*'] } })}`
    return `${head}.${createHmac('sha256', secret).update(head).digest('base64url')}`
  }
  await Promise.all(
    (['websocket', 'sse', 'poll'] as const).map(async (transport) => {
      const reasons: string[] = []
      const client = connect(guarded.url, {
        transports: [transport],
        getToken: ({ reason }) => {
          reasons.push(reason)
          return token(4)
        },
      })
      const got: unknown[] = []
      await client.subscribe(`t.${transport}`, (event) => void got.push(event.data)).ready()
      let n = 0
      const endMs = Date.now() + 9_000
      while (Date.now() < endMs) {
        await client.publish(`t.${transport}`, ++n)
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
      await until(() => got.length === n)
      expect(got).toEqual([...Array(n).keys()].map((index) => index + 1))
      expect(reasons[0]).toBe('initial')
      expect(reasons.length).toBeGreaterThan(1)
      expect(reasons.length).toBeLessThan(20)
    }),
  )
  const refused = connect(guarded.url, { token: 'no token' })
  await expect(refused.ready(5_000)).rejects.toMatchObject({ code: 'unauthenticated' })
})

test('what was not sent before a reload is sent after it, once and in order, though two tabs are there', async () => {
  const locks = new FakeLocks()
  vi.stubGlobal('navigator', { locks })
  const storage = (adoptEveryMs = 50): ReturnType<typeof indexedDb> => indexedDb({ name: 'reload', adoptEveryMs })
  const away = connect('http://127.0.0.1:9', { transports: ['websocket'], outbox: { storage: storage() } })
  const pending = Array.from({ length: 500 }, (_, n) => away.publish('reload', n))
  for (const publish of pending) publish.catch(() => {})
  await until(async () => (await rows('reload')) === 500)
  // A tab that stays, and is away too: what it holds is not to be taken from it. It takes over nothing itself, as then
  // that would be away.
  const tab = connect(broker.url, { autoConnect: false, outbox: { storage: storage(3_600_000) } })
  const held = tab.publish('reload.tab', 'mine')
  await until(async () => (await rows('reload')) === 501)
  await away.close()
  await expect(pending[0]).rejects.toMatchObject({ code: 'closed' })
  const [first, second] = [
    connect(broker.url, { outbox: { storage: storage() } }),
    connect(broker.url, { outbox: { storage: storage() } }),
  ]
  const all = async (topic: string): Promise<unknown[]> =>
    (await first.read(topic, { limit: 1_000 })).events.map((event) => event.data)
  await until(async () => (await all('reload')).length >= 500)
  await until(async () => (await rows('reload')) <= 1)
  expect(await all('reload')).toEqual([...Array(500).keys()])
  tab.connect()
  await held
  expect(await all('reload.tab')).toEqual(['mine'])
  await until(async () => (await rows('reload')) === 0)
  expect(await all('reload')).toEqual([...Array(500).keys()])
  expect(first.status.outboxEvents + second.status.outboxEvents).toBe(0)
})

test('publishes that wait while the broker is killed and started again arrive once, from IndexedDB', async () => {
  let restarted = await startBroker()
  const client = connect(restarted.url, {
    connectTimeoutMs: 1_000,
    outbox: { storage: indexedDb({ name: 'restart' }) },
  })
  const done: Promise<unknown>[] = []
  for (let n = 0; n < 50; n++) done.push(client.publish('restart', n))
  await done[10]
  await restarted.kill()
  for (let n = 50; n < 100; n++) done.push(client.publish('restart', n))
  restarted = await startBroker({ data: restarted.data, port: restarted.port })
  await Promise.all(done)
  const { events } = await client.read('restart', { limit: 1_000 })
  expect(events.map((event) => event.data)).toEqual([...Array(100).keys()])
})

test('a subscription with a key goes on where it was left, and a changed log is a gap', async () => {
  const saved = new Map<string, { log: string; cursor: number }>()
  const cursors = {
    get: (key: string) => saved.get(key),
    set: (key: string, value: { log: string; cursor: number }) => void saved.set(key, value),
  }
  const first = connect(broker.url, { cursors })
  const got: unknown[] = []
  await first.subscribe('keyed', { key: 'k' }, (event) => void got.push(event.data)).ready()
  await first.publish('keyed', 1)
  await until(() => got.length === 1)
  await first.close()
  const other = connect(broker.url)
  await other.publish('keyed', 2)
  const second = connect(broker.url, { cursors })
  second.subscribe('keyed', { key: 'k' }, (event) => void got.push(event.data))
  await until(() => got.length === 2)
  expect(got).toEqual([1, 2])
  await second.close()
  const elsewhere = await startBroker()
  const third = connect(elsewhere.url, { cursors })
  const seen: TidingsEvent[] = []
  const gaps: string[] = []
  third.on('gap', (gap) => gaps.push(gap.reason))
  await third.publish('keyed', 3)
  third.subscribe('keyed', { key: 'k' }, (event) => void seen.push(event))
  await until(() => seen.length === 1)
  expect(gaps).toEqual(['log_changed'])
})

function rows(name: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, 1)
    request.onerror = () => reject(request.error)
    request.onsuccess = () => {
      const db = request.result
      const count = db.transaction('outbox').objectStore('outbox').count()
      count.onsuccess = () => {
        db.close()
        resolve(count.result)
      }
    }
  })
}
