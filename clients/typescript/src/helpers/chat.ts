// A conversation on a topic: messages of all, streamed ones too, and how far our own have got.

import { uuidv7 } from '../core/uuid.js'
import type { TidingsError } from '../errors.js'
import type { AnySchema, Client, DataOf, EphemeralOptions, Subscription, TidingsEvent } from '../types.js'
import { type AssembledMessage, Assembly, CHUNK } from './assembly.js'
import { type AnyClient, anyClient, failure, fields, text, token } from './data.js'
import { Lifetime, Store, type Watched, type WatchOptions } from './watch.js'

/**
 * How a message stands. Our own: `pending` until the broker has it, `sent`, `delivered` when a durable has acknowledged
 * it, `failed` when it was refused. Those of others: `received`, and `streaming` while chunks come.
 */
export type ChatState = 'pending' | 'sent' | 'delivered' | 'failed' | 'received' | 'streaming'

/** A message of a conversation. */
export interface ChatMessage<Data = unknown> {
  /** Its event's id; the correlation of a streamed one. */
  readonly id: string
  /** How it stands. */
  readonly state: ChatState
  /** Whether it was sent here. */
  readonly own: boolean
  /** `data.text`, or the data itself where that is a text; of a streamed one what has come of it. */
  readonly text: string
  /** As it was sent; `undefined` of a streamed one. */
  readonly data: Data | undefined
  /** Who sent it, `undefined` while it is pending. */
  readonly source: string | undefined
  /** Its place; `undefined` while it is pending. */
  readonly offset: number | undefined
  /** When it was appended; while it is pending when it was sent here. RFC 3339. */
  readonly time: string
  /** Names of the durables that have acknowledged it. */
  readonly deliveredTo: readonly string[]
  /** Why it failed, or why a streamed one broke off. */
  readonly error: TidingsError | undefined
}

/** A conversation as it stands. */
export interface ChatSnapshot<Data = unknown> {
  /** In the order of the log; what is not sent yet at the end. */
  readonly messages: readonly ChatMessage<Data>[]
  /** Whether all that was there has been handed over. */
  readonly caughtUp: boolean
  /** Why nothing more will come; `undefined` while all is well. */
  readonly error: TidingsError | undefined
}

/** Options of `chat`. */
export interface ChatOptions extends WatchOptions {
  /** Where to begin. Default `first`. */
  after?: EphemeralOptions['after']
  /** The type of messages. Default `message`; `typing` and others on the topic are not shown. */
  type?: string
  /** The most messages that are kept. Default 500; what is not sent yet does not count. */
  max?: number
  /** Whether our own are followed until they are delivered. Default `true`. */
  receipts?: boolean
}

/** A conversation. */
export interface Chat<Data = unknown> extends Watched<ChatSnapshot<Data>> {
  /** Sends a message: a text is the data `{text}`. Resolved with its id at once; its state says what becomes of it. */
  send(message: string | Data, options?: { headers?: Record<string, string> }): string
  /** Sends one that failed again, under the id it has. */
  retry(id: string): void
  /** Takes one that failed off the list. */
  discard(id: string): void
}

/** The most messages of our own that wait or have failed; the oldest that do not wait go first. */
const OWN_MAX = 1_000

interface Entry<Data> {
  message: ChatMessage<Data>
  /** What `send` was given, as long as it may have to be sent again. */
  again?: { data: unknown; headers: Record<string, string> | undefined }
}

/** Follows a conversation and takes part in it. Not with a client that was made with `echo: false`. */
export function chat<S = AnySchema, T extends string = string>(
  client: Client<S>,
  topic: T,
  options: ChatOptions = {},
): Chat<DataOf<S, T>> {
  return new Conversation<DataOf<S, T>>(anyClient(client), topic, options)
}

class Conversation<Data> implements Chat<Data> {
  readonly close: () => Promise<void>
  readonly snapshot: () => ChatSnapshot<Data>
  readonly subscribe: (listener: () => void) => () => void
  readonly #client: AnyClient
  readonly #topic: string
  readonly #type: string
  readonly #max: number
  readonly #receipts: boolean
  readonly #life: Lifetime
  readonly #store: Store<ChatSnapshot<Data>>
  readonly #sub: Subscription
  readonly #assembly: Assembly
  /** What is in the log, by id, in its order. */
  readonly #logged = new Map<string, ChatMessage<Data>>()
  /** What is ours and not seen in the log yet, by id. */
  readonly #own = new Map<string, Entry<Data>>()
  /** The ids of our own by offset, for receipts. */
  readonly #offsets = new Map<number, string>()
  #receiptsOf: string | undefined

  constructor(client: AnyClient, topic: string, options: ChatOptions) {
    this.#client = client
    this.#topic = topic
    this.#type = options.type ?? 'message'
    this.#max = options.max ?? 500
    this.#receipts = options.receipts ?? true
    this.#life = new Lifetime(options.signal)
    this.#assembly = new Assembly({ maxMessages: this.#max })
    this.#store = new Store(() => this.#show(), options.notifyMs)
    this.snapshot = this.#store.snapshot
    this.subscribe = this.#store.subscribe
    this.close = this.#life.close
    const wish = { after: options.after ?? ('first' as const), types: [this.#type, CHUNK] }
    this.#sub = client.subscribe(topic, wish, (event) => this.#take(event))
    this.#sub.on('caught_up', () => this.#store.changed())
    this.#sub.on('state', () => this.#store.changed())
    this.#sub.on('gap', (gap) => {
      if (gap.reason === 'log_changed') {
        this.#logged.clear()
        this.#assembly.clear()
      }
      this.#store.changed()
    })
    this.#life.add(() => this.#sub.unsubscribe())
    this.#life.add(() => this.#store.flush())
  }

  send(message: string | Data, options: { headers?: Record<string, string> } = {}): string {
    const id = uuidv7()
    const data = typeof message === 'string' ? { text: message } : message
    this.#own.set(id, {
      message: {
        id,
        state: 'pending',
        own: true,
        text: textOf(data),
        data: data as Data,
        source: undefined,
        offset: undefined,
        time: new Date().toISOString(),
        deliveredTo: [],
        error: undefined,
      },
      again: { data, headers: options.headers },
    })
    this.#bound()
    void this.#publish(id)
    return id
  }

  retry(id: string): void {
    const entry = this.#own.get(id)
    if (entry?.message.state !== 'failed') return
    entry.message = { ...entry.message, state: 'pending', error: undefined }
    void this.#publish(id)
  }

  discard(id: string): void {
    if (this.#own.get(id)?.message.state !== 'failed') return
    this.#own.delete(id)
    this.#store.changed()
  }

  async #publish(id: string): Promise<void> {
    const entry = this.#own.get(id)
    if (entry?.again === undefined) return
    this.#store.changed()
    this.#followReceipts()
    const { data, headers } = entry.again
    try {
      const published = await this.#client.publish(this.#topic, data, {
        id,
        type: this.#type,
        receipts: this.#receipts,
        ...(headers && { headers }),
      })
      this.#offsets.set(published.offset, id)
      for (const offset of this.#offsets.keys()) {
        if (this.#offsets.size <= this.#max) break
        this.#offsets.delete(offset)
      }
      this.#change(id, (message) => ({ ...message, state: 'sent', offset: published.offset }))
      // The subscription was asked to begin behind it, or has passed it: it is shown all the same.
    } catch (cause) {
      this.#change(id, (message) => ({ ...message, state: 'failed', error: failure(cause) }))
    }
  }

  #change(id: string, change: (message: ChatMessage<Data>) => ChatMessage<Data>): void {
    const entry = this.#own.get(id)
    const logged = this.#logged.get(id)
    if (entry !== undefined) entry.message = change(entry.message)
    // Its event came before its answer.
    else if (logged !== undefined && logged.state !== 'delivered') this.#logged.set(id, change(logged))
    this.#store.changed()
  }

  #take(event: TidingsEvent): void {
    if (event.type === CHUNK) {
      if (this.#assembly.take(event) === undefined || event.correlation === undefined) return
      const message = this.#assembly.get(event.correlation)
      if (message !== undefined)
        this.#logged.set(message.correlation, streamed<Data>(message, event, this.#logged.get(message.correlation)))
    } else {
      const before = this.#own.get(event.id)?.message
      this.#own.delete(event.id)
      const own = before !== undefined || event.own
      this.#logged.set(event.id, {
        id: event.id,
        state: before?.state === 'delivered' ? 'delivered' : own ? 'sent' : 'received',
        own,
        text: textOf(event.data),
        data: event.data as Data,
        source: event.source,
        offset: event.offset,
        time: event.time,
        deliveredTo: before?.deliveredTo ?? [],
        error: undefined,
      })
      if (own) {
        this.#offsets.set(event.offset, event.id)
        this.#followReceipts(event)
      }
    }
    for (const id of this.#logged.keys()) {
      if (this.#logged.size <= this.#max) break
      this.#logged.delete(id)
    }
    this.#store.changed()
  }

  /** Receipts come on a topic of the subject's: a socket says who we are, else our own events do. */
  #followReceipts(event?: TidingsEvent): void {
    const subject = this.#client.session?.subject ?? event?.source.replace(/^urn:tidings:subject:/, '')
    if (!this.#receipts || subject === undefined || subject === this.#receiptsOf) return
    this.#receiptsOf = subject
    const sub = this.#client.subscribe(`$receipts.${token(subject)}`, { types: ['receipt.acked'] }, (event) => {
      const { offset, subscription } = fields(event.data)
      const id = typeof offset === 'number' ? this.#offsets.get(offset) : undefined
      if (id === undefined || typeof subscription !== 'string') return
      const told = (message: ChatMessage<Data>): ChatMessage<Data> => {
        const deliveredTo = message.deliveredTo.includes(subscription)
          ? message.deliveredTo
          : [...message.deliveredTo, subscription].slice(0, 100)
        return { ...message, state: 'delivered', deliveredTo }
      }
      const logged = this.#logged.get(id)
      if (logged !== undefined) this.#logged.set(id, told(logged))
      const entry = this.#own.get(id)
      if (entry !== undefined) entry.message = told(entry.message)
      this.#store.changed()
    })
    this.#life.add(() => sub.unsubscribe())
  }

  #bound(): void {
    if (this.#own.size <= OWN_MAX) return
    for (const [id, { message }] of this.#own) if (message.state !== 'pending') return void this.#own.delete(id)
  }

  #show(): ChatSnapshot<Data> {
    const messages = [...this.#logged.values(), ...[...this.#own.values()].map(({ message }) => message)]
    return { messages, caughtUp: this.#sub?.caughtUp ?? false, error: this.#sub?.error }
  }
}

function streamed<Data>(
  message: AssembledMessage,
  event: TidingsEvent,
  before: ChatMessage<Data> | undefined,
): ChatMessage<Data> {
  return {
    id: message.correlation,
    state: message.complete || message.error !== undefined ? 'received' : 'streaming',
    own: before?.own ?? event.own,
    text: message.text,
    data: undefined,
    source: message.source,
    offset: before?.offset ?? event.offset,
    time: before?.time ?? event.time,
    deliveredTo: [],
    error: message.error,
  }
}

function textOf(data: unknown): string {
  return typeof data === 'string' ? data : (text(fields(data).text) ?? '')
}
