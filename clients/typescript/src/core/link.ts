// What a connection is, whatever its transport. `openSocket` and `openHttp` make the two kinds.

import type { TidingsError } from '../errors.js'
import type { OutboxEntry } from '../options.js'
import type { Published, Session, TransportName } from '../types.js'
import type { Words } from '../wire.js'
import { isWords } from './check.js'
import type { Batch } from './track.js'

/** Takes what comes for one subscription. Called in the order of the stream. */
export interface Sink {
  /** Who fetches, by a name of its own. */
  _reader: string | undefined
  /** What a feed that is no poll says beside its subscribe where the answer to the last fetch did not come. */
  _answerLost: { readonly lost_reader: string } | undefined
  /** The subscribe to send now. */
  _request(): Words
  /** How many more events there is room for. */
  _room(): number
  _subscribed(cursor: number, log: string | undefined): void
  /** False when something is missing before it: then the feed is to be closed, it will be opened again. */
  _batch(batch: Batch): boolean
  /** What the broker says beside events: `caught_up`, `gap`, `acked`, `superseded`; all else is passed over. */
  _told(kind: string, words: Words): void
  /** The broker refused, or ended it. Nothing more comes from this feed. */
  _reject(error: TidingsError): void
}

/** A subscription on one connection. */
export interface Feed {
  /** What it has brought stays leased to us when it ends. */
  readonly _leases?: boolean
  /** An `ack` or `nack`; the durable's floor, where the answer says it. Only after `subscribed`. */
  _say(kind: 'ack' | 'nack', words: Words): Promise<number | undefined>
  /** Nothing more comes. Resolved when the broker knows, or cannot be told. */
  _close(): Promise<void>
}

/** What a connection tells its client. */
export interface LinkHooks {
  /** It is over. Told once, and not after `close`. */
  _lost(error: TidingsError): void
  _latency(ms: number): void
  _goodbye(code: string, reconnectAfterMs: number): void
  _tokenExpiring(): void
}

/** A connection on which the broker has answered. */
export interface Link {
  readonly _transport: TransportName
  readonly _session: Session
  /** How many publishes may wait for their answers. Over HTTP it is one: nothing else would keep their order. */
  readonly _window: number
  _subscribe(sink: Sink): Feed
  /** Rejected with `disconnected` when the connection is lost first. `follows`: others are on their way. */
  _publish(entry: OutboxEntry, follows: true | undefined): Promise<Published[]>
  /** Another token for the same subject. */
  _refresh(token: string): void
  /** Asks now whether the broker is there. */
  _wake(): void
  _close(): void
}

/** How often the broker sends something, if only to show that it is there: as a connection and its capabilities say. */
export function pingIntervalMs({ ping_interval_ms }: Words = {}): number {
  return Math.max(100, Number(ping_interval_ms) || 25_000)
}

/** What a publish is answered with, over a socket and over HTTP. */
export function publishedOf(answer: Words): Published[] {
  const { scheduled, results = [isWords(scheduled) ? { ...scheduled, scheduled: true } : answer] } = answer
  return (results as Words[]).map(({ offset, id, duplicate = false, scheduled = false }) => {
    return { offset, id, duplicate, scheduled } as Published
  })
}
