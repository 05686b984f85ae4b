// One subscription over HTTP: a stream that is opened again from its cursor when it ends, or one poll after the other.

import { fromJsonEvents } from '../json.js'
import type { Gap } from '../types.js'
import type { Words } from '../wire.js'
import { isOffset, isWords, unreadable } from './check.js'
import { type HttpLink, isOfLink, type ReadWords } from './http-link.js'
import type { Feed, Sink } from './link.js'
import { type SseEvent, SseParser } from './sse.js'
import { lost, refusal, verdictOf } from './verdict.js'
import { deadline, sleep } from './wait.js'
import { queryOf } from './words.js'

/** The broker sends a comment on a stream where it sent nothing for so long. */
const COMMENT_EVERY_MS = 15_000
/** A stream that ends sooner, and without a word, was cut off by somebody in between. */
const STREAM_MIN_MS = 1_000
/** How long to wait where there is no room for what a poll would bring. */
const ROOM_MS = 50
/** The most events of a read. */
const LIMIT = 1_000

export class HttpFeed implements Feed {
  readonly #link: HttpLink
  readonly #sink: Sink
  readonly #streams: boolean
  readonly #stop = new AbortController()
  /** Told once a feed: all that was there has been sent. */
  #caughtUp = false
  #subscribed = false
  /** How often events were delivered, said before them. */
  #attempts: Record<string, number> | undefined

  constructor(link: HttpLink, sink: Sink, streams: boolean) {
    this.#link = link
    this.#sink = sink
    this.#streams = streams
    link.signal.addEventListener('abort', this.#abort)
  }

  readonly #abort = (): void => this.#stop.abort()

  get #path(): string {
    return `/v1/subscriptions/${encodeURIComponent(this.#sink.durable ?? '')}`
  }

  get #closed(): boolean {
    return this.#stop.signal.aborted
  }

  async say(kind: 'ack' | 'nack', words: Words): Promise<number | undefined> {
    const { cursor } = await this.#link.call<Words>('POST', `${this.#path}/${kind}`, { body: words })
    return cursor as number | undefined
  }

  async close(): Promise<void> {
    this.#abort()
  }

  /** Delivers until it is closed or fails. */
  async run(): Promise<void> {
    // The sink has the feed in hand before anything comes of it.
    await Promise.resolve()
    try {
      if (this.#sink.durable !== undefined) await this.#durable()
      else while (!this.#closed) await (this.#streams ? this.#stream(this.#query()) : this.#poll())
    } catch (cause) {
      if (this.#closed) return
      const { error } = verdictOf(cause)
      if (isOfLink(error)) this.#link.fail(error)
      else if (error.code === 'protocol') this.#link.fail(lost('what answers is not the broker', error))
      else this.#sink.refused(error)
    } finally {
      this.#abort()
      this.#link.signal.removeEventListener('abort', this.#abort)
    }
  }

  #call<T>(method: string, path: string, body?: unknown, waitSeconds = 0): Promise<T> {
    const timeoutMs = waitSeconds * 1_000 + this.#link.settings.requestTimeoutMs
    return this.#link.call<T>(method, path, { body, timeoutMs, signal: this.#stop.signal })
  }

  // ---- Durables.

  async #durable(): Promise<void> {
    const { after, since, log, batch_max, presence, durable, ...options } = this.#sink.request()
    const { cursor } = await this.#call<Words>('GET', this.#path).catch((error) => {
      if (error.code !== 'not_found') throw error
      return this.#call<Words>('PUT', this.#path, options)
    })
    while (!this.#closed) await (this.#streams ? this.#stream(`${this.#path}/events`) : this.#fetch(cursor as number))
  }

  async #fetch(from: number): Promise<void> {
    if (!this.#subscribed) this.#begin(from, undefined)
    const limit = Math.min(this.#sink.room(), LIMIT)
    if (limit === 0) return sleep(ROOM_MS, this.#stop.signal)
    const { gap, events, attempts, cursor } = await this.#link.turn((wait) =>
      this.#call<ReadWords>('POST', `${this.#path}/fetch`, { limit, wait: `${wait}s` }, wait),
    )
    if (this.#closed) return
    if (gap) this.#sink.gap(gap as unknown as Gap)
    this.#sink.batch({ events: fromJsonEvents(events), attempts })
    if (events.length < limit) this.#caught(cursor)
  }

  // ---- Filters.

  #query(): string {
    const { batch_max, presence, ...words } = this.#sink.request()
    return `/v1/events?${queryOf(words)}`
  }

  async #poll(): Promise<void> {
    const { batch_max, presence, linger_ms, conflate_ms, max_bytes_per_second, last_per_key, ...words } =
      this.#sink.request()
    // A read knows no "now", and no state of every key: it begins behind the last event there is, or reads them all.
    const fromNow = words.after === undefined && words.since === undefined && !last_per_key
    const limit = fromNow ? 1 : Math.max(1, Math.min(this.#sink.room(), LIMIT))
    const query = queryOf({ on_gap: 'skip', ...words, limit })
    const { events, cursor, log, last, gap } = await this.#link.turn((wait) => {
      const waits = this.#subscribed ? wait : 0
      query.set('wait', `${waits}s`)
      return this.#call<ReadWords>('GET', `/v1/events?${query}`, undefined, waits)
    })
    if (this.#closed) return
    this.#link.known(log)
    if (!this.#subscribed) this.#begin(fromNow ? last : Number.parseInt(`${words.after ?? 0}`, 10), log)
    if (fromNow) return this.#caught(last)
    if (gap) this.#sink.gap(gap as unknown as Gap)
    if (this.#sink.batch({ events: fromJsonEvents(events), cursor }) && events.length < limit && cursor >= last)
      this.#caught(cursor)
  }

  #begin(cursor: number, log: string | undefined): void {
    this.#subscribed = true
    this.#sink.subscribed(cursor, log)
  }

  #caught(cursor: number): void {
    if (this.#caughtUp || this.#closed) return
    this.#caughtUp = true
    this.#sink.caughtUpAt(cursor)
  }

  // ---- Streams.

  async #stream(path: string): Promise<void> {
    const beganMs = Date.now()
    const { pingGraceMs, connectTimeoutMs } = this.#link.settings
    const head = deadline(connectTimeoutMs, this.#stop.signal)
    let reader: ReadableStreamDefaultReader<Uint8Array> | undefined
    const silence = deadline(COMMENT_EVERY_MS + pingGraceMs, head.signal)
    try {
      const { headers, body } = await this.#link.http.stream(path, silence)
      head.stop()
      const log = headers.get('tidings-log') ?? undefined
      if (log) this.#link.known(log)
      // A durable begins with all that is open: it is behind again until that has come.
      if (this.#sink.durable !== undefined) this.#caughtUp = false
      this.#begin(Number(headers.get('tidings-cursor')), log)
      const parser = new SseParser()
      const text = new TextDecoder()
      reader = body?.getReader()
      for (;;) {
        const { value } = (await reader?.read()) ?? {}
        if (!value || this.#closed) break
        silence.again()
        if (!this.#deliver(parser.push(text.decode(value, { stream: true })))) return
      }
    } finally {
      head.done()
      silence.done()
      // However it ends, the connection is given back.
      void reader?.cancel().catch(() => {})
    }
    if (!this.#closed && Date.now() - beganMs < STREAM_MIN_MS) throw lost('the stream ended too soon')
  }

  /** What came in one piece; false where the stream is not to be read on. */
  #deliver(pieces: readonly SseEvent[]): boolean {
    let events: Words[] = []
    let cursor: number | undefined
    const flush = (): boolean => {
      if (cursor === undefined) return true
      const follows = this.#sink.batch({ events: fromJsonEvents(events), cursor, attempts: this.#attempts })
      events = []
      cursor = undefined
      return follows && !this.#closed
    }
    for (const { id, event, data } of pieces) {
      const words = data === undefined ? undefined : parsed(data)
      // A publisher may give its events any type, so the name alone does not tell what is the broker's own.
      const isEvent = words !== undefined && isOffset(words.offset) && words.topic !== undefined
      if (words && !isEvent) {
        if (!flush() || !this.#control(event, words)) return false
        continue
      }
      if (isEvent) events.push(words)
      cursor = Number.parseInt(id ?? '', 10) || cursor
    }
    return flush()
  }

  /** What the broker says of the stream; false where nothing more is to be read of it. */
  #control(event: string, words: Words): boolean {
    const { cursor } = words as { cursor: number }
    if (event === 'tidings.gap') this.#sink.gap(words as unknown as Gap)
    else if (event === 'tidings.caught_up') this.#caught(cursor)
    else if (event === 'tidings.acked') this.#sink.acked(cursor)
    else if (event === 'tidings.attempts') this.#attempts = words.attempts as Record<string, number>
    else if (event === 'tidings.token_expiring') this.#link.tokenExpiring()
    else if (event === 'tidings.superseded') {
      this.#abort()
      this.#sink.superseded()
      return false
    } else if (event === 'tidings.error') {
      const error = refusal(words)
      // The next request shows the next token, or is refused too.
      if (error.code !== 'unauthenticated') throw error
      return false
    }
    return true
  }
}

function parsed(data: string): Words {
  try {
    const words: unknown = JSON.parse(data)
    if (isWords(words)) return words
  } catch {}
  throw unreadable('an event of a stream')
}
