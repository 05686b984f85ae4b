// What is published and not answered, in the order in which it was published. The machine; storage is behind it.
//
// - An entry is stored, then sent, then answered, then forgotten. It is sent again, under the same ids, on every new
//   connection until it is answered: the broker appends it once.
// - Entries are sent in their order. Where one is to be tried later, nothing is sent meanwhile.

import { TidingsError } from '../errors.js'
import type { OutboxEntry, OutboxEvent, OutboxOptions, OutboxStorage } from '../options.js'
import type { Published } from '../types.js'
import type { Link } from './link.js'
import { verdictOf } from './verdict.js'
import { abortable } from './wait.js'
import { sizeOf } from './words.js'

/** How many bytes may be on their way. */
const FLIGHT_BYTES = 1 << 20
/** How long to wait after an answer that says to try again and not when. */
const RETRY_MS = 500

interface Item {
  readonly entry: OutboxEntry
  /** Stored, where there is a storage: only then it is sent. */
  stored: boolean
  /** It was sent on the connection that there is. */
  sent: boolean
  readonly resolve: (published: Published[]) => void
  readonly reject: (error: TidingsError) => void
}

/** What an outbox needs of its client. */
export interface OutboxHooks {
  /** The number of events has changed. */
  changed(events: number): void
  /** Something failed that no caller waits for. */
  failed(error: TidingsError): void
}

export class Outbox {
  readonly #storage: OutboxStorage | undefined
  readonly #maxEvents: number
  readonly #maxBytes: number
  readonly #maxAgeMs: number
  readonly #dropOldest: boolean
  readonly #hooks: OutboxHooks
  #items: Item[] = []
  readonly #ids = new Set<string>()
  #events = 0
  #bytes = 0
  #link: Link | undefined
  #flight = 0
  #flightBytes = 0
  #hold: ReturnType<typeof setTimeout> | undefined
  #expiry: ReturnType<typeof setTimeout> | undefined
  #open: Promise<void> = Promise.resolve()
  /** The storage is open. Where it cannot be had, what is published is kept in memory, which is told once. */
  #stores = false
  #told = false
  #closed = false

  constructor(options: OutboxOptions, hooks: OutboxHooks) {
    this.#storage = options.storage === 'memory' ? undefined : options.storage
    this.#maxEvents = options.maxEvents ?? 1_000
    this.#maxBytes = options.maxBytes ?? 5_000_000
    this.#maxAgeMs = options.maxAgeMs ?? 86_400_000
    this.#dropOldest = options.overflow === 'drop-oldest'
    this.#hooks = hooks
    this.resume()
  }

  /** Opens the storage, and takes over what others have left in it. */
  resume(): void {
    if (!this.#storage) return
    this.#open = this.#storage
      .open((entries) => this.#adopt(entries))
      .then(() => true)
      .catch((cause) => {
        const error = new TidingsError('internal', 'the storage of the outbox cannot be opened', { cause })
        if (!this.#told) this.#hooks.failed(error)
        this.#told = true
        return false
      })
      .then((stores) => {
        this.#stores = stores
      })
  }

  /** The page may go: the storage is let go of. What is here stays and is sent again, which changes nothing. */
  async suspend(): Promise<void> {
    await this.#storage?.close()
  }

  /** Takes over a publish: its answer. */
  add(events: readonly OutboxEvent[], batch: boolean, signal: AbortSignal | undefined): Promise<Published[]> {
    if (this.#closed) return Promise.reject(closed())
    const [first] = events
    if (!first) return Promise.resolve([])
    const bytes = events.reduce((sum, event) => sum + sizeOf(event), 0)
    const entry: OutboxEntry = { id: first.id, at: Date.now(), bytes, batch, events }
    if (this.#ids.has(entry.id)) {
      return Promise.reject(new TidingsError('conflict', `an event of the id ${entry.id} waits in the outbox already`))
    }
    if (!this.#makeRoom(events.length, bytes)) {
      const room = `${this.#maxEvents} events and ${this.#maxBytes} bytes`
      return Promise.reject(new TidingsError('outbox_full', `the outbox has room for ${room}`))
    }
    return abortable(signal, (resolve, reject) => {
      const item: Item = { entry, stored: !this.#storage, sent: false, resolve, reject }
      this.#push(item)
      if (this.#storage) void this.#store(item, this.#storage)
      else this.#pump()
      // What has been sent may have arrived: it stays until that is known.
      return () => signal?.aborted && !item.sent && this.#remove(item)
    })
  }

  /** There is a connection, or none: what is unanswered is sent again. */
  attach(link: Link | undefined): void {
    this.#link = link
    this.#flight = this.#flightBytes = 0
    for (const item of this.#items) item.sent = false
    this.#pump()
  }

  /** Those who wait are told; what is stored stays there. */
  async close(): Promise<void> {
    this.#closed = true
    this.attach(undefined)
    clearTimeout(this.#hold)
    clearTimeout(this.#expiry)
    for (const item of this.#items.splice(0)) item.reject(closed())
    await this.#open
    await this.#storage?.close()
  }

  #makeRoom(events: number, bytes: number): boolean {
    const fits = (): boolean => this.#events + events <= this.#maxEvents && this.#bytes + bytes <= this.#maxBytes
    while (!fits() && this.#dropOldest) {
      const oldest = this.#items.find((item) => !item.sent)
      if (!oldest) return false
      this.#refuse(oldest, new TidingsError('outbox_full', 'newer events took its place in the outbox'))
    }
    return fits()
  }

  async #store(item: Item, storage: OutboxStorage): Promise<void> {
    try {
      await this.#open
      if (this.#stores) await storage.add(item.entry)
      item.stored = true
      // It was taken back while it was written.
      if (this.#stores && !this.#items.includes(item)) await storage.remove([item.entry.id])
    } catch (cause) {
      this.#remove(item, false)
      item.reject(new TidingsError('outbox_full', 'the outbox cannot store the event', { cause }))
    }
    this.#pump()
  }

  #adopt(entries: readonly OutboxEntry[]): void {
    const failed = (error: TidingsError): void => this.#hooks.failed(error)
    const items = entries
      .filter((entry) => !this.#ids.has(entry.id))
      .map((entry): Item => ({ entry, stored: true, sent: false, resolve: () => {}, reject: failed }))
    // They were published before what is new here; what is on its way already stays in front.
    const at = this.#items.findIndex((item) => !item.sent)
    this.#items.splice(at < 0 ? this.#items.length : at, 0, ...items)
    for (const { entry } of items) this.#count(entry, 1)
    this.#pump()
  }

  #push(item: Item): void {
    this.#items.push(item)
    this.#count(item.entry, 1)
  }

  #count(entry: OutboxEntry, sign: 1 | -1): void {
    if (sign > 0) this.#ids.add(entry.id)
    else this.#ids.delete(entry.id)
    this.#events += sign * entry.events.length
    this.#bytes += sign * entry.bytes
    this.#hooks.changed(this.#events)
  }

  #remove(item: Item, stored = item.stored): boolean {
    const at = this.#items.indexOf(item)
    if (at < 0) return false
    this.#items.splice(at, 1)
    if (stored && this.#stores) {
      this.#storage?.remove([item.entry.id]).catch((cause) => {
        // It is sent once more by whoever finds it, which changes nothing.
        this.#hooks.failed(new TidingsError('internal', 'the outbox cannot forget an event', { cause }))
      })
    }
    this.#count(item.entry, -1)
    return true
  }

  #refuse(item: Item, error: TidingsError): void {
    if (this.#remove(item)) item.reject(error)
  }

  /** Sends what may be sent now. */
  #pump(): void {
    this.#expire()
    const link = this.#link
    if (!link || this.#hold !== undefined) return
    for (const item of this.#items) {
      if (item.sent) continue
      const full =
        this.#flight >= link.window || (this.#flight > 0 && this.#flightBytes + item.entry.bytes > FLIGHT_BYTES)
      if (!item.stored || full || link !== this.#link) return
      item.sent = true
      this.#flight++
      this.#flightBytes += item.entry.bytes
      link.publish(item.entry).then(
        (published) => this.#answered(link, item, () => this.#remove(item) && item.resolve(published)),
        (cause) => this.#answered(link, item, () => this.#failed(item, cause, link)),
      )
    }
  }

  #answered(link: Link, item: Item, act: () => void): void {
    // An answer of a connection that is gone is as good as any, and a failure of it says nothing.
    const current = link === this.#link
    if (current) {
      this.#flight--
      this.#flightBytes -= item.entry.bytes
    }
    act()
    if (current) this.#pump()
  }

  #failed(item: Item, cause: unknown, link: Link): void {
    const { error, stop, rejected, afterMs } = verdictOf(cause)
    if (stop) return this.#refuse(item, error)
    // The connection is about to be lost, and comes again.
    if (link !== this.#link || error.code === 'disconnected' || error.code === 'timeout' || rejected) return
    item.sent = false
    this.#hold ??= setTimeout(() => {
      this.#hold = undefined
      this.#pump()
    }, afterMs ?? RETRY_MS)
  }

  #expire(): void {
    clearTimeout(this.#expiry)
    if (this.#closed) return
    const nowMs = Date.now()
    for (;;) {
      const oldest = this.#items[0]
      if (!oldest) return
      const leftMs = oldest.entry.at + this.#maxAgeMs - nowMs
      if (leftMs > 0) {
        // A timer takes 2^31 milliseconds at most.
        this.#expiry = setTimeout(() => this.#pump(), Math.min(leftMs, 0x7fff_ffff))
        return
      }
      this.#refuse(oldest, new TidingsError('outbox_expired', `it waited for more than ${this.#maxAgeMs} ms`))
    }
  }
}

function closed(): TidingsError {
  return new TidingsError('closed', 'the client is closed; what is in a persistent outbox stays there')
}
