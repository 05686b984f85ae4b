// One subscription: what it wants of the connection, what has come, and who takes it.
//
// - The feed is open while there is a connection, room in the buffer, and nobody has paused: closing it and opening it
//   again after the cursor is all there is to pausing, backpressure and a change of transport.
// - Items are handed over one after the other, in the order of the stream, by the handler's loop or by an iterator.

import { TidingsError } from '../errors.js'
import type {
  Acknowledged,
  CallOptions,
  EventHandler,
  Gap,
  NackOptions,
  SavedCursor,
  SubscribeOptions,
  Subscription,
  SubscriptionEvents,
  SubscriptionState,
  TidingsEvent,
} from '../types.js'
import type { Words } from '../wire.js'
import { Acks, ended, offsetsOf } from './acks.js'
import { Buffer, eventBytes } from './buffer.js'
import { Emitter } from './emitter.js'
import type { Home } from './home.js'
import { iterate } from './iterate.js'
import type { Feed, Link, Sink } from './link.js'
import { type Batch, Track } from './track.js'
import { verdictOf } from './verdict.js'
import { abortable, isPromise, type Timer } from './wait.js'
import { subscribeWords, toEvent, wordsOf } from './words.js'

/** How long to wait before a subscribe is tried again that the broker refused for now without saying how long. */
const RETRY_MS = 1_000

export class LiveSubscription implements Subscription, Sink {
  readonly filters: readonly string[]
  readonly durable: string | undefined
  readonly key: string | undefined
  state: SubscriptionState = 'subscribing'
  cursor = 0
  log: string | undefined
  caughtUp = false
  error: TidingsError | undefined

  readonly #options: SubscribeOptions
  readonly #home: Home
  readonly #handler: EventHandler | undefined
  readonly #emitter: Emitter<SubscriptionEvents>
  readonly #acks: Acks
  readonly #buffer: Buffer
  #track: Track
  #link: Link | undefined
  #feed: Feed | undefined
  #live = false
  /** The place is known: at once, or when the store has answered. */
  #placed: boolean
  #paused = false
  /** Another session has it: it is not asked for again. */
  #taken = false
  #handling = false
  #retry: Timer
  #wakers: (() => void)[] = []
  #subscribedOnce = false

  constructor(filters: readonly string[], options: SubscribeOptions, handler: EventHandler | undefined, home: Home) {
    this.filters = filters
    this.#options = options
    this.#home = home
    this.#handler = handler
    this.durable = options.durable
    this.key = options.durable === undefined ? options.key : undefined
    this.#placed = this.key === undefined
    this.#track = new Track(subscribeWords(filters, options), options)
    this.#buffer = new Buffer(options.bufferEvents ?? 1_000, options.bufferBytes ?? 1 << 20)
    this.#emitter = new Emitter((cause) => home.failed(cause))
    this.#acks = new Acks(
      options,
      (cursor) => this.#move(cursor),
      (error) => this.state === 'closed' || home.failed(error),
    )
    const { signal } = options
    if (signal?.aborted) this.#close(undefined)
    signal?.addEventListener('abort', this.#aborted)
  }

  readonly #aborted = (): void => void this.unsubscribe()

  /** The store's answer: where to go on. */
  place(saved: SavedCursor | undefined): void {
    if (saved) {
      this.#track = new Track(this.#track.request(), this.#options, saved)
      this.cursor = saved.cursor
      this.log = saved.log
    }
    this.#placed = true
    this.#sync()
  }

  /** There is a connection, or none. Where there was another, its feed is closed first. */
  attach(link: Link | undefined): void {
    this.#drop(link !== undefined)
    this.#link = link
    this.#sync()
  }

  // ---- What a program calls.

  get saved(): SavedCursor | undefined {
    return this.log === undefined ? undefined : { log: this.log, cursor: this.cursor }
  }

  ready(options: { signal?: AbortSignal } = {}): Promise<void> {
    return abortable(options.signal, (resolve, reject) => {
      const look = (): void => {
        if (this.#subscribedOnce) resolve()
        else if (this.state === 'closed') reject(this.error ?? ended())
      }
      look()
      return this.on('state', look)
    })
  }

  on<K extends keyof SubscriptionEvents>(name: K, listener: (...args: SubscriptionEvents[K]) => void): () => void {
    return this.#emitter.on(name, listener)
  }

  ack(events: Acknowledged | readonly Acknowledged[], options: CallOptions = {}): Promise<void> {
    return this.#say('ack', { offsets: offsetsOf(events) }, options.signal)
  }

  ackUpTo(event: Acknowledged, options: CallOptions = {}): Promise<void> {
    return this.#say('ack', { offset: offsetsOf(event)[0] }, options.signal)
  }

  nack(events: Acknowledged | readonly Acknowledged[], options: NackOptions = {}): Promise<void> {
    const { delayMs, reason, signal } = options
    return this.#say('nack', wordsOf({ offsets: offsetsOf(events), delayMs, reason }), signal)
  }

  pause(): void {
    this.#paused = true
    this.#drop(true)
    this.#sync()
  }

  resume(): void {
    this.#paused = false
    this.#sync()
    this.#wake()
  }

  async unsubscribe(): Promise<void> {
    if (this.state === 'closed') return
    const feed = this.#feed
    this.#feed = undefined
    this.#buffer.clear()
    // What was acknowledged before arrives first, where there is a connection.
    const said = this.#live ? this.#acks.drain() : undefined
    this.#close(undefined)
    await said
    this.#acks.end(ended())
    await feed?.close()
  }

  [Symbol.asyncIterator](): AsyncIterator<TidingsEvent, undefined> {
    return iterate({
      next: () => {
        if (this.#handler) throw new TidingsError('invalid_argument', 'this subscription hands its events to a handler')
        const event = this.#paused ? undefined : this.#take()
        if (event || this.state !== 'closed') return event ?? 'none'
        if (this.error) throw this.error
        return 'over'
      },
      done: (event) => this.#settle(event),
      wait: () => new Promise((resolve) => this.#wakers.push(resolve)),
      leave: () => this.unsubscribe(),
    })
  }

  // ---- What the connection calls.

  request(): Words {
    return this.#track.request()
  }

  room(): number {
    return this.#buffer.room
  }

  subscribed(cursor: number, log: string | undefined): void {
    const before = this.#track.place?.log
    const known = log ?? before ?? ''
    // The stream began anew on the same feed: what nobody has taken comes again.
    if (this.#live && this.#track.leased) this.#acks.lost(this.#buffer.forgetEvents())
    if (before !== undefined && before !== known) this.#acks.forget()
    this.#track.subscribed(cursor, known)
    // From here on the place is known, also where no event ever comes.
    if (this.durable !== undefined || this.log === undefined) this.#move(cursor, known)
    this.#subscribedOnce = true
    this.#live = true
    this.#acks.attach(this.#feed)
    this.#sync()
  }

  batch(batch: Batch): boolean {
    const events = this.#track.batch(batch)
    if (events === undefined) {
      this.#drop(true)
      this.#sync()
      return false
    }
    for (const words of events) {
      const offset = words.offset as number
      const own = this.#home.isOwn(words.id as string)
      const event = toEvent(words, batch.attempts?.[offset] ?? 1, own)
      if (this.durable !== undefined && !this.#acks.offer(offset, this.#track.place?.log)) continue
      if (own && !this.#home.echo) {
        // In its place: what stands before it is not done.
        if (this.durable === undefined) this.#buffer.push({ mark: offset })
        else this.#settle(event)
      } else this.#buffer.push({ event, bytes: eventBytes(event) })
    }
    if (!this.durable && batch.cursor !== undefined) this.#buffer.push({ mark: batch.cursor })
    this.#sync()
    this.#wake()
    return true
  }

  caughtUpAt(cursor: number): void {
    this.#buffer.push({ caughtUp: cursor })
    this.#wake()
  }

  gap(gap: Gap): void {
    if (gap.reason === 'log_changed') this.#acks.forget()
    this.#track.gap(gap)
    this.#buffer.push({ gap })
    this.#wake()
  }

  acked(cursor: number): void {
    this.#move(cursor)
    this.#emitter.emit('acked', cursor)
  }

  superseded(): void {
    this.#taken = true
    this.#feed = undefined
    if (this.#track.leased) this.#buffer.forgetEvents()
    this.#buffer.push({ superseded: true })
    this.#wake()
  }

  refused(error: TidingsError): void {
    this.#drop(false)
    const { stop, rejected, afterMs } = verdictOf(error)
    if (stop || rejected) return this.end(error)
    this.#home.failed(error)
    this.#retry = setTimeout(() => {
      this.#retry = undefined
      this.#sync()
    }, afterMs ?? RETRY_MS)
    this.#sync()
  }

  /** The client ends, or the broker wants no more of it: what is here can still be pulled. */
  end(error: TidingsError): void {
    if (this.state === 'closed') return
    if (this.#handler || this.#track.leased) this.#buffer.clear()
    this.#drop(true)
    this.#emitter.emit('error', error)
    this.#close(error)
  }

  /** The client was told to end. */
  finish(): void {
    this.#buffer.clear()
    this.#drop(false)
    this.#close(undefined)
  }

  // ---- How it works.

  #sync(): void {
    const held = this.#paused || this.#taken || this.#retry !== undefined || (this.#buffer.full && !this.#track.leased)
    const open = this.#link !== undefined && this.#placed && !held && this.state !== 'closed'
    if (open && !this.#feed) this.#feed = this.#link?.subscribe(this)
    else if (!open && this.#feed) this.#drop(true)
    if (this.state !== 'closed') {
      const here = this.#live || (this.#buffer.full && this.#link !== undefined)
      this.#become(this.#paused ? 'paused' : !here ? 'subscribing' : this.caughtUp ? 'live' : 'catching-up')
    }
  }

  /** Closes the feed; what a lease brings again is taken out of the buffer. */
  #drop(tell: boolean): void {
    const feed = this.#feed
    this.#feed = undefined
    this.#live = false
    this.#acks.attach(undefined)
    if (feed) {
      if (tell) void feed.close()
      if (this.#track.leased) this.#acks.lost(this.#buffer.forgetEvents())
    }
  }

  #become(state: SubscriptionState): void {
    if (state === this.state) return
    this.state = state
    this.#emitter.emit('state', state)
  }

  #wake(): void {
    for (const waker of this.#wakers.splice(0)) waker()
    if (this.#handler && !this.#handling) void this.#handle(this.#handler)
  }

  async #handle(handler: EventHandler): Promise<void> {
    this.#handling = true
    while (!this.#paused) {
      const event = this.#take()
      if (!event) break
      try {
        const result = handler(event, this)
        if (isPromise(result)) await result
        this.#settle(event)
      } catch (cause) {
        this.#threw(event, cause)
      }
    }
    this.#handling = false
  }

  /** The next event; what stands before it is told. */
  #take(): TidingsEvent | undefined {
    for (;;) {
      const item = this.#buffer.take()
      if (item === undefined) return undefined
      if (this.#buffer.empty && !this.#feed) this.#sync()
      if ('event' in item) {
        this.#home.event(item.event, this)
        return item.event
      }
      if ('mark' in item) this.#move(item.mark)
      else if ('caughtUp' in item) {
        this.caughtUp = true
        this.#sync()
        this.#emitter.emit('caught_up', item.caughtUp)
      } else if ('gap' in item) {
        if (!this.durable) this.#move(Math.max(0, item.gap.first - 1), item.gap.log)
        this.#home.gap(item.gap, this)
        this.#emitter.emit('gap', item.gap)
      } else {
        this.#emitter.emit('superseded')
        this.#close(new TidingsError('superseded', 'another session has taken the subscription over'))
      }
    }
  }

  /** The event is done. */
  #settle(event: TidingsEvent): void {
    if (this.state === 'closed' && this.durable !== undefined) return
    if (this.durable === undefined) return this.#move(Math.max(this.cursor, event.offset))
    this.#acks.handled(event.offset, 'ack', this.#track.place?.log)
  }

  #threw(event: TidingsEvent, cause: unknown): void {
    const error = new TidingsError('internal', 'the handler of a subscription threw', { cause })
    this.#home.failed(error)
    this.#emitter.emit('error', error)
    if (this.durable === undefined) this.#settle(event)
    else this.#acks.handled(event.offset, 'nack', this.#track.place?.log)
  }

  #say(kind: 'ack' | 'nack', words: Words, signal: AbortSignal | undefined): Promise<void> {
    if (this.state === 'closed') return Promise.reject(this.error ?? ended())
    if (this.durable !== undefined) return this.#acks.say(kind, words, this.#track.place?.log, signal)
    return Promise.reject(new TidingsError('invalid_argument', 'only durables are acknowledged'))
  }

  #move(cursor: number, log = this.log): void {
    this.cursor = cursor
    this.log = log
    if (this.key !== undefined && log !== undefined) this.#home.moved(this.key, { log, cursor })
  }

  #close(error: TidingsError | undefined): void {
    if (this.state === 'closed') return
    this.error = error
    clearTimeout(this.#retry)
    this.#options.signal?.removeEventListener('abort', this.#aborted)
    if (error || !this.#live) this.#acks.end(error ?? ended())
    this.#become('closed')
    this.#home.closed(this)
    this.#wake()
    this.#emitter.clear()
  }
}
