// What a client is made with.

import type { CursorStore } from './event.js'
import type { TransportName } from './types.js'
import type { Codec, Compression } from './wire.js'

/** Why a token is wanted: for the first connection, since the one in use ends soon, or since it was refused. */
export type TokenReason = 'initial' | 'expiring' | 'rejected'

/** What decides about the next try. */
export interface RetryContext {
  /** How many tries have failed in a row, the loss of a connection as the first: 1 or more. */
  readonly attempt: number
  /** How long it has been tried, in milliseconds. */
  readonly elapsedMs: number
  /** Why the last one failed. */
  readonly error: unknown
  /** What the client would wait. */
  readonly delayMs: number
}

/** The waits between tries. */
export interface ReconnectOptions {
  /** The most that the first wait can be. Default 500. */
  minMs?: number
  /** The most that any wait can be. Default 30,000. A wait that the broker asks for (up to 300,000) outranks it. */
  maxMs?: number
  /** By how much the bound grows with each try. Default 2. */
  factor?: number
  /** `full`: a random wait between 0 and the bound, so that many clients do not come back at once. Default `full`. */
  jitter?: 'full' | 'none'
  /** How long a connection must last for the waits to be short again. Default 60,000. */
  resetAfterMs?: number
  /**
   * After how many failed tries in a row the client gives up and is `disconnected`. A connection ends the row, however
   * soon it is lost. Default `Infinity`.
   */
  maxAttempts?: number
  /** Says how long to wait, or `null` to give up. Default none. */
  nextDelay?: (context: RetryContext) => number | null
}

/** A publish that waits: one event, or a batch that is appended as one. */
export interface OutboxEntry {
  /** Names the entry: the id of its (first) event. Entries are in the order in which they were added. */
  readonly id: string
  /** When it was made, in milliseconds since 1970. */
  readonly at: number
  /** About how much room it takes. */
  readonly bytes: number
  /** Whether it was published as a batch, also where that has one event. */
  readonly batch: boolean
  /** The events as the protocol says them; every one has its id. Structured-clonable. */
  readonly events: readonly OutboxEvent[]
}

/** A publish in the words of the protocol. */
export type OutboxEvent = Readonly<Record<string, unknown>> & {
  /** Where to. */
  readonly topic: string
  /** Makes it safe to send it again. */
  readonly id: string
}

/**
 * Keeps the outbox beyond the life of a page. A tab sends what it has added itself, and what a tab that is gone has
 * left behind, which at most one tab may be given.
 */
export interface OutboxStorage {
  /**
   * Opens it. `found` is called with what is left behind by others, oldest first, before this is resolved and
   * whenever more is found. Called again after `close`. Rejected where it cannot be had: then the outbox is in memory.
   */
  open(found: (entries: readonly OutboxEntry[]) => void): Promise<void>
  /** Resolved when the entry is stored: only then is it sent. Rejected where there is no room. */
  add(entry: OutboxEntry): Promise<void>
  /** Forgets entries, which are answered. */
  remove(ids: readonly string[]): Promise<void>
  /** Lets go of it, so that another tab may take over what is left. */
  close(): Promise<void>
}

/** The queue of what is published and not yet answered. */
export interface OutboxOptions {
  /** Where it is kept. Default `memory`; `indexedDb()` of `tidings/indexeddb` survives a reload. */
  storage?: 'memory' | OutboxStorage
  /** The most events. Default 1,000. */
  maxEvents?: number
  /** The most bytes, about. Default 5,000,000. */
  maxBytes?: number
  /** How long an event may wait before it is given up as `outbox_expired`. Default 86,400,000: a day. */
  maxAgeMs?: number
  /**
   * What happens where there is no room: `reject` refuses the new event as `outbox_full`, `drop-oldest` the oldest that
   * is not on its way. What is more than the whole outbox is refused as `too_large`. Default `reject`.
   */
  overflow?: 'reject' | 'drop-oldest'
}

/** Takes what the client has to say about itself. `console` is one. */
export interface Logger {
  /** What is of use while something is looked for. */
  debug(message: string, ...details: unknown[]): void
  /** What should not be, and the client goes on. */
  warn(message: string, ...details: unknown[]): void
}

/** Options of `createClient`. */
export interface ClientOptions {
  /** A token. With `getToken`, the one to begin with: the next one is asked for when it ends or is refused. */
  token?: string
  /**
   * Gives a token whenever one is wanted. What it throws counts as a failed try, and so does one that takes longer than
   * `requestTimeoutMs`: its signal is aborted then.
   */
  getToken?: (context: { reason: TokenReason; signal: AbortSignal }) => string | Promise<string>
  /**
   * The order of trying. After two failures in a row the next one is tried; while on a lower one the first is tried
   * again every 60 s. Default `['websocket', 'sse', 'poll']`.
   */
  transports?: readonly TransportName[]
  /** How often a better transport is tried. Default 60,000. */
  upgradeEveryMs?: number
  /** The encoding on sockets. Default JSON; `msgpack` and `protobuf` are entries of their own. HTTP is always JSON. */
  codec?: Codec
  /** How large batches may come compressed over a socket: `deflateRaw` of this package. Default: not at all. */
  compress?: Compression
  /** The waits between tries. */
  reconnect?: ReconnectOptions
  /** How long a connection may take. Default 10,000. */
  connectTimeoutMs?: number
  /** How long an answer may take. Default 10,000. Publishes are sent again instead of given up. */
  requestTimeoutMs?: number
  /**
   * The client pings when it has heard nothing for the broker's ping interval, and gives the connection up when it then
   * hears nothing for this long. Default 10,000.
   */
  pingGraceMs?: number
  /** The queue of what is published. */
  outbox?: OutboxOptions
  /** Where the places of subscriptions with a `key` are kept. Default `memory`: as long as the client. */
  cursors?: 'memory' | CursorStore
  /** Whether to connect without being told. Default `true`. */
  autoConnect?: boolean
  /** Whether subscriptions get what this client published itself. Default `true`; events say it in `own`. */
  echo?: boolean
  /** The client's name and version, for the broker's log. Default `tidings-js/<version>`. */
  name?: string
  /** Default none. */
  logger?: Logger
  /** How HTTP calls are made. Default the platform's. */
  fetch?: typeof fetch
  /** How sockets are made. Default the platform's; where there is none (Node before 22) `websocket` is left out. */
  WebSocket?: typeof WebSocket
}
