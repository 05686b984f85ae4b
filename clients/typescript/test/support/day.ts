// A client and a broker in one process, on a clock that the test moves: hours pass in seconds. It runs in Node and in a
// page alike.
//
// - Ten events a second for an ephemeral subscription with a key, one for a durable that acknowledges by itself, one for
//   a durable that does so by hand (and refuses some), one for an iterator; a publish a second.
// - Every minute a question with its answer, and a subscription that ends again; every ten the connection breaks, by a
//   goodbye, a refused token or just so, and what was not acknowledged comes again; every hour the token is renewed and
//   some events are gone.

import { type Client, createClient, type TidingsEvent, type Words } from '../../src/index.js'

const LOG = '9f3c21d0-5a3e-4c1b-8f00-0123456789ab'

/** Time that stands still until it is moved. The real one is put back by `stop`. */
class Clock {
  nowMs = 1_800_000_000_000
  readonly #real = { setTimeout, clearTimeout, now: Date.now }
  readonly #timers = new Map<number, { atMs: number; act: () => void }>()
  #id = 0

  constructor() {
    const set = (act: () => void, ms = 0): number => {
      this.#timers.set(++this.#id, { atMs: this.nowMs + Math.max(ms, 1), act })
      return this.#id
    }
    globalThis.setTimeout = set as unknown as typeof setTimeout
    globalThis.clearTimeout = ((id?: number) => void this.#timers.delete(id ?? 0)) as typeof clearTimeout
    Date.now = () => this.nowMs
  }

  get timers(): number {
    return this.#timers.size
  }

  /** Moves on, and lets everything settle behind each timer. */
  async advance(ms: number): Promise<void> {
    const endMs = this.nowMs + ms
    for (;;) {
      let next: [number, { atMs: number; act: () => void }] | undefined
      for (const timer of this.#timers) if (!next || timer[1].atMs < next[1].atMs) next = timer
      if (!next || next[1].atMs > endMs) break
      this.#timers.delete(next[0])
      this.nowMs = Math.max(this.nowMs, next[1].atMs)
      next[1].act()
      await turn()
    }
    this.nowMs = endMs
    await turn()
  }

  stop(): void {
    globalThis.setTimeout = this.#real.setTimeout
    globalThis.clearTimeout = this.#real.clearTimeout
    Date.now = this.#real.now
  }
}

const channel = new MessageChannel()
/** A turn of the event loop, which no clock holds up. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    channel.port1.onmessage = () => resolve()
    channel.port2.postMessage(0)
  })
}

interface Stream {
  readonly subscription: number
  readonly filter: string
  readonly durable: string | undefined
  cursor: number
}

/** The broker's side: what is sent to whom, and what was not acknowledged of it. */
class Broker {
  offset = 0
  published = 0
  connections = 0
  /** Events of a durable that wait for an ack; those of all others are forgotten when they were sent. */
  readonly open = new Map<string, Map<number, Words>>()
  readonly streams = new Map<number, Stream>()
  socket: Socket | undefined
  gap = false
  #numbers = 0

  say(message: Words): void {
    this.socket?.onmessage?.({ data: JSON.stringify(message) })
  }

  /** Somebody else publishes. */
  event(topic: string, more: Words = {}): void {
    const offset = ++this.offset
    const words = {
      offset,
      topic,
      id: `id-${offset}`,
      type: 'message',
      source: 'urn:tidings:subject:bob',
      time: new Date(Date.now()).toISOString(),
      data: { done: offset, of: 10, text: `text ${offset}` },
      ...more,
    }
    for (const [name, waiting] of this.open) if (matches(name, topic)) waiting.set(offset, words)
    for (const stream of this.streams.values()) {
      if (!matches(stream.filter, topic)) continue
      this.say({ events: { subscription: stream.subscription, after: stream.cursor, cursor: offset, events: [words] } })
      stream.cursor = offset
    }
  }

  /** The connection ends. */
  drop(code: number): void {
    this.streams.clear()
    this.socket?.onclose?.({ code, reason: '' })
    this.socket = undefined
  }

  take({ id, ...request }: Words): void {
    const [[kind, body] = ['', {}]] = Object.entries(request) as [string, Words][]
    const answer = (words: Words): void => this.say({ reply: id, ...words })
    if (kind === 'connect') {
      this.connections++
      const limits = { ping_interval_ms: 25_000, max_message_bytes: 1 << 20 }
      answer({ connected: { session: 's', subject: 'alice', log: LOG, first: 1, last: this.offset, ...limits } })
    } else if (kind === 'ping') answer({ pong: {} })
    else if (kind === 'refresh') answer({ refreshed: {} })
    else if (kind === 'publish') {
      this.published++
      answer({ published: { offset: this.offset + 1, id: body.id } })
      const headers = body.headers as Record<string, string> | undefined
      const { topic, correlation } = body as { topic: string; correlation?: string }
      this.event(topic, { id: body.id, correlation })
      const replyTo = headers?.['reply-to']
      if (replyTo) this.event(replyTo, { correlation })
    } else if (kind === 'subscribe') this.#subscribe(body, answer)
    else if (kind === 'unsubscribe') {
      this.streams.delete(body.subscription as number)
      answer({ unsubscribed: body })
    } else if (kind === 'ack' || kind === 'nack') {
      const stream = this.streams.get(body.subscription as number)
      const waiting = this.open.get(stream?.filter ?? '')
      for (const offset of body.offsets as number[]) {
        const event = waiting?.get(offset)
        if (kind === 'ack') waiting?.delete(offset)
        else if (event && stream) queueMicrotask(() => this.#again(stream, [event]))
      }
      answer(kind === 'ack' ? { acked: { subscription: body.subscription, cursor: this.offset } } : { nacked: body })
    }
  }

  #subscribe(body: Words, answer: (words: Words) => void): void {
    const [filter = ''] = body.filters as string[]
    const durable = body.durable as string | undefined
    const cursor = (body.after as number | undefined) ?? this.offset
    const stream = { subscription: ++this.#numbers, filter, durable, cursor }
    this.streams.set(stream.subscription, stream)
    if (durable && !this.open.has(filter)) this.open.set(filter, new Map())
    const { subscription } = stream
    answer({ subscribed: { subscription, cursor, ...(durable && { durable, last_acked: cursor }) } })
    if (durable) this.#again(stream, [...(this.open.get(filter)?.values() ?? [])])
    else if (this.gap && cursor < this.offset) {
      this.say({
        gap: {
          subscription,
          requested: cursor,
          first: this.offset + 1,
          last: this.offset,
          log: LOG,
          reason: 'retention',
        },
      })
      stream.cursor = this.offset
      this.gap = false
    }
    this.say({ caught_up: { subscription, cursor: stream.cursor } })
  }

  #again(stream: Stream, events: Words[]): void {
    if (events.length === 0) return
    const attempts = Object.fromEntries(events.map(({ offset }) => [offset, 2]))
    this.say({
      events: { subscription: stream.subscription, after: stream.cursor, cursor: stream.cursor, events, attempts },
    })
  }
}

function matches(filter: string, topic: string): boolean {
  return filter.endsWith('.*') ? topic.startsWith(filter.slice(0, -1)) : filter === topic
}

class Socket {
  binaryType = 'blob'
  onopen: (() => void) | null = null
  onmessage: ((event: { data: string }) => void) | null = null
  onclose: ((event: { code: number; reason: string }) => void) | null = null
  onerror: (() => void) | null = null
  readonly #broker: Broker

  constructor(broker: Broker) {
    this.#broker = broker
    broker.socket = this
    queueMicrotask(() => this.onopen?.())
  }

  send(text: string): void {
    const request = JSON.parse(text) as Words
    queueMicrotask(() => this.#broker.socket === this && this.#broker.take(request))
  }

  close(): void {}
}

/** What a day has brought so far. */
export interface Figures {
  events: number
  published: number
  connections: number
  questions: number
  errors: string[]
}

export class Day {
  readonly figures: Figures = { events: 0, published: 0, connections: 0, questions: 0, errors: [] }
  readonly client: Client
  readonly #clock = new Clock()
  readonly #broker = new Broker()
  #seconds = 0
  #done: Promise<unknown> = Promise.resolve()

  /** `seen` is told every event. */
  constructor(seen: (event: TidingsEvent) => void = () => {}) {
    const broker = this.#broker
    class Own extends Socket {
      constructor() {
        super(broker)
      }
    }
    const WebSocket = Own as unknown as typeof globalThis.WebSocket
    const client = createClient('http://day.test', {
      WebSocket,
      transports: ['websocket'],
      fetch: () => Promise.reject(new TypeError('there is no network')),
      getToken: async ({ reason }) => `token ${reason} ${Date.now()}`,
    })
    this.client = client
    const got = (event: TidingsEvent): void => {
      this.figures.events++
      seen(event)
    }
    client.on('error', ({ code, message }) => this.figures.errors.push(`${code}: ${message}`))
    client.subscribe('tasks.*', { key: 'tasks' }, got)
    client.subscribe('auto.*', { durable: 'auto' }, async (event) => got(event))
    client.subscribe('manual.*', { durable: 'manual', ack: 'manual' }, async (event, subscription) => {
      got(event)
      // Refused now and then, the first time.
      const refused = event.offset % 50 === 0 && event.attempts === 1
      await (refused ? subscription.nack(event) : subscription.ack(event)).catch(() => {})
    })
    this.#done = (async () => {
      for await (const event of client.subscribe('pulled.*')) got(event)
    })()
  }

  /** Lets so many minutes pass. */
  async pass(minutes: number): Promise<void> {
    const { client, figures } = this
    const broker = this.#broker
    for (const end = this.#seconds + minutes * 60; this.#seconds < end; ) {
      const second = ++this.#seconds
      for (let n = 0; n < 10; n++) broker.event(`tasks.${n}`)
      broker.event(`auto.${second % 100}`)
      broker.event(`manual.${second % 100}`)
      broker.event(`pulled.${second % 100}`)
      const said = client.publish(`own.${second % 100}`, { second }, { key: 'k' })
      said.then(
        () => figures.published++,
        () => {},
      )
      if (second % 60 === 30) {
        const asked = client.request('questions', second, { timeoutMs: 5_000 })
        asked.then(
          () => figures.questions++,
          () => {},
        )
        const brief = client.subscribe('brief.*', () => {})
        void brief.ready().then(() => brief.unsubscribe())
      }
      if (second % 3_600 === 1_800) broker.say({ token_expiring: { in_ms: 60_000 } })
      if (second % 600 === 0) {
        broker.gap = second % 3_600 === 0
        if (second % 1_200 === 0) broker.say({ goodbye: { code: 'shutting_down', reconnect_after_ms: 200 } })
        broker.drop([1006, 4401, 1001][(second / 600) % 3] ?? 1006)
      }
      await this.#clock.advance(1_000)
    }
    figures.connections = broker.connections
  }

  /** Timers that are left when all is closed. */
  async close(): Promise<number> {
    const closed = this.client.close()
    await this.#clock.advance(1_000)
    await closed
    await this.#done
    const { timers } = this.#clock
    this.#clock.stop()
    return timers
  }
}

/** By how much it rises from one to the next, by least squares. */
export function slope(values: readonly number[]): number {
  const middle = (values.length - 1) / 2
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  let [above, below] = [0, 0]
  for (const [at, value] of values.entries()) {
    above += (at - middle) * (value - mean)
    below += (at - middle) ** 2
  }
  return above / below
}
