// A client and a broker in one process, on a clock that the test moves: hours pass in seconds. It runs in Node and in a
// page alike.
//
// - Ten events a second for an ephemeral subscription with a key, one for a durable that acknowledges by itself, one for
//   a durable that does so by hand (and refuses some), one for an iterator; a publish a second.
// - Every minute a question with its answer, and a subscription that ends again; every ten the connection breaks, by a
//   goodbye, a refused token or just so, and what was not acknowledged comes again; every hour the token is renewed and
//   some events are gone.

import { type Client, createClient, type TidingsEvent, type TransportName, type Words } from '../../src/index.js'

const LOG = '9f3c21d0-5a3e-4c1b-8f00-0123456789ab'

const START_MS = 1_800_000_000_000

/** Time that stands still until it is moved. The real one is put back by `stop`. */
class Clock {
  nowMs = START_MS
  readonly #real = { setTimeout, clearTimeout, now: Date.now, sinceStart: performance.now }
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
    performance.now = () => this.nowMs - START_MS
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
      await settle()
    }
    this.nowMs = endMs
    await settle()
  }

  stop(): void {
    globalThis.setTimeout = this.#real.setTimeout
    globalThis.clearTimeout = this.#real.clearTimeout
    Date.now = this.#real.now
    performance.now = this.#real.sinceStart
  }
}

const channel = new MessageChannel()
const turns: (() => void)[] = []
channel.port1.onmessage = () => turns.shift()?.()
/** A turn of the event loop, which no clock holds up. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    turns.push(resolve)
    channel.port2.postMessage(0)
  })
}

/** How many requests are on their way to the broker, or their answers to the client; none of those that wait. */
let onTheirWay = 0

/** Turns until nothing is on its way: a browser reads answers beside its loop, in a time that the clock knows nothing of. */
async function settle(): Promise<void> {
  do await turn()
  while (onTheirWay > 0)
}

/** Counts what is on its way until it has come. */
async function come<T>(what: Promise<T>): Promise<T> {
  onTheirWay++
  try {
    return await what
  } finally {
    onTheirWay--
  }
}

/** An answer with JSON, counted while it is read. */
function answer(words: Words, init?: ResponseInit): Response {
  const response = Response.json(words, init)
  const [json, text] = [response.json.bind(response), response.text.bind(response)]
  return Object.assign(response, { json: () => come(json()), text: () => come(text()) })
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
  /** Events of a durable that wait for an ack; those of all others are forgotten when they were sent. */
  readonly open = new Map<string, Map<number, Words>>()
  readonly streams = new Map<number, Stream>()
  socket: Socket | undefined
  readonly door = new Door(this)
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
    this.door.event(words)
    for (const stream of this.streams.values()) {
      if (!matches(stream.filter, topic)) continue
      this.say({ events: { subscription: stream.subscription, after: stream.cursor, cursor: offset, events: [words] } })
      stream.cursor = offset
    }
  }

  /** The connection ends. */
  drop(code: number): void {
    this.door.drop()
    this.streams.clear()
    this.socket?.onclose?.({ code, reason: '' })
    this.socket = undefined
  }

  /** Publishes, and answers what is a question. */
  publish({ topic, id, correlation, headers }: Words): Words {
    this.event(topic as string, { id, correlation })
    const { offset } = this
    const replyTo = (headers as Record<string, string> | undefined)?.['reply-to']
    if (replyTo) this.event(replyTo, { correlation })
    return { offset, id }
  }

  take({ id, ...request }: Words): void {
    const [[kind, body] = ['', {}]] = Object.entries(request) as [string, Words][]
    const answer = (words: Words): void => this.say({ reply: id, ...words })
    if (kind === 'connect') {
      const limits = { ping_interval_ms: 25_000, max_message_bytes: 1 << 20 }
      answer({ connected: { session: 's', subject: 'alice', log: LOG, first: 1, last: this.offset, ...limits } })
    } else if (kind === 'ping') answer({ pong: {} })
    else if (kind === 'refresh') answer({ refreshed: {} })
    else if (kind === 'publish') answer({ published: this.publish(body) })
    else if (kind === 'subscribe') this.#subscribe(body, answer)
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

/** How many of the newest events a read finds. */
const RECENT_MAX = 500

/** The same broker over HTTP: reads that wait, streams, durables that are fetched from. */
class Door {
  readonly #broker: Broker
  readonly #recent: Words[] = []
  readonly #waiting = new Set<() => void>()
  readonly #streams = new Set<{ filter: string; controller: ReadableStreamDefaultController<Uint8Array> }>()
  /** Which events of a durable are with the client, by its filter. */
  readonly #given = new Map<string, Set<number>>()
  /** Nobody answers. */
  down = false

  constructor(broker: Broker) {
    this.#broker = broker
  }

  event(words: Words): void {
    this.#recent.push(words)
    if (this.#recent.length > RECENT_MAX) this.#recent.shift()
    for (const { filter, controller } of this.#streams) {
      if (matches(filter, words.topic as string)) controller.enqueue(line(words))
    }
    this.wake()
  }

  wake(): void {
    for (const go of [...this.#waiting]) go()
  }

  /** Keeps streams that have nothing to say. */
  comment(): void {
    for (const { controller } of this.#streams) controller.enqueue(new TextEncoder().encode(':\n\n'))
  }

  drop(): void {
    for (const { controller } of this.#streams) controller.error(new TypeError('cut'))
    this.#streams.clear()
    this.#given.clear()
    this.wake()
  }

  readonly fetch = async (url: string, init: RequestInit): Promise<Response> => {
    await come(turn())
    if (this.down) throw new TypeError('there is no network')
    const { pathname, searchParams } = new URL(url)
    const signal = init.signal ?? new AbortController().signal
    const body = typeof init.body === 'string' ? (JSON.parse(init.body) as Words) : {}
    const { accept } = init.headers as Record<string, string>
    const [, , what, name = '', act] = pathname.split('/')
    const last = this.#broker.offset
    if (what === 'capabilities') return answer({ limits: { ping_interval_ms: 25_000 } })
    if (what === 'events' && init.method === 'POST') return answer(this.#broker.publish(body))
    if (what === 'events') {
      const filter = searchParams.get('topic') ?? ''
      const after = Number.parseInt(searchParams.get('after') ?? `${last}`, 10)
      const found = (): Words[] =>
        this.#recent.filter(({ offset, topic }) => Number(offset) > after && matches(filter, topic as string))
      if (accept === 'text/event-stream') return this.#stream(filter, after, found(), signal)
      const limit = Number(searchParams.get('limit'))
      const events = (await this.#waitFor(found, searchParams.get('wait'), signal)).slice(0, limit)
      const cursor = events.length === limit ? (events.at(-1)?.offset as number) : this.#broker.offset
      return answer({ events, cursor, log: LOG, first: 1, last: this.#broker.offset })
    }
    const filter = `${name}.*`
    if (init.method === 'GET' && !act && !this.#broker.open.has(filter))
      return answer({ code: 'not_found', detail: 'no such durable', retryable: false }, { status: 404 })
    const open = this.#broker.open.get(filter) ?? new Map<number, Words>()
    this.#broker.open.set(filter, open)
    const given = this.#given.get(filter) ?? new Set<number>()
    this.#given.set(filter, given)
    if (act === 'events') return this.#stream(filter, last, [...open.values()], signal, act)
    if (act === 'ack' || act === 'nack') {
      for (const offset of body.offsets as number[]) {
        given.delete(offset)
        const event = open.get(offset)
        if (act === 'ack') open.delete(offset)
        else if (event) this.#again(filter, [event])
      }
      this.wake()
    }
    if (act !== 'fetch') return answer({ cursor: last })
    const found = (): Words[] => [...open.values()].filter(({ offset }) => !given.has(offset as number))
    const events = (await this.#waitFor(found, body.wait as string, signal)).slice(0, body.limit as number)
    for (const { offset } of events) given.add(offset as number)
    // Whoever polls is told with the second delivery, and here with the first, so that one refusal is enough.
    const attempts = Object.fromEntries(events.map(({ offset }) => [offset, 2]))
    return answer({ events, attempts, cursor: this.#broker.offset })
  }

  #stream(filter: string, cursor: number, first: Words[], signal: AbortSignal, act?: string): Response {
    let gone = (): boolean => false
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        const stream = { filter, controller }
        this.#streams.add(stream)
        if (act === 'events') this.#again(filter, first)
        else for (const words of first) controller.enqueue(line(words))
        gone = () => this.#streams.delete(stream)
        signal.addEventListener('abort', () => gone() && controller.error(signal.reason))
      },
      cancel: () => void gone(),
    })
    return new Response(body, { headers: { 'tidings-log': LOG, 'tidings-cursor': `${cursor}` } })
  }

  /** Over a stream comes again what a durable has open. */
  #again(filter: string, events: Words[]): void {
    const attempts = JSON.stringify({ attempts: Object.fromEntries(events.map(({ offset }) => [offset, 2])) })
    const said = new TextEncoder().encode(`event: tidings.attempts\ndata: ${attempts}\n\n`)
    for (const { filter: of, controller } of this.#streams) {
      if (of !== filter) continue
      for (const piece of [said, ...events.map(line)]) controller.enqueue(piece)
    }
  }

  /** What is found at once, or within `wait` (`25s`). */
  async #waitFor(found: () => Words[], wait: string | null, signal: AbortSignal): Promise<Words[]> {
    const endMs = Date.now() + Number.parseInt(wait ?? '0', 10) * 1_000
    while (found().length === 0 && Date.now() < endMs && !this.down && !signal.aborted) {
      await new Promise<void>((resolve) => {
        const go = (): void => {
          this.#waiting.delete(go)
          clearTimeout(timer)
          signal.removeEventListener('abort', go)
          resolve()
        }
        const timer = setTimeout(go, endMs - Date.now())
        this.#waiting.add(go)
        signal.addEventListener('abort', go)
      })
    }
    if (signal.aborted) throw signal.reason
    if (this.down) throw new TypeError('cut')
    return found()
  }
}

/** An event as a stream has it. */
function line(words: Words): Uint8Array {
  return new TextEncoder().encode(`id: ${words.offset}@${LOG.slice(0, 8)}\ndata: ${JSON.stringify(words)}\n\n`)
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
  constructor(transport: TransportName = 'websocket', seen: (event: TidingsEvent) => void = () => {}) {
    const broker = this.#broker
    class Own extends Socket {
      constructor() {
        super(broker)
      }
    }
    const WebSocket = Own as unknown as typeof globalThis.WebSocket
    const client = createClient('http://day.test', {
      WebSocket,
      transports: [transport],
      fetch: ((url: string, init: RequestInit) => broker.door.fetch(url, init)) as typeof fetch,
      getToken: async ({ reason }) => `token ${reason} ${Date.now()}`,
    })
    this.client = client
    const got = (event: TidingsEvent): void => {
      this.figures.events++
      seen(event)
    }
    client.on('state', ({ state }) => {
      if (state === 'connected') this.figures.connections++
    })
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
      broker.door.down = second % 600 === 0
      if (second % 10 === 0) broker.door.comment()
      await this.#clock.advance(1_000)
    }
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
