// The public API but for its entry `createClient`. Times are milliseconds unless a name says otherwise.

import type { TidingsError } from './errors.js'
import type {
  Acknowledged,
  CallOptions,
  Gap,
  Member,
  Published,
  PublishOptions,
  PublishRequest,
  ReadOptions,
  ReadResult,
  Receipt,
  RequestOptions,
  SavedCursor,
  TidingsEvent,
  TopicInfo,
} from './event.js'
import type { AnySchema, DataOf } from './schema.js'
import type { SubscribeOptions } from './subscribe.js'

export type * from './event.js'
export type * from './options.js'
export type { AnySchema, DataOf, Overlaps, Schema } from './schema.js'
export type * from './subscribe.js'

/** The states of a client. */
export type State = 'disconnected' | 'connecting' | 'connected' | 'reconnecting'

/** The ways to the broker. */
export type TransportName = 'websocket' | 'sse' | 'poll'

/** How things stand. The object is replaced when something in it changes, and never changed: fit for snapshots. */
export interface Status {
  /** `connecting` until the first connection is there, `reconnecting` when it was lost. */
  readonly state: State
  /** The transport in use; `undefined` while there is none. */
  readonly transport: TransportName | undefined
  /** Since when `state` and `transport` are what they are, in milliseconds since 1970. */
  readonly since: number
  /** How many tries have failed in a row, the loss of a connection as the first; 0 while connected. */
  readonly attempt: number
  /** When the next try begins, in milliseconds since 1970; `undefined` while none is planned. */
  readonly nextRetryAt: number | undefined
  /** How long the last ping, or the last request over HTTP, took; `undefined` before the first. */
  readonly latencyMs: number | undefined
  /** How many events wait in the outbox for the broker's answer. */
  readonly outboxEvents: number
  /** Why there is no connection; `undefined` where there is one or none is wanted. */
  readonly error: TidingsError | undefined
}

/**
 * Takes the events of a subscription, one after the other: the next one is handed over when the promise of the one
 * before is settled. What it throws is told as `error`, and a nack where the broker waits for an ack.
 */
export type EventHandler<Data = unknown> = (event: TidingsEvent<Data>, subscription: Subscription<Data>) => unknown

/** The states of a subscription. */
export type SubscriptionState = 'subscribing' | 'catching-up' | 'live' | 'paused' | 'closed'

/** What a subscription tells. */
export interface SubscriptionEvents {
  /** Its state has changed. */
  state: [state: SubscriptionState]
  /** The broker has subscribed us, anew after each lost connection: what comes is behind this cursor. */
  subscribed: [cursor: number]
  /**
   * This event has come again, and is not handed over twice. Of a mirrored durable everything that is open comes again
   * between `subscribed` and `caught_up`: what does not was acknowledged meanwhile, or is gone.
   */
  again: [offset: number]
  /** All that was there when it subscribed has been handed over, up to this cursor. */
  caught_up: [cursor: number]
  /** Events are gone; told in its place between events. */
  gap: [gap: Gap]
  /** Another session of a mirrored durable has acknowledged up to here. */
  acked: [cursor: number]
  /** Another session has taken the durable over, or it was deleted. The subscription is closed. */
  superseded: []
  /** It was refused or its handler threw; told on the client too. */
  error: [error: TidingsError]
}

/** A subscription. It is resumed after every lost connection, from its cursor, on whatever transport there is. */
export interface Subscription<Data = unknown> extends AsyncIterable<TidingsEvent<Data>> {
  /** What it matches. */
  readonly filters: readonly string[]
  /** Its name where it is durable. */
  readonly durable: string | undefined
  /** Where it stands; `state` is told when it changes. */
  readonly state: SubscriptionState
  /** Everything up to and including this offset has been handed over and is done. */
  readonly cursor: number
  /** The log that `cursor` belongs to; `undefined` before the first connection. */
  readonly log: string | undefined
  /** `cursor` and `log` in one, to begin another subscription after; `undefined` before the first connection. */
  readonly saved: SavedCursor | undefined
  /** Whether all that was there has been handed over once. */
  readonly caughtUp: boolean
  /** Why it is closed; `undefined` while it is not, or where it was asked to. */
  readonly error: TidingsError | undefined
  /** Resolved when the broker has subscribed us for the first time; rejected where it ends before that. */
  ready(options?: { signal?: AbortSignal }): Promise<void>
  /** Listens; the function that is returned stops it. */
  on<K extends keyof SubscriptionEvents>(name: K, listener: (...args: SubscriptionEvents[K]) => void): () => void
  /** Just these events are done: one, or up to 4,096 of them. Resolved when the ack is durable. */
  ack(events: Acknowledged | readonly Acknowledged[], options?: CallOptions): Promise<void>
  /** All up to and including this one is done. Not of `shared`, nor with `order: 'priority'`. */
  ackUpTo(event: Acknowledged, options?: CallOptions): Promise<void>
  /** These events should come again. */
  nack(events: Acknowledged | readonly Acknowledged[], options?: NackOptions): Promise<void>
  /** Stops the delivery and keeps the place. Events that are here already are kept for later. */
  pause(): void
  /** Goes on after `pause`. */
  resume(): void
  /**
   * Ends it. Resolved when the broker has been told; iterators end after what is here. Of a durable that is not a mirror
   * they end at once: what is here could not be acknowledged any more, and comes again to who subscribes next.
   */
  unsubscribe(): Promise<void>
}

/** Options of `nack`. */
export interface NackOptions extends CallOptions {
  /** How long to wait before it comes again. Default: `backoffMs` of the subscription. */
  delayMs?: number
  /** Why; kept with a dead letter. */
  reason?: string
}

/** What a client tells. */
export interface ClientEvents {
  /** `state` or `transport` has changed. */
  state: [status: Status]
  /** Anything in `status` has changed. */
  status: [status: Status]
  /** An event was handed over to a subscription. */
  event: [event: TidingsEvent, subscription: Subscription]
  /** Events of a subscription are gone. */
  gap: [gap: Gap, subscription: Subscription]
  /** Something failed that no caller waits for; what ends a subscription too. */
  error: [error: TidingsError]
  /** The number of events in the outbox has changed. */
  outbox: [events: number]
  /** The broker is about to close the connection; the client comes back after `reconnectAfterMs`. */
  goodbye: [
    goodbye: {
      /** Why: `shutting_down`, or what else the broker says. */
      code: string
      /** When the client comes back, in milliseconds from now. */
      reconnectAfterMs: number
    },
  ]
}

/** What a broker said when the connection began. Over SSE and long poll only `log` is known. */
export interface Session {
  /** The session's name; over SSE and long poll one made here. */
  readonly id: string
  /** Who the broker takes us for; `undefined` where it did not say. */
  readonly subject: string | undefined
  /** The log's id. */
  readonly log: string | undefined
}

/** A client. Made by `createClient`. */
export interface Client<S = AnySchema> {
  /** The state of the connection: `status.state`. */
  readonly state: State
  /** How things stand; the object is another one when something in it has changed. */
  readonly status: Status
  /** What the broker said last; kept while the connection is away. */
  readonly session: Session | undefined
  /** The subscriptions that are not closed. */
  readonly subscriptions: readonly Subscription[]
  /** Connects where `autoConnect` is off, or after `disconnect`, or at once where a retry waits. */
  connect(): void
  /** Hangs up and keeps subscriptions and outbox for the next `connect`. */
  disconnect(): void
  /** Resolved when connected. Rejected: `timeout`, `aborted`, or why the client has given up. */
  ready(options?: number | CallOptions): Promise<void>
  /** Ends it for good. Saves cursors, for `requestTimeoutMs` at most; what is in a persistent outbox stays there for the next client. */
  close(): Promise<void>
  /** Listens; the function that is returned stops it. */
  on<K extends keyof ClientEvents>(name: K, listener: (...args: ClientEvents[K]) => void): () => void
  /**
   * Publishes an event. Resolved when it is durable at the broker; while there is no connection it waits in the
   * outbox, under an id that makes it safe to send again. Rejected with what the broker refuses, or `outbox_full`,
   * `outbox_expired`, `too_large` (for the broker, or for the outbox as a whole), `aborted`, `closed`.
   */
  publish<T extends string>(topic: T, data?: DataOf<S, T>, options?: PublishOptions): Promise<Published>
  /** Publishes up to 4,096 events, and no more than the outbox holds, all or none; otherwise as `publish`. */
  publishBatch(events: readonly PublishRequest[], options?: { signal?: AbortSignal }): Promise<Published[]>
  /**
   * Publishes a question and waits for the first event on its reply topic with the same correlation. Rejected with
   * `no_reply` when none came in time.
   */
  request<Answer = unknown>(topic: string, data?: unknown, options?: RequestOptions): Promise<TidingsEvent<Answer>>
  /**
   * Subscribes. With `onEvent` events are handed to it; without, iterate over the subscription. Never throws for what
   * the broker refuses: the subscription is closed then, with its `error`.
   */
  subscribe<F extends string>(
    filter: F | readonly F[],
    options?: SubscribeOptions,
    onEvent?: EventHandler<DataOf<S, F>>,
  ): Subscription<DataOf<S, F>>
  /** Subscribes without further options. */
  subscribe<F extends string>(filter: F | readonly F[], onEvent: EventHandler<DataOf<S, F>>): Subscription<DataOf<S, F>>
  /** Reads the log once, over HTTP. */
  read<F extends string>(filter: F | readonly F[], options?: ReadOptions): Promise<ReadResult<DataOf<S, F>>>
  /** Who is listed on a topic, those who joined first before the others. */
  presence<Data = unknown>(topic: string, options?: CallOptions): Promise<Member<Data>[]>
  /** Who has acknowledged an event of ours. */
  receipts(event: Acknowledged, options?: CallOptions): Promise<Receipt[]>
  /** Topics that have events, by name; `cursor` of the answer goes on where there are more. */
  topics(
    filter?: string,
    options?: CallOptions & { limit?: number; cursor?: string },
  ): Promise<{
    /** In the order of their names. */
    topics: TopicInfo[]
    /** Where to go on; absent at the end. */
    cursor?: string
  }>
  /** Takes back an event that waits for its `deliverAt`. `conflict` when it is too late. */
  cancel(event: Acknowledged, options?: CallOptions): Promise<void>
  /**
   * A call of the broker's HTTP API, with the token: a path such as `/v1/subscriptions/inbox`, its `/` first, since it is
   * put behind the broker's address as it is. Rejected with what a refusal says; resolved with the answer's JSON, `undefined` where it has no body.
   */
  call<T = unknown>(method: string, path: string, body?: unknown, options?: CallOptions): Promise<T>
}
