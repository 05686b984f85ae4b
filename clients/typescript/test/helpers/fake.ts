// A client over a log in memory, for tests of logic with fake timers: what is published is handed over at once, unless
// the test holds it or refuses it.

import { within } from '../../src/helpers/data.js'
import { TidingsError } from '../../src/index.js'
import type {
  Client,
  EventHandler,
  Gap,
  Published,
  PublishOptions,
  PublishRequest,
  SubscribeOptions,
  Subscription,
  SubscriptionEvents,
  TidingsEvent,
} from '../../src/types.js'

type Listener = (...args: unknown[]) => void

class FakeSubscription {
  readonly durable: string | undefined
  readonly acked: number[] = []
  state = 'live'
  caughtUp = false
  error: TidingsError | undefined
  cursor = 0
  log = 'l'
  readonly #listeners = new Map<string, Set<Listener>>()
  readonly #waiting: TidingsEvent[] = []
  #wake = () => {}
  #busy = false

  constructor(
    readonly filters: string[],
    readonly options: SubscribeOptions,
    readonly handler: EventHandler | undefined,
  ) {
    this.durable = options.durable
  }

  get saved() {
    return { log: this.log, cursor: this.cursor }
  }

  wants(event: TidingsEvent): boolean {
    const { types } = this.options
    const typed =
      types === undefined ||
      types.some((type) => type === event.type || (type.endsWith('.*') && event.type.startsWith(type.slice(0, -1))))
    return this.state !== 'closed' && typed && this.filters.some((filter) => within(event.topic, filter))
  }

  offer(event: TidingsEvent): void {
    this.cursor = event.offset
    this.#waiting.push(event)
    if (this.handler) this.#hand(this.handler)
    this.#wake()
  }

  /** One after the other; at once where the handler does not wait. */
  #hand(handler: EventHandler): void {
    while (!this.#busy) {
      const event = this.#waiting.shift()
      if (event === undefined) return
      const result = handler(event, this as unknown as Subscription)
      if (!(result instanceof Promise)) continue
      this.#busy = true
      const done = () => {
        this.#busy = false
        this.#hand(handler)
      }
      result.then(done, done)
    }
  }

  on<K extends keyof SubscriptionEvents>(name: K, listener: (...args: SubscriptionEvents[K]) => void): () => void {
    const listeners = this.#listeners.get(name) ?? new Set()
    const own = listener as unknown as Listener
    this.#listeners.set(name, listeners.add(own))
    return () => void listeners.delete(own)
  }

  tell<K extends keyof SubscriptionEvents>(name: K, ...args: SubscriptionEvents[K]): void {
    if (name === 'caught_up') this.caughtUp = true
    for (const listener of this.#listeners.get(name) ?? []) listener(...args)
  }

  refuse(error: TidingsError): void {
    this.error = error
    this.state = 'closed'
    this.tell('state', 'closed')
    this.#wake()
  }

  async ready(): Promise<void> {}

  async ack(events: number | readonly number[]): Promise<void> {
    if (this.state === 'closed') throw new TidingsError('closed', 'closed')
    this.acked.push(...(typeof events === 'number' ? [events] : events))
  }

  async unsubscribe(): Promise<void> {
    this.state = 'closed'
    this.#wake()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<TidingsEvent> {
    for (;;) {
      const event = this.#waiting.shift()
      if (event) yield event
      else if (this.state === 'closed') return
      else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
    }
  }
}

export class Fake {
  readonly log: TidingsEvent[] = []
  readonly subs: FakeSubscription[] = []
  state = 'connected'
  session = { id: 's1', subject: 'alice', log: 'l' }
  /** Publishes that wait for the test, oldest first; only while `holding`. */
  readonly held: { requests: PublishRequest[]; answer: () => void; refuse: (error: TidingsError) => void }[] = []
  holding = false
  /** What the next publish is refused with. */
  refusal: TidingsError | undefined

  /** As the helpers take it. */
  get client(): Client {
    return this as unknown as Client
  }

  async publish(topic: string, data: unknown, { signal: _, ...options }: PublishOptions = {}): Promise<Published> {
    const [published] = await this.publishBatch([{ topic, data, ...options }])
    if (published === undefined) throw new Error('a batch of one has one answer')
    return published
  }

  publishBatch(requests: PublishRequest[]): Promise<Published[]> {
    return new Promise((resolve, reject) => {
      const answer = () => resolve(requests.map((request) => this.append(request)))
      if (this.refusal !== undefined) {
        reject(this.refusal)
        this.refusal = undefined
      } else if (this.holding) this.held.push({ requests, answer, refuse: reject })
      else answer()
    })
  }

  append(request: PublishRequest, more: Partial<TidingsEvent> = {}): Published {
    const offset = this.log.length + 1
    const {
      topic,
      type = 'message',
      id = `id-${offset}`,
      data,
      key,
      correlation,
      headers,
      priority = 'normal',
    } = request
    const event: TidingsEvent = {
      offset,
      topic,
      id,
      type,
      source: 'urn:tidings:subject:alice',
      time: new Date().toISOString(),
      priority,
      attempts: 1,
      own: true,
      ...(data !== undefined && { data: JSON.parse(JSON.stringify(data)) }),
      ...(key !== undefined && { key }),
      ...(correlation !== undefined && { correlation }),
      ...(headers !== undefined && { headers }),
      ...more,
    }
    this.log.push(event)
    for (const sub of this.subs) if (sub.wants(event)) sub.offer(event)
    return { offset, id, duplicate: false, scheduled: false }
  }

  /** Something that another client publishes. */
  other(request: PublishRequest, more: Partial<TidingsEvent> = {}): Published {
    return this.append(request, { own: false, source: 'urn:tidings:subject:bob', ...more })
  }

  subscribe(
    filter: string | string[],
    options: SubscribeOptions | EventHandler = {},
    handler?: EventHandler,
  ): Subscription {
    const [chosen, onEvent] = typeof options === 'function' ? [{}, options] : [options, handler]
    const sub = new FakeSubscription(typeof filter === 'string' ? [filter] : filter, chosen, onEvent)
    this.subs.push(sub)
    const after = chosen.durable === undefined ? chosen.after : undefined
    const from =
      after === 'first' || chosen.lastPerKey || chosen.durable ? 0 : typeof after === 'number' ? after : this.log.length
    const found = this.log.slice(from).filter((event) => sub.wants(event))
    queueMicrotask(() => {
      for (const event of found) sub.offer(event)
      if (sub.state !== 'closed') sub.tell('caught_up', this.log.length)
    })
    return sub as unknown as Subscription
  }

  async read(topic: string, { after = 0, limit = 100 }: { after?: number | 'first' | Date; limit?: number } = {}) {
    const from = typeof after === 'number' ? after : 0
    const found = this.log
      .slice(from)
      .filter((event) => within(event.topic, topic))
      .slice(0, limit)
    const last = this.log.length
    return {
      events: found,
      cursor: found.length === limit ? (found.at(-1)?.offset ?? last) : last,
      log: 'l',
      first: 1,
      last,
    }
  }

  async presence() {
    return []
  }

  /** The only subscription that is open. */
  get sub(): FakeSubscription {
    const open = this.subs.filter(({ state }) => state !== 'closed')
    const [sub] = open
    if (sub === undefined || open.length > 1) throw new Error(`there are ${open.length} subscriptions`)
    return sub
  }

  gap(sub: FakeSubscription, reason: Gap['reason']): void {
    sub.tell('gap', { requested: 1, first: 5, last: 9, log: 'l2', reason })
  }
}
