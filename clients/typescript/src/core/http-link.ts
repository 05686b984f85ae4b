// A connection over plain HTTP: events by server-sent events or by long poll, all else by requests.
//
// - There is no session: it is there while requests are answered. The broker is asked every ping interval.
// - A browser has six connections to a host over HTTP/1.1: three streams at most, further subscriptions are polled, and
//   two polls at a time beside streams, four without.

import { toJsonEvent } from '../json.js'
import type { OutboxEntry } from '../options.js'
import type { Published, Session } from '../types.js'
import type { Words } from '../wire.js'
import { isWords } from './check.js'
import type { CallInit, Http } from './http.js'
import { HttpFeed } from './http-feed.js'
import type { Feed, Link, LinkHooks, Sink } from './link.js'
import type { Settings } from './settings.js'
import { toPublished } from './socket.js'
import { uuidv7 } from './uuid.js'
import { lost, verdictOf } from './verdict.js'
import { deadline, type Timer } from './wait.js'
import { queryOf } from './words.js'

const STREAMS_MAX = 3

/** Asks what the broker can do, and with that whether it can be reached; its ping interval. */
export async function capabilities(http: Http, timeoutMs: number, signal?: AbortSignal): Promise<number> {
  const words = await http.json<Words | undefined>('GET', '/v1/capabilities', { timeoutMs, signal })
  const limits = isWords(words?.limits) ? words.limits : {}
  return Math.max(100, Number(limits.ping_interval_ms) || 25_000)
}

export class HttpLink implements Link {
  readonly transport: 'sse' | 'poll'
  readonly window = 1
  readonly http: Http
  readonly settings: Settings
  session: Session = { id: uuidv7(), subject: undefined, log: undefined }
  readonly #hooks: LinkHooks
  readonly #stop = new AbortController()
  #intervalMs = 0
  #streams = 0
  #polls = 0
  #waiting: (() => void)[] = []
  #beat: Timer

  constructor(transport: 'sse' | 'poll', http: Http, settings: Settings, hooks: LinkHooks) {
    this.transport = transport
    this.http = http
    this.settings = settings
    this.#hooks = hooks
  }

  /**
   * Connects. Over SSE it counts when the first bytes of a stream of `filters` have come: what stands between may hold
   * streams back for ever.
   */
  async open(filters: readonly string[] | undefined, signal: AbortSignal): Promise<this> {
    await this.#ask(this.settings.connectTimeoutMs, signal)
    if (this.transport === 'sse' && filters) {
      const limit = deadline(this.settings.connectTimeoutMs, signal)
      const stop = new AbortController()
      limit.signal.addEventListener('abort', () => stop.abort())
      try {
        const response = await this.http.stream(`/v1/events?${queryOf({ filters })}`, { ...limit, signal: stop.signal })
        const first = await response.body?.getReader().read()
        if (!first?.value) throw lost('the stream ended before it began')
      } catch (error) {
        // What the broker refuses has reached it: that is the subscription's business, and not the transport's.
        if (isOfLink(error) || verdictOf(error).error.code === 'protocol') throw error
      } finally {
        limit.done()
        stop.abort()
      }
    }
    this.#later()
    return this
  }

  get signal(): AbortSignal {
    return this.#stop.signal
  }

  subscribe(sink: Sink): Feed {
    const streams = this.transport === 'sse' && this.#streams < STREAMS_MAX
    if (streams) this.#streams++
    const feed = new HttpFeed(this, sink, streams)
    void feed.run().finally(() => {
      if (streams) this.#streams--
    })
    return feed
  }

  async publish({ batch, events }: OutboxEntry): Promise<Published[]> {
    const bodies = events.map(toJsonEvent)
    const answer = await this.call<Words>('POST', '/v1/events', { body: batch ? bodies : bodies[0] })
    const { scheduled, results = [isWords(scheduled) ? { ...scheduled, scheduled: true } : answer] } = answer
    return (results as Words[]).map(toPublished)
  }

  /** Requests carry the newest token; streams get it when they begin anew. */
  refresh(): void {}

  check(): void {
    this.#ask(this.settings.pingGraceMs, this.signal).then(
      () => this.#later(),
      (error) => this.fail(error),
    )
  }

  close(): void {
    clearTimeout(this.#beat)
    this.#stop.abort()
    for (const go of this.#waiting.splice(0)) go()
  }

  // ---- What feeds need.

  /** A call; what does not reach the broker ends the link. */
  async call<T>(method: string, path: string, init: CallInit = {}): Promise<T> {
    try {
      return await this.http.json<T>(method, path, { signal: this.signal, ...init })
    } catch (error) {
      // Closing the link is what aborted it; its caller did not.
      if (this.signal.aborted) throw lost('the connection was lost', error)
      // A portal or a proxy that refuses in the place of the broker says nothing of what was asked.
      const foreign = verdictOf(error).error.code === 'protocol'
      const told = foreign ? lost('what answers is not the broker', error) : error
      if (isOfLink(told)) this.fail(told)
      throw told
    }
  }

  /** It is over. */
  fail(error: unknown): void {
    if (this.signal.aborted) return
    this.close()
    this.#hooks.lost(verdictOf(error))
  }

  tokenExpiring(): void {
    this.#hooks.tokenExpiring()
  }

  known(log: string): void {
    this.session = { ...this.session, log }
  }

  /** Waits for a turn to poll and gives it how many seconds it may wait for events. */
  async turn<T>(poll: (waitSeconds: number) => Promise<T>): Promise<T> {
    const max = this.#streams > 0 ? 2 : 4
    while (this.#polls >= max && !this.signal.aborted) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    this.#polls++
    try {
      return await poll(this.#waiting.length > 0 || this.#polls === max ? 1 : 25)
    } finally {
      this.#polls--
      this.#waiting.shift()?.()
    }
  }

  async #ask(timeoutMs: number, signal: AbortSignal): Promise<void> {
    const sentMs = Date.now()
    this.#intervalMs = await capabilities(this.http, timeoutMs, signal)
    this.#hooks.latency(Date.now() - sentMs)
  }

  #later(): void {
    clearTimeout(this.#beat)
    if (!this.signal.aborted) this.#beat = setTimeout(() => this.check(), this.#intervalMs)
  }
}

/** Whether an error says something of the connection, and not of what was asked. */
export function isOfLink(error: unknown): boolean {
  const { code } = verdictOf(error).error
  return code === 'disconnected' || code === 'timeout' || code === 'unauthenticated'
}

/** What a read gives. */
export interface ReadWords {
  events: Words[]
  cursor: number
  log: string
  first: number
  last: number
  gap?: Words
  attempts?: Record<string, number>
}
