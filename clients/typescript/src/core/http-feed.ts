// One subscription over HTTP: a stream that is opened again from its cursor when it ends, or one poll after the other.

import { fromJsonEvents, parse } from '../json.js'
import type { Words } from '../wire.js'
import { isOffset, isWords, unreadable } from './check.js'
import type { HttpLink, ReadWords } from './http-link.js'
import type { Feed, Sink } from './link.js'
import { type SseEvent, sseParser } from './sse.js'
import { uuidv7 } from './uuid.js'
import { errorOf, isOfLink, lost, refusal } from './verdict.js'
import { onAbort, sleep, within } from './wait.js'
import { queryOf } from './words.js'

/** The broker sends a comment on a stream where it sent nothing for so long. */
const COMMENT_EVERY_MS = 15_000
/** A stream that ends sooner, and without a word, was cut off by somebody in between. */
const STREAM_MIN_MS = 1_000
/** How long to wait where there is no room for what a poll would bring. */
const ROOM_MS = 50
/** The most events of a read. */
const LIMIT = 1_000

/** Delivers until it is closed or fails; `ended` is told then. */
export function openFeed(link: HttpLink, sink: Sink, streams: boolean, ended: () => void): Feed {
  const stop = new AbortController()
  const { signal } = stop
  const { _http: http, _settings: settings } = link
  const durable = sink._request().durable as string | undefined
  const path = durable ? `/v1/subscriptions/${encodeURIComponent(durable)}` : '/v1'
  const abort = (): void => stop.abort()
  /** Told once a feed: all that was there has been sent. */
  let caughtUp = false
  let subscribed = false
  let state: unknown
  /** Of a mirror: the last event that was fetched, where there may be more behind it. */
  let after: unknown
  /** How often events were delivered, said before them. */
  let attempts: Record<string, number> | undefined

  const call = <T = Words>(method: string, at: string, body?: unknown, waitSeconds = 0): Promise<T> =>
    link._json<T>(method, at, body, waitSeconds, signal)

  const begin = (cursor: number, log?: string): void => {
    subscribed = true
    sink._subscribed(cursor, log)
  }

  const caught = (cursor: number): void => {
    if (caughtUp || signal.aborted) return
    caughtUp = true
    sink._told('caught_up', { cursor })
  }

  // ---- Polls.

  /** What a poll has brought, and whether that was all there was. */
  const take = ({ events, cursor, gap, attempts }: ReadWords, all: boolean): void => {
    if (signal.aborted) return
    if (gap) sink._told('gap', gap)
    if (sink._batch({ events: fromJsonEvents(events), cursor, attempts }) && all) caught(cursor)
  }

  const fetchOpen = async (from: number): Promise<void> => {
    if (!subscribed) begin(from)
    const limit = Math.min(sink._room(), LIMIT)
    if (!limit) return sleep(ROOM_MS, signal)
    sink._reader ??= uuidv7()
    const reader = sink._reader
    const poll = async (wait: number): Promise<ReadWords> => {
      const waits = after || !caughtUp ? 0 : wait
      const before = sink._answerLost
      const body = { limit, after, wait: waits, reader, lost: !!before }
      // Until there is an answer: whatever feed is next may begin before this one hears that it is over.
      sink._answerLost = { lost_reader: reader }
      const answer = await call<ReadWords>('POST', `${path}/fetch`, body, waits).catch((error) => {
        // A refusal is an answer: nothing was leased.
        if (!signal.aborted && !isOfLink(error)) sink._answerLost = before
        throw error
      })
      // Nobody takes what came too late.
      if (!signal.aborted) sink._answerLost = undefined
      return answer
    }
    const answer = await link._turn(poll)
    // A fetch has no more than 1 MiB either: only one without any says that there are none.
    const last = answer.events.at(-1)?.offset
    take(answer, !last)
    if (sink._request().mode !== 'mirror') return
    // All that is open comes anew, at once, and what has no room comes behind it.
    after = last
    if (!last) await sleep(1_000, signal)
  }

  const poll = async (): Promise<void> => {
    const { batch_max, presence, linger_ms, conflate_ms, max_bytes_per_second, ...words } = sink._request()
    // A state of many pages is one until it is over, whatever the cursor.
    state ??= words.last_per_key
    if (!caughtUp) words.last_per_key = state
    // A read knows no "now": it begins behind the last event there is.
    const fromNow = words.after === undefined && words.since === undefined && !state
    const limit = fromNow ? 1 : Math.max(1, Math.min(sink._room(), LIMIT))
    const query = queryOf({ on_gap: 'skip', ...words, limit })
    const answer = await link._turn((wait) => {
      const waits = subscribed ? wait : 0
      return call<ReadWords>('GET', `${path}/events?${query}&wait=${waits}`, undefined, waits)
    })
    if (signal.aborted) return
    const { log, last } = answer
    link._log(log)
    if (!subscribed) begin(fromNow ? last : Number.parseInt(`${words.after ?? 0}`, 10), log)
    if (fromNow) caught(last)
    else take(answer, answer.cursor >= last)
  }

  // ---- Streams.

  const stream = (at: string): Promise<void> => {
    const read = async (limit: AbortSignal, again: (ms: number) => void): Promise<void> => {
      const beganMs = Date.now()
      const listen = (): void => again(COMMENT_EVERY_MS + settings.pingGraceMs)
      const parse = sseParser()
      const text = new TextDecoder()
      const pieces = http._stream(at, limit, (headers) => {
        const log = headers.get('tidings-log') ?? undefined
        if (log) link._log(log)
        // A durable begins with all that is open: it is behind again until that has come.
        if (durable) caughtUp = false
        begin(Number(headers.get('tidings-cursor')), log)
        listen()
      })
      for await (const piece of pieces) {
        if (signal.aborted || !deliver(parse(text.decode(piece, { stream: true })))) return
        listen()
      }
      if (!signal.aborted && Date.now() - beganMs < STREAM_MIN_MS) throw lost('the stream ended')
    }
    // It has its time until it begins, and then from piece to piece.
    return within(settings.connectTimeoutMs, read, signal)
  }

  /** What came in one piece; false where the stream is not to be read on. */
  const deliver = (pieces: readonly SseEvent[]): boolean => {
    const events: Words[] = []
    let cursor: number | undefined
    const flush = (): boolean => {
      if (cursor === undefined) return true
      const follows = sink._batch({ events: fromJsonEvents(events.splice(0)), cursor, attempts })
      cursor = undefined
      return follows && !signal.aborted
    }
    for (const { id, event, data } of pieces) {
      const words = data === undefined ? undefined : parsed(data)
      // A publisher may give its events any type, so the name alone does not tell what is the broker's own.
      const isEvent = words && isOffset(words.offset) && words.topic !== undefined
      if (words && !isEvent) {
        if (!flush() || !control(event, words)) return false
        continue
      }
      if (words) events.push(words)
      cursor = Number.parseInt(`${id}`, 10) || cursor
    }
    return flush()
  }

  /** What the broker says of the stream; false where nothing more is to be read of it. */
  const control = (event: string, words: Words): boolean => {
    const kind = event.replace('tidings.', '')
    if (kind === 'caught_up') caught(words.cursor as number)
    else if (kind === 'attempts') attempts = words.attempts as Record<string, number>
    else if (kind === 'token_expiring') link._tokenExpiring()
    else if (kind === 'error') {
      const error = refusal(words)
      // The next request shows the next token, or is refused too.
      if (error.code !== 'unauthenticated') throw error
      return false
    } else {
      if (kind === 'superseded') abort()
      sink._told(kind, words)
    }
    return !signal.aborted
  }

  const run = async (): Promise<void> => {
    const unlisten = onAbort(link._signal, abort)
    // The sink has the feed in hand before anything comes of it.
    await undefined
    try {
      let from = 0
      if (durable) {
        const { after, since, log, batch_max, presence, durable: name, ...options } = sink._request()
        const { cursor, paused } = await call('GET', path).catch((error) => {
          if (error.code !== 'not_found') throw error
          return call('PUT', path, options)
        })
        from = cursor as number
        // That nothing comes does not say then that nothing is there.
        caughtUp = !!paused
      }
      while (!signal.aborted) {
        const { batch_max, ...words } = sink._request()
        const query = queryOf(durable ? { presence: words.presence, ...sink._answerLost } : words)
        await (streams ? stream(`${path}/events?${query}`) : durable ? fetchOpen(from) : poll())
      }
    } catch (cause) {
      if (signal.aborted) return
      const error = errorOf(cause)
      if (isOfLink(error)) link._lost(error)
      else sink._reject(error)
    } finally {
      abort()
      unlisten()
      ended()
    }
  }
  void run()

  return {
    _leases: !streams,
    _say: async (kind, words) => (await link._json('POST', `${path}/${kind}`, words)).cursor as number | undefined,
    _close: async () => abort(),
  }
}

function parsed(data: string): Words {
  const words = parse(data)
  if (isWords(words)) return words
  throw unreadable('an event')
}
