// What travels: events, what may be said of one that is published, and what reads give.

import type { After, Selection } from './subscribe.js'

/** How urgent an event is. */
export type Priority = 'low' | 'normal' | 'high' | 'urgent'

/** One immutable entry of the log. */
export interface TidingsEvent<Data = unknown> {
  /** Its place in the log: rising, never reused, one order for the whole log. */
  readonly offset: number
  /** Where it was published. */
  readonly topic: string
  /** The publisher's id, or one the broker made. */
  readonly id: string
  /** CloudEvents `type`; `message` unless the publisher said another. */
  readonly type: string
  /** CloudEvents `source`. */
  readonly source: string
  /** When the broker appended it, RFC 3339. */
  readonly time: string
  /** How the publisher meant `data` to be read. */
  readonly datacontenttype?: string
  /**
   * JSON as a value, `text/*` as a string, other bytes as `Uint8Array`; absent where the event has none, or where it is
   * more than `maxDataBytes` of the subscription.
   */
  readonly data?: Data
  /** The entity it is about. */
  readonly key?: string
  /** `normal` unless the publisher said another. */
  readonly priority: Priority
  /** When it ends, RFC 3339. */
  readonly expires?: string
  /** What it belongs to. */
  readonly correlation?: string
  /** The publisher's own attributes. */
  readonly headers?: Readonly<Record<string, string>>
  /** The number of this delivery: 1, or more where a durable subscription delivers it again. */
  readonly attempts: number
  /** Whether this client published it (known for its newest 1,000 ids). */
  readonly own: boolean
}

/** What every call that waits takes. */
export interface CallOptions {
  /** Ends the wait with the code `aborted`. */
  signal?: AbortSignal
  /** How long to wait for the answer; default `requestTimeoutMs` of the client. */
  timeoutMs?: number
}

/** What may be said of an event that is published. */
export interface PublishOptions {
  /** CloudEvents `type`; default `message`. */
  type?: string
  /** The entity it is about. */
  key?: string
  /** Names the publish: the same id with the same content is appended once. Default: a UUIDv7 made here. */
  id?: string
  /** CloudEvents `source`; default made by the broker from the subject. */
  source?: string
  /** Default `normal`. */
  priority?: Priority
  /** From how long after the append on it is not delivered any more. Not with `expires`. */
  ttlMs?: number
  /** From when on it is not delivered any more. */
  expires?: Date | string
  /** What it belongs to. */
  correlation?: string
  /** Your own attributes: 64, 16 KiB together. */
  headers?: Record<string, string>
  /** The topic's last offset, which must be this one, else `conflict`; 0 for a topic that never had an event. */
  expectLast?: number
  /** Append it at this moment, at most 30 days ahead; see `client.cancel`. */
  deliverAt?: Date | string
  /** Tell the publisher on `$receipts.<subject>` when durables acknowledge it. Default `false`. */
  receipts?: boolean
  /**
   * How to read the data. Default: JSON, and `application/octet-stream` for bytes. With `text/*` the data is a string.
   */
  datacontenttype?: string
  /**
   * Ends the wait with the code `aborted`. What has not been sent is taken out of the outbox; of what has, the outcome
   * is not known.
   */
  signal?: AbortSignal
}

/** An event to be published, as one of a batch. */
export interface PublishRequest<Data = unknown> extends Omit<PublishOptions, 'signal'> {
  /** Where to. */
  topic: string
  /** A JSON value, a string for `text/*`, or bytes. */
  data?: Data
}

/** Where an event was appended. */
export interface Published {
  /** Its place; with `scheduled` the place that `client.cancel` takes. */
  readonly offset: number
  /** Its id. */
  readonly id: string
  /** Whether the same publish had arrived before. */
  readonly duplicate: boolean
  /** Whether it waits for `deliverAt`. */
  readonly scheduled: boolean
}

/** Options of `client.request`. */
export interface RequestOptions extends Omit<PublishOptions, 'ttlMs' | 'expires' | 'deliverAt'> {
  /** How long to wait for the answer; the question expires then. Default 30,000. */
  timeoutMs?: number
  /** The topic the answer goes to. Default `replies.<session>`, one for each client. */
  replyTo?: string
}

/** Events that were asked for and are gone. Delivery goes on behind them. */
export interface Gap {
  /** The cursor that was asked for. */
  readonly requested: number
  /** The first offset there is. */
  readonly first: number
  /** The last offset there is. */
  readonly last: number
  /** The log these belong to. */
  readonly log: string
  /** Why: `log_changed` means that the broker has another log, or an older state of it, than before. */
  readonly reason: 'retention' | 'erased' | 'log_changed' | 'corrupt'
}

/** Where a reader stands: everything up to and including `cursor` of this log is done. */
export interface SavedCursor {
  /** The log that the cursor belongs to. */
  readonly log: string
  /** The offset of the last event that is done; 0 before the first. */
  readonly cursor: number
}

/** Keeps cursors beyond the life of a page. */
export interface CursorStore {
  /** What was saved under the key. */
  get(key: string): SavedCursor | undefined | Promise<SavedCursor | undefined>
  /** Saves; the newest of a key stays. Called at most every 250 ms for a key, and when the client closes. */
  set(key: string, saved: SavedCursor): void | Promise<void>
}

/** Options of `client.read`. */
export interface ReadOptions extends Selection, CallOptions {
  /** Default `first`. */
  after?: Exclude<After, 'now'>
  /** The most events. Default 100, at most 1,000. */
  limit?: number
  /** How long to wait for the first event, 30,000 at most. Default 0. */
  waitMs?: number
  /** `error` rejects with `offset_gone`. Default `continue`: the answer has the `gap`. */
  onGap?: 'continue' | 'error'
}

/** What `client.read` gives. */
export interface ReadResult<Data = unknown> {
  /** In the order of the log. */
  readonly events: readonly TidingsEvent<Data>[]
  /** Where to go on. */
  readonly cursor: number
  /** The log that they are of. */
  readonly log: string
  /** The first offset there is in the log. */
  readonly first: number
  /** The last offset there is in the log. */
  readonly last: number
  /** Events that were asked for and are gone; absent where none are. */
  readonly gap?: Gap
}

/** Somebody who is listed on a topic. */
export interface Member<Data = unknown> {
  /** Who it is, as the token says. */
  readonly subject: string
  /** Names the member on this topic. */
  readonly session: string
  /** When it joined, RFC 3339. */
  readonly since: string
  /** What it says of itself. */
  readonly data?: Data
}

/** Who has acknowledged an event. */
export interface Receipt {
  /** The name of the durable. */
  readonly subscription: string
  /** How far this durable is with the event. */
  readonly state: 'pending' | 'in_flight' | 'acked' | 'skipped' | 'dead'
}

/** A topic that has events. */
export interface TopicInfo {
  /** The topic. */
  readonly name: string
  /** The offset of its first event that is kept. */
  readonly first: number
  /** The offset of its last event. */
  readonly last: number
  /** How many events of it are kept. */
  readonly count: number
}

/** An event, or its offset. */
export type Acknowledged =
  | {
      /** Its place in the log. */
      readonly offset: number
    }
  | number
