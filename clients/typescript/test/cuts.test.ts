// Cut off anywhere, by everything a network and a broker can do: every event comes to the handler exactly once and in
// order, and every publish stands in the log exactly once and in order.
//
// TIDINGS_CUTS says how many cuts; 100 unless it does.

import { afterAll, expect, test } from 'vitest'
import { type Client, createClient, type TidingsEvent } from '../src/index.js'
import { type Broker, startBroker, stopBrokers } from './support/broker.js'
import { TcpProxy } from './support/proxy.js'
import { until } from './support/wait.js'

const CUTS = Number(process.env.TIDINGS_CUTS ?? 100)
const SEED = Number(process.env.TIDINGS_SEED ?? 1)
const open: (() => Promise<unknown>)[] = []

afterAll(async () => {
  for (const close of open.splice(0).reverse()) await close()
  await stopBrokers()
})

/** A small generator with a seed (mulberry32), so that a run can be had again. */
function dice(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

test(`${CUTS} cuts lose nothing, double nothing and keep the order`, { timeout: 120_000 + CUTS * 2_000 }, async () => {
  const roll = dice(SEED)
  let broker: Broker = await startBroker()
  const proxy = await TcpProxy.start(() => broker.port)
  open.push(() => proxy.close())
  const quick = {
    reconnect: { minMs: 2, maxMs: 40, resetAfterMs: 0 },
    connectTimeoutMs: 1_000,
    requestTimeoutMs: 500,
    pingGraceMs: 300,
    upgradeEveryMs: 200,
  }
  const connect = (url: string): Client => {
    const client = createClient(url, quick)
    open.push(() => client.close())
    return client
  }
  // One that is cut off and both publishes and subscribes; one beside it that only publishes, and is hit by kills alone.
  const cut = connect(proxy.url)
  const steady = connect(broker.url)
  const ephemeral: TidingsEvent[] = []
  const durable: TidingsEvent[] = []
  const pulled: TidingsEvent[] = []
  const gaps: unknown[] = []
  cut.on('gap', (gap) => gaps.push(gap))
  await cut.subscribe('load.*', { after: 'first' }, (event) => void ephemeral.push(event)).ready()
  await cut
    .subscribe('load.*', { durable: 'd', start: 'first', maxInFlight: 100 }, (event) => void durable.push(event))
    .ready()
  const iterated = cut.subscribe('load.*', { after: 'first', bufferEvents: 20 })
  const pulling = (async () => {
    for await (const event of iterated) pulled.push(event)
  })()

  const transports = new Set<string>()
  cut.on('state', ({ transport }) => transport && transports.add(transport))
  const published: Promise<unknown>[] = []
  const sent = { 'load.cut': 0, 'load.steady': 0 }
  const publish = (client: Client, topic: keyof typeof sent): void => {
    published.push(client.publish(topic, { n: sent[topic]++ }))
  }

  let kills = 0
  for (let done = 0; done < CUTS; done++) {
    for (let n = roll(8); n >= 0; n--) publish(cut, 'load.cut')
    for (let n = roll(4); n >= 0; n--) publish(steady, 'load.steady')
    // The cut falls while something is on its way: after some more events, or as soon as there is a connection at all.
    const goal = ephemeral.length + roll(6)
    await until(() => ephemeral.length >= goal || cut.state !== 'connected').catch(() => {})
    const what = roll(20)
    if (what < 9) proxy.cut()
    else if (what < 11) proxy.cut('websocket')
    else if (what < 13) {
      proxy.silent = true
      await pause(roll(60))
      proxy.silent = false
      proxy.cut()
    } else if (what < 15) {
      proxy.delayMs = 1 + roll(5)
      await pause(roll(30))
      proxy.cut()
      proxy.delayMs = 0
    } else if (what < 17) {
      proxy.blocked.add('websocket')
      proxy.cut()
      if (roll(2)) proxy.blocked.add('stream')
      await until(() => cut.state === 'connected')
      await pause(roll(50))
      proxy.blocked.clear()
      if (roll(2)) proxy.cut()
    } else if (what < 18 && kills < CUTS / 20) {
      kills++
      await broker.kill()
      broker = await startBroker({ data: broker.data, port: broker.port })
    } else {
      cut.disconnect()
      cut.connect()
    }
    if (roll(3) === 0) await until(() => cut.state === 'connected')
  }
  await Promise.all(published)
  const total = sent['load.cut'] + sent['load.steady']
  const log: TidingsEvent[] = []
  for (let after = 0; ; ) {
    const read = await steady.read('load.*', { after, limit: 1_000 })
    log.push(...read.events)
    after = read.cursor
    if (after >= read.last) break
  }
  for (const topic of ['load.cut', 'load.steady'] as const) {
    const numbers = log.filter((event) => event.topic === topic).map((event) => (event.data as { n: number }).n)
    expect(numbers).toEqual([...Array(sent[topic]).keys()])
  }
  await until(() => ephemeral.length >= total && durable.length >= total && pulled.length >= total).catch(() => {})
  const offsets = log.map((event) => event.offset)
  expect(ephemeral.map((event) => event.offset)).toEqual(offsets)
  expect(pulled.map((event) => event.offset)).toEqual(offsets)
  expect(durable.map((event) => event.offset)).toEqual(offsets)
  expect(gaps).toEqual([])
  expect(cut.status.outboxEvents).toBe(0)
  console.log(
    `${CUTS} cuts (${proxy.cuts} connections, ${kills} kills), ${total} events, over ${[...transports].join(', ')}`,
  )
  await iterated.unsubscribe()
  await pulling
})

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
