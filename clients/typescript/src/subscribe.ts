// What may be said of a subscription.

import type { Priority, SavedCursor } from './event.js'

/** Where a subscription begins. */
export type After = 'now' | 'first' | number | Date | SavedCursor | string

/** How several sessions share a durable subscription. */
export type Mode = 'exclusive' | 'shared' | 'mirror'

/** What narrows down which events are wanted. */
export interface Selection {
  /** Event types, `task.*` allowed. Default all. */
  types?: readonly string[]
  /** The lowest priority. Default `low`. */
  minPriority?: Priority
  /** Content types, `text/*` allowed. Default all. */
  contentTypes?: readonly string[]
  /** Headers that an event must have, 16 at most. Default none. */
  headers?: Readonly<Record<string, string>>
  /** Data of more bytes is left out; the header `dataref` says where it is. Default: none is. */
  maxDataBytes?: number
}

/** What an ephemeral subscription and a durable one have in common. */
export interface CommonSubscribeOptions extends Selection {
  /** The most events in one batch. Default 256. */
  batchMax?: number
  /** How long a batch may wait for more events, 10,000 at most. Default 0. */
  lingerMs?: number
  /** Of the events of one topic and key only the last within this window, 60,000 at most. Default 0: all. */
  conflateMs?: number
  /** How many bytes of events a second are sent. Default 0: as many as the socket takes. */
  maxBytesPerSecond?: number
  /** `error` ends the subscription with `offset_gone` where events are gone. Default `continue`, with a `gap`. */
  onGap?: 'continue' | 'error'
  /**
   * First the newest event of every topic and key, then all that follows. Default `false`.
   */
  lastPerKey?: boolean
  /**
   * Be listed on the topics, which have no wildcards then, with this data (1 KiB of JSON). Not over long poll: the
   * client's `error` says that we are not listed, whenever the subscription begins there.
   */
  presence?: {
    /** What others see of us: at most 1 KiB of JSON. Sessions with the same data cannot be told apart. */
    data?: unknown
  }
  /**
   * How many events may wait here before the broker is told to stop. Default 1,000. Of a durable that leases (all but a
   * mirror) over a socket or a stream its `maxInFlight` alone says so: to stop it would be a delivery more for each.
   */
  bufferEvents?: number
  /** How many bytes may wait here before the broker is told to stop; of which durables not, as there. Default 1 MiB. */
  bufferBytes?: number
  /** Unsubscribes. What has come before, and was not leased, can still be pulled. */
  signal?: AbortSignal
}

/** A subscription whose place this side keeps. */
export interface EphemeralOptions extends CommonSubscribeOptions {
  /** Absent: a name makes the subscription a durable one. */
  durable?: undefined
  /** Default `now`. A saved place under `key` outranks it. A string is a position such as `57@9f3c21d0`. */
  after?: After
  /** Saves the place under this name in `cursors` of the client, and goes on from there next time. */
  key?: string
}

/** A subscription whose place the broker keeps, under a name. */
export interface DurableOptions extends CommonSubscribeOptions {
  /** Its name: one token, 64 bytes at most. */
  durable: string
  /** Where a new one begins. Default `now`. */
  start?: After
  /** Default `exclusive`: a newer session takes it over. */
  mode?: Mode
  /** Default `log`; with `priority` urgent events overtake all others. */
  order?: 'log' | 'priority'
  /**
   * `auto`: acknowledged when the handler has returned (its promise is resolved), or when the next event is pulled; a
   * handler that throws is a nack. `manual`: by `ack` and `nack`. Default `auto`.
   */
  ack?: 'auto' | 'manual'
  /** How many events may be delivered and not yet acknowledged, and so wait here. Default 1,000; fewer where they are large. */
  maxInFlight?: number
  /** After how long without an ack an event comes again; 0: never. Default 30,000. */
  ackWaitMs?: number
  /** How long a nack without a delay waits, after the first delivery, the second and so on. */
  backoffMs?: readonly number[]
  /** After how many deliveries an event is dead; 0: never. Default 0. */
  maxDeliveries?: number
  /** `key`: the events of one topic and key are with one session at a time. Only `shared`. */
  partitionBy?: 'key'
  /** It is forgotten when nobody has used it for so long; 0: never. Default 0. */
  idleExpiryMs?: number
}

/** Options of `client.subscribe`. */
export type SubscribeOptions = EphemeralOptions | DurableOptions
