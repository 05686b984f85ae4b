// A conversation on a topic: messages of all, streamed ones too, and how far our own have got.

import { uuidv7 } from '../core/uuid.js'
import type { TidingsError } from '../errors.js'
import type { AnySchema, Client, DataOf, EphemeralOptions, Subscription, TidingsEvent } from '../types.js'
import { type AssembledMessage, Assembly, CHUNK } from './assembly.js'
import { Sent } from './chat-sent.js'
import { type AnyClient, anyClient, fields, text, token, trim } from './data.js'
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
  /** Whether it is ours: sent here, or elsewhere as the same subject (but for `anonymous`, and `sharedSubject`). */
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
  /** Whether others write as the same subject: then only what was sent here is ours. Default `false`. */
  sharedSubject?: boolean
}

/**
 * A conversation. What was sent and waits, or has failed, outlives it: it is there again in the next one of the same
 * client, topic and type.
 */
export interface Chat<Data = unknown> extends Watched<ChatSnapshot<Data>> {
  /** Sends a message: a text is the data `{text}`. Resolved with its id at once; its state says what becomes of it. */
  send(message: string | Data, options?: { headers?: Record<string, string> }): string
  /** Sends one that failed again, under the id it has. */
  retry(id: string): void
  /** Takes one that failed off the list. */
  discard(id: string): void
}

/** The most receipts that are kept for messages that have not come yet. */
const EARLY_MAX = 1_000
const SOURCE = 'urn:tidings:subject:'

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
  readonly #type: string
  readonly #max: number
  readonly #receipts: boolean
  readonly #shared: boolean
  readonly #life: Lifetime
  readonly #store: Store<ChatSnapshot<Data>>
  readonly #sub: Subscription
  readonly #assembly: Assembly
  /** What is in the log, by id, in its order. */
  readonly #logged = new Map<string, ChatMessage<Data>>()
  readonly #sent: Sent
  /** The ids of our own by offset, for receipts. */
  readonly #offsets = new Map<number, string>()
  /** Who has acknowledged what is not known to be ours yet, by offset. */
  readonly #early = new Map<number, string[]>()
  /** Whose receipts are followed, from which offset on. */
  #receiptsOf: { subject: string; from: number; stop: () => unknown } | undefined

  constructor(client: AnyClient, topic: string, options: ChatOptions) {
    this.#client = client
    this.#type = options.type ?? 'message'
    this.#max = options.max ?? 500
    this.#receipts = options.receipts ?? true
    this.#shared = options.sharedSubject ?? false
    this.#life = new Lifetime(options.signal)
    this.#assembly = new Assembly({ maxMessages: this.#max })
    const [sent, leave] = Sent.follow(client, topic, this.#type, {
      changed: () => this.#store.changed(),
      answered: (id, offset) => this.#answered(id, offset),
    })
    this.#sent = sent
    this.#life.add(leave)
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
        this.#offsets.clear()
        this.#early.clear()
        void this.#receiptsOf?.stop()
        this.#receiptsOf = undefined
      }
      this.#store.changed()
    })
    this.#life.add(() => this.#sub.unsubscribe())
    this.#life.add(() => this.#receiptsOf?.stop())
    this.#life.add(() => this.#store.flush())
  }

  send(message: string | Data, options: { headers?: Record<string, string> } = {}): string {
    const id = uuidv7()
    const data = typeof message === 'string' ? { text: message } : message
    const pending: ChatMessage<unknown> = {
      id,
      state: 'pending',
      own: true,
      text: textOf(data),
      data,
      source: undefined,
      offset: undefined,
      time: new Date().toISOString(),
      deliveredTo: [],
      error: undefined,
    }
    const { headers } = options
    this.#sent.add({ message: pending as ChatMessage<never>, data, headers, receipts: this.#receipts })
    return id
  }

  retry(id: string): void {
    this.#sent.retry(id)
  }

  discard(id: string): void {
    this.#sent.discard(id)
  }

  /** The broker has one of our own. It is shown as sent also where the subscription has begun behind it. */
  #answered(id: string, offset: number): void {
    this.#isOurs(id, offset)
    this.#followReceipts(offset)
    this.#store.changed()
  }

  #isOurs(id: string, offset: number): void {
    this.#offsets.set(offset, id)
    trim(this.#offsets, this.#max)
    const early = this.#early.get(offset)
    this.#early.delete(offset)
    for (const subscription of early ?? []) this.#delivered(id, subscription)
  }

  #take(event: TidingsEvent): void {
    if (event.type === CHUNK) {
      if (this.#assembly.take(event) === undefined || event.correlation === undefined) return
      const message = this.#assembly.get(event.correlation)
      if (message !== undefined)
        this.#logged.set(
          message.correlation,
          streamed<Data>(message, event, this.#isOfUs(event), this.#logged.get(message.correlation)),
        )
    } else {
      const before = this.#sent.messages.get(event.id)?.message
      this.#sent.messages.delete(event.id)
      const own = before !== undefined || this.#isOfUs(event)
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
        this.#isOurs(event.id, event.offset)
        this.#followReceipts(event.offset, event)
      }
    }
    trim(this.#logged, this.#max)
    this.#store.changed()
  }

  #isOfUs({ own, source }: TidingsEvent): boolean {
    const subject = this.#shared ? undefined : this.#client.session?.subject
    return own || (subject !== undefined && subject !== 'anonymous' && source === SOURCE + subject)
  }

  /**
   * Receipts come on a topic of the subject's, behind what they are for: a socket says who we are, else our own events
   * do. They are read from the first of our own on, which may come after one that was sent now.
   */
  #followReceipts(from: number, event?: TidingsEvent): void {
    const subject = this.#client.session?.subject ?? event?.source.replace(SOURCE, '')
    if (!this.#receipts || subject === undefined || this.#life.closed) return
    const before = this.#receiptsOf
    if (before?.subject === subject && before.from <= from) return
    void before?.stop()
    const wish = { after: from, types: ['receipt.acked'] }
    const sub = this.#client.subscribe(`$receipts.${token(subject)}`, wish, (event) => {
      const { offset, subscription } = fields(event.data)
      if (typeof offset !== 'number' || typeof subscription !== 'string') return
      const id = this.#offsets.get(offset)
      if (id !== undefined) return this.#delivered(id, subscription)
      this.#early.set(offset, [...(this.#early.get(offset) ?? []), subscription].slice(0, 100))
      trim(this.#early, EARLY_MAX)
    })
    this.#receiptsOf = { subject, from, stop: () => sub.unsubscribe() }
  }

  #delivered(id: string, subscription: string): void {
    const told = <Message extends ChatMessage>(message: Message): Message => {
      if (message.deliveredTo.includes(subscription)) return message
      return { ...message, state: 'delivered', deliveredTo: [...message.deliveredTo, subscription].slice(0, 100) }
    }
    const logged = this.#logged.get(id)
    if (logged !== undefined) this.#logged.set(id, told(logged))
    const sent = this.#sent.messages.get(id)
    if (sent !== undefined) sent.message = told(sent.message)
    this.#store.changed()
  }

  #show(): ChatSnapshot<Data> {
    const sent = [...this.#sent.messages.values()].map(({ message }) => message)
    const messages = [...this.#logged.values(), ...sent]
    return { messages, caughtUp: this.#sub?.caughtUp ?? false, error: this.#sub?.error }
  }
}

function streamed<Data>(
  message: AssembledMessage,
  event: TidingsEvent,
  own: boolean,
  before: ChatMessage<Data> | undefined,
): ChatMessage<Data> {
  return {
    id: message.correlation,
    state: message.complete || message.error !== undefined ? 'received' : 'streaming',
    own: before?.own ?? own,
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
