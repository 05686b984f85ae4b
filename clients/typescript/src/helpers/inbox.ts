// A user's notifications: what waits, what is read, and all devices in step.
//
// - The inbox is a durable subscription in mode `mirror`: every device gets what is not read, reading is an ack.
// - The broker tells other devices when the floor moves: when there is nothing unread below. What is read above it, and
//   whoever polls, is told by an event on a topic beside the notifications, where this client may publish there.
// - Who was away has missed both. The broker brings all that is open once more to who comes back, up to `caught_up`:
//   what has not come by then is read.

import type { TidingsError } from '../errors.js'
import type { AnySchema, Client, Priority, Subscription, TidingsEvent } from '../types.js'
import { anyClient, failure, fields, text, topicOf } from './data.js'
import { Lifetime, Store, type Watched, type WatchOptions } from './watch.js'

/** A notification. */
export interface InboxItem<Data = unknown> {
  /** Its place in the log; `markRead` takes it. */
  readonly offset: number
  /** The id of its event. */
  readonly id: string
  /** Where it was published. */
  readonly topic: string
  /** The type of its event. */
  readonly type: string
  /** Who published it. */
  readonly source: string
  /** When it was appended, RFC 3339. */
  readonly time: string
  /** How urgent it is. */
  readonly priority: Priority
  /** What it replaces: of several with one tag the newest is shown. */
  readonly tag: string | undefined
  /** What it says: a title, a level, actions, as the convention for notifications has them. */
  readonly data: Data | undefined
  /** Whether somebody has read it, on this device or another. */
  readonly read: boolean
}

/** An inbox as it stands. */
export interface InboxSnapshot<Data = unknown> {
  /** The newest first. */
  readonly items: readonly InboxItem<Data>[]
  /** How many are not read, also of those that are not kept here, of several with one tag one; 10,000 at most. */
  readonly unread: number
  /** Whether all that was there has been handed over. */
  readonly caughtUp: boolean
  /** Why nothing more will come; `undefined` while all is well. */
  readonly error: TidingsError | undefined
}

/** Options of `inbox`. */
export interface InboxOptions extends WatchOptions {
  /** Where its notifications come from. Default `users.<name>.notifications`. */
  filter?: string
  /** The durable that keeps what is read. Default `<name>-inbox`. */
  durable?: string
  /** Where a new one begins: at what is to come, or at the first there is. Default `first`. */
  start?: 'now' | 'first'
  /** The most items that are kept. Default 200. */
  maxItems?: number
  /** Show what was read before too, as old as this at most, in milliseconds. Default 604,800,000: a week. 0: none. */
  historyMs?: number
  /** Where devices tell each other what is read; `false`: nowhere, and they hear of it when all before it is read too. Default `inboxes.<durable>`. */
  syncTopic?: string | false
}

/** An inbox. */
export interface Inbox<Data = unknown> extends Watched<InboxSnapshot<Data>> {
  /** This one, or these, are read, with what they have replaced. Resolved when the broker knows; shown at once, and taken back where it fails. */
  markRead(offsets: number | readonly number[]): Promise<void>
  /** All that is here is read. What comes while it is on its way is not. */
  markAllRead(): Promise<void>
}

/** The most offsets in one ack. */
const ACK_MAX = 4_096
/** The most offsets of unread notifications that are remembered. */
const UNREAD_MAX = 10_000
/** The most events that are read to show what was read before. */
const HISTORY_MAX = 5_000

/** The inbox of a user. */
export function inbox<Data = unknown, S = AnySchema>(
  client: Client<S>,
  name: string,
  options: InboxOptions = {},
): Inbox<Data> {
  return new Box<Data>(client as unknown as Client, name, options)
}

class Box<Data> implements Inbox<Data> {
  readonly close: () => Promise<void>
  readonly snapshot: () => InboxSnapshot<Data>
  readonly subscribe: (listener: () => void) => () => void
  readonly #client: Client
  readonly #sub: Subscription
  readonly #store: Store<InboxSnapshot<Data>>
  readonly #max: number
  readonly #syncTopic: string | undefined
  /** By offset, rising. */
  #items = new Map<number, InboxItem<Data>>()
  #newest = 0
  readonly #unread = new Set<number>()
  /** Read out of turn on another device, perhaps before it came here. */
  readonly #readAhead = new Set<number>()
  /** Taken for read, since it was in the log and had not come. What comes after all is not. */
  readonly #past = new Set<number>()
  #floor = 0
  /** Of what was not read when the broker subscribed us, what has not come again. */
  #missing = new Set<number>()

  constructor(client: Client, name: string, options: InboxOptions) {
    const any = anyClient(client)
    const filter = options.filter ?? topicOf('users', `${name}.notifications`)
    const durable = options.durable ?? `${name}-inbox`
    const life = new Lifetime(options.signal)
    this.#client = any
    this.#max = options.maxItems ?? 200
    this.#syncTopic = options.syncTopic === false ? undefined : (options.syncTopic ?? `inboxes.${durable}`)
    this.#store = new Store(() => this.#show(), options.notifyMs)
    this.snapshot = this.#store.snapshot
    this.subscribe = this.#store.subscribe
    this.close = life.close
    const wish = { durable, mode: 'mirror', start: options.start ?? 'first', ack: 'manual' } as const
    this.#sub = any.subscribe(filter, wish, (event) => this.#take(event as TidingsEvent<Data>))
    this.#sub.on('subscribed', () => {
      this.#missing = new Set(this.#unread)
    })
    this.#sub.on('again', (offset) => this.#missing.delete(offset))
    this.#sub.on('acked', (floor) => this.#raise(floor))
    this.#sub.on('state', () => this.#store.changed())
    this.#sub.on('gap', (gap) => {
      if (gap.reason === 'log_changed') this.#reset()
    })
    life.add(() => this.#sub.unsubscribe())
    if (this.#syncTopic !== undefined) {
      const told = any.subscribe(this.#syncTopic, { types: ['inbox.read'] }, (event) => this.#told(event))
      life.add(() => told.unsubscribe())
    }
    life.add(() => this.#store.flush())
    const historyMs = options.historyMs ?? 604_800_000
    if (historyMs > 0) {
      const abort = new AbortController()
      life.add(() => abort.abort())
      // It is for show: without the right to read there is none.
      const begin = this.#sub.on('caught_up', () => {
        begin()
        this.#history(filter, historyMs, abort.signal).catch(() => undefined)
      })
    }
    this.#sub.on('caught_up', () => this.#settle())
  }

  async markRead(offsets: number | readonly number[]): Promise<void> {
    const these = new Set(typeof offsets === 'number' ? [offsets] : offsets)
    // What one has replaced is read with it.
    const newest = new Map<string, number>()
    for (const { offset, tag } of this.#items.values())
      if (tag !== undefined && these.has(offset)) newest.set(tag, offset)
    for (const { offset, tag = '' } of this.#items.values()) if (offset < (newest.get(tag) ?? 0)) these.add(offset)
    const wanted = [...these].filter((offset) => this.#unread.has(offset))
    for (let at = 0; at < wanted.length; at += ACK_MAX) await this.#ack(wanted.slice(at, at + ACK_MAX))
  }

  async markAllRead(): Promise<void> {
    await this.markRead([...this.#unread])
  }

  async #ack(offsets: number[]): Promise<void> {
    for (const offset of offsets) this.#mark(offset, true)
    try {
      await this.#sub.ack(offsets)
    } catch (error) {
      for (const offset of offsets) this.#mark(offset, false)
      throw failure(error)
    }
    if (this.#syncTopic === undefined) return
    const said = { type: 'inbox.read', priority: 'low', ttlMs: 60_000 } as const
    this.#client.publish(this.#syncTopic, { offsets }, said).catch(() => undefined)
  }

  #take(event: TidingsEvent<Data>): void {
    const { offset } = event
    // It comes again after a lost connection; whether it is read is known here.
    if (this.#unread.has(offset) || (this.#items.has(offset) && !this.#past.delete(offset))) return
    const read = offset <= this.#floor || this.#readAhead.delete(offset)
    if (!read) {
      this.#unread.add(offset)
      for (const oldest of this.#unread) {
        if (this.#unread.size <= UNREAD_MAX) break
        this.#unread.delete(oldest)
      }
    }
    this.#keep(itemOf(event, read))
    this.#store.changed()
  }

  /** What has not come was read while this device was away. */
  #settle(): void {
    for (const offset of this.#missing) if (this.#unread.has(offset)) this.#mark(offset, true)
    this.#missing.clear()
    this.#store.changed()
  }

  /** Keeps it in the order of offsets; the oldest go, those that are read before the others. */
  #keep(item: InboxItem<Data>): void {
    const inOrder = item.offset > this.#newest
    this.#newest = Math.max(this.#newest, item.offset)
    this.#items.set(item.offset, item)
    if (!inOrder) this.#items = new Map([...this.#items].sort(([a], [b]) => a - b))
    for (const [offset, { read }] of this.#items) {
      if (this.#items.size <= this.#max) return
      if (read) this.#items.delete(offset)
    }
    for (const offset of this.#items.keys()) {
      if (this.#items.size <= this.#max) return
      this.#items.delete(offset)
    }
  }

  /** Somebody has read all up to here. */
  #raise(floor: number): void {
    if (floor <= this.#floor) return
    this.#floor = floor
    for (const offset of this.#unread) if (offset <= floor) this.#mark(offset, true)
    for (const offset of this.#readAhead) if (offset <= floor) this.#readAhead.delete(offset)
    this.#store.changed()
  }

  #told(event: TidingsEvent): void {
    const { offsets } = fields(event.data)
    if (event.own || !Array.isArray(offsets)) return
    for (const offset of offsets.slice(0, ACK_MAX)) {
      if (typeof offset !== 'number') continue
      if (this.#unread.has(offset)) this.#mark(offset, true)
      else if (offset > this.#floor && this.#readAhead.size < ACK_MAX) this.#readAhead.add(offset)
    }
  }

  #mark(offset: number, read: boolean): void {
    if (read) this.#unread.delete(offset)
    else this.#unread.add(offset)
    const item = this.#items.get(offset)
    if (item !== undefined) this.#items.set(offset, { ...item, read })
    this.#store.changed()
  }

  /** What was read before this page was there: acknowledged, and not delivered any more. */
  async #history(filter: string, forMs: number, signal: AbortSignal): Promise<void> {
    let after: Date | number = new Date(Date.now() - forMs)
    for (let seen = 0; seen < HISTORY_MAX; ) {
      const page: { events: readonly TidingsEvent[]; cursor: number; last: number } = await this.#client.read(filter, {
        after,
        limit: 1_000,
        signal,
      })
      for (const event of page.events) {
        if (this.#items.has(event.offset) || this.#unread.has(event.offset)) continue
        this.#past.add(event.offset)
        this.#keep(itemOf(event as TidingsEvent<Data>, true))
      }
      this.#store.changed()
      seen += Math.max(1, page.events.length)
      if (page.cursor >= page.last || page.cursor === after) return
      after = page.cursor
    }
  }

  #reset(): void {
    this.#items.clear()
    this.#unread.clear()
    this.#readAhead.clear()
    this.#past.clear()
    this.#missing.clear()
    this.#floor = 0
    this.#newest = 0
    this.#store.changed()
  }

  #show(): InboxSnapshot<Data> {
    const tags = new Set<string>()
    const items: InboxItem<Data>[] = []
    let unread = this.#unread.size
    for (const item of [...this.#items.values()].reverse()) {
      if (item.tag === undefined || !tags.has(item.tag)) items.push(item)
      else if (!item.read) unread--
      if (item.tag !== undefined) tags.add(item.tag)
    }
    return { items, unread, caughtUp: this.#sub?.caughtUp ?? false, error: this.#sub?.error }
  }
}

function itemOf<Data>(event: TidingsEvent<Data>, read: boolean): InboxItem<Data> {
  const { offset, id, topic, type, source, time, priority, data } = event
  const tag = event.key ?? text(fields(data).tag)
  return { offset, id, topic, type, source, time, priority, tag, data, read }
}
