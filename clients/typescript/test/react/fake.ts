// A client without a broker: tests say what comes.

import type { TidingsError } from '../../src/errors.js'
import type {
  Client,
  EventHandler,
  Gap,
  Member,
  Published,
  PublishOptions,
  Session,
  Status,
  SubscribeOptions,
  Subscription,
  SubscriptionEvents,
  SubscriptionState,
  TidingsEvent,
} from '../../src/types.js'

type Listener = (...args: never[]) => void

class Emitter {
  #listeners = new Map<string, Set<Listener>>()

  on = (name: string, listener: Listener): (() => void) => {
    const listeners = this.#listeners.get(name) ?? new Set()
    this.#listeners.set(name, listeners)
    listeners.add(listener)
    return () => void listeners.delete(listener)
  }

  tell(name: string, ...args: unknown[]): void {
    for (const listener of this.#listeners.get(name) ?? []) listener(...(args as never[]))
  }

  count(): number {
    let count = 0
    for (const listeners of this.#listeners.values()) count += listeners.size
    return count
  }
}

export class FakeSubscription {
  readonly emitter = new Emitter()
  readonly on = this.emitter.on as Subscription['on']
  readonly durable: string | undefined
  state: SubscriptionState = 'subscribing'
  cursor = 0
  log: string | undefined = 'a'
  caughtUp = false
  error: TidingsError | undefined
  acked: number[] = []
  paused = false

  constructor(
    readonly filters: readonly string[],
    readonly options: SubscribeOptions,
    readonly handler: EventHandler | undefined,
    private readonly owner: FakeClient,
  ) {
    this.durable = options.durable
  }

  get saved() {
    return { log: 'a', cursor: this.cursor }
  }

  ready = async (): Promise<void> => {}
  ack = async (events: unknown): Promise<void> => {
    for (const event of Array.isArray(events) ? events : [events]) this.acked.push(offsetOf(event))
  }
  ackUpTo = async (event: unknown): Promise<void> => void this.acked.push(offsetOf(event))
  nack = async (): Promise<void> => {}
  pause = (): void => {
    this.paused = true
  }
  resume = (): void => {
    this.paused = false
  }

  unsubscribe = async (): Promise<void> => {
    this.state = 'closed'
    this.owner.subscriptions = this.owner.subscriptions.filter((subscription) => subscription !== this)
  }

  /** Comes to this state. */
  become(state: SubscriptionState): void {
    this.state = state
    this.emitter.tell('state', state)
    if (state !== 'live' || this.caughtUp) return
    this.caughtUp = true
    this.emitter.tell('caught_up', this.cursor)
  }

  /** The broker wants none of it. */
  refuse(error: TidingsError): void {
    this.error = error
    this.emitter.tell('error', error)
    this.become('closed')
  }

  /** An event comes. */
  deliver(event: TidingsEvent): void {
    this.handler?.(event, this as unknown as Subscription)
    this.cursor = event.offset
  }

  tell<K extends keyof SubscriptionEvents>(name: K, ...args: SubscriptionEvents[K]): void {
    this.emitter.tell(name, ...args)
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<TidingsEvent> {}
}

function offsetOf(event: unknown): number {
  return typeof event === 'number' ? event : (event as TidingsEvent).offset
}

export interface FakePublish {
  topic: string
  data: unknown
  options: PublishOptions
  resolve: (published: Published) => void
  reject: (error: unknown) => void
}

export class FakeClient {
  readonly emitter = new Emitter()
  readonly on = this.emitter.on as Client['on']
  subscriptions: FakeSubscription[] = []
  /** Every subscription that there ever was. */
  opened: FakeSubscription[] = []
  published: FakePublish[] = []
  members: Member[] = []
  presenceReads = 0
  connects = 0
  session: Session | undefined = { id: 'session-1', subject: 'me', log: 'a' }
  status: Status = {
    state: 'connected',
    transport: 'websocket',
    since: 1,
    attempt: 0,
    nextRetryAt: undefined,
    latencyMs: 12,
    outboxEvents: 0,
    error: undefined,
  }
  #offset = 0
  /** Whether publishes are answered at once. */
  answers = true

  get state() {
    return this.status.state
  }

  connect = (): void => {
    this.connects += 1
  }
  disconnect = (): void => {}
  ready = async (): Promise<void> => {}
  close = async (): Promise<void> => {}

  subscribe = (
    filter: string | readonly string[],
    options?: SubscribeOptions | EventHandler,
    onEvent?: EventHandler,
  ): FakeSubscription => {
    const [said, handler] = typeof options === 'function' ? [{}, options] : [options ?? {}, onEvent]
    const filters = typeof filter === 'string' ? [filter] : filter
    const subscription = new FakeSubscription(filters, said, handler, this)
    this.subscriptions.push(subscription)
    this.opened.push(subscription)
    return subscription
  }

  publish = (topic: string, data?: unknown, options: PublishOptions = {}): Promise<Published> => {
    return new Promise((resolve, reject) => {
      this.published.push({ topic, data, options, resolve, reject })
      if (this.answers) resolve(this.answer(options.id))
    })
  }

  answer(id = 'id'): Published {
    this.#offset += 1
    return { offset: this.#offset, id, duplicate: false, scheduled: false }
  }

  presence = async (): Promise<Member[]> => {
    this.presenceReads += 1
    return this.members
  }
  receipts = async () => []
  topics = async () => ({ topics: [] })
  cancel = async (): Promise<void> => {}
  request = async (): Promise<TidingsEvent> => event()
  read = async () => ({ events: [], cursor: 0, log: 'a', first: 0, last: 0 })
  call = async (): Promise<undefined> => undefined
  publishBatch = async (): Promise<Published[]> => []

  /** The status becomes this. */
  become(status: Partial<Status>): void {
    const before = this.status
    this.status = { ...before, ...status }
    this.emitter.tell('status', this.status)
    if (before.state !== this.status.state || before.transport !== this.status.transport) {
      this.emitter.tell('state', this.status)
    }
    if (before.outboxEvents !== this.status.outboxEvents) this.emitter.tell('outbox', this.status.outboxEvents)
  }

  /** Delivers to every subscription whose filters match. */
  deliver(event: TidingsEvent): void {
    for (const subscription of [...this.subscriptions]) {
      if (subscription.filters.some((filter) => matches(filter, event.topic))) subscription.deliver(event)
    }
  }

  as(): Client {
    return this as unknown as Client
  }
}

function matches(filter: string, topic: string): boolean {
  const tokens = topic.split('.')
  const wanted = filter.split('.')
  for (const [index, token] of wanted.entries()) {
    if (token === '>') return tokens.length > index
    if (token !== '*' && token !== tokens[index]) return false
  }
  return wanted.length === tokens.length
}

let offsets = 0

/** An event with what the test says of it. */
export function event<Data = unknown>(said: Partial<TidingsEvent<Data>> = {}): TidingsEvent<Data> {
  offsets += 1
  return {
    offset: offsets,
    topic: 'tasks.1',
    id: `event-${offsets}`,
    type: 'message',
    source: 'test',
    time: '2026-11-22T07:00:00Z',
    priority: 'normal',
    attempts: 1,
    own: false,
    ...said,
  }
}

export function gap(said: Partial<Gap> = {}): Gap {
  return { requested: 1, first: 5, last: 9, log: 'a', reason: 'retention', ...said }
}
