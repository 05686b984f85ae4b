// A connection over plain HTTP: events by server-sent events or by long poll, all else by requests.
//
// - There is no session: it is there while requests are answered. The broker is asked every ping interval.
// - A browser has six connections to a host over HTTP/1.1: three streams at most, or five where one is to be listed,
//   which takes a stream. Further subscriptions are polled: four polls at a time, two beside streams, and beside more
//   than three streams a short one, so that a connection is free for all else, or soon.

import { failure, type TidingsError } from '../errors.js'
import { toJsonEvent } from '../json.js'
import type { Session } from '../types.js'
import type { Words } from '../wire.js'
import { createBeat } from './beat.js'
import type { Core } from './core.js'
import type { Http } from './http.js'
import { openFeed } from './http-feed.js'
import { type Link, type LinkHooks, pingIntervalMs, publishedOf } from './link.js'
import { uuidv7 } from './uuid.js'
import { errorOf, isOfLink, lost } from './verdict.js'
import { queryOf } from './words.js'

/** What feeds need of their link. */
export interface HttpLink extends Core, LinkHooks {
  /** Aborted when the link is over. */
  readonly _signal: AbortSignal
  /** A call that may wait for so many seconds; what does not reach the broker ends the link. */
  _json<T = Words>(method: string, path: string, body?: unknown, waitSeconds?: number, signal?: AbortSignal): Promise<T>
  _log(log: string): void
  /** Waits for a turn to poll and gives it how many seconds it may wait for events. */
  _turn<T>(poll: (waitSeconds: number) => Promise<T>): Promise<T>
}

/** Asks what the broker can do, and with that whether it can be reached. */
export function capabilities(http: Http, timeoutMs: number, signal?: AbortSignal): Promise<Words | undefined> {
  return http._json('GET', '/v1/capabilities', { timeoutMs, signal })
}

/**
 * Connects. Over SSE it counts when the first bytes of a stream of `filters` have come: what stands between may hold
 * streams back for ever.
 */
export async function openHttp(
  transport: 'sse' | 'poll',
  filters: readonly string[] | undefined,
  core: Core,
  hooks: LinkHooks,
  opening: AbortSignal,
): Promise<Link> {
  const { _http: http, _settings: settings } = core
  const stop = new AbortController()
  const { signal } = stop
  const waiting: (() => void)[] = []
  let session = { id: uuidv7() } as Session
  let streams = 0
  let polls = 0

  const close = (): void => {
    beat._clear()
    stop.abort()
    for (const go of waiting.splice(0)) go()
  }
  const fail = (error: unknown): void => {
    if (signal.aborted) return
    close()
    const why = errorOf(error)
    // Whoever answers nonsense is not the broker, which may be back the next time.
    hooks._lost(why.code === 'protocol' ? lost('no broker', why) : why)
  }

  const inner: HttpLink = {
    ...core,
    ...hooks,
    _signal: signal,
    async _json(method, path, body, waitSeconds = 0, by = signal) {
      const timeoutMs = waitSeconds * 1_000 + settings.requestTimeoutMs
      try {
        return await http._json(method, path, { body, timeoutMs, signal: by })
      } catch (error) {
        // Closing the link is what aborted it; its caller did not.
        if (signal.aborted) throw lost(undefined, error)
        // A portal or a proxy that refuses in the place of the broker says nothing of what was asked.
        if (isOfLink(error as TidingsError)) fail(error)
        throw error
      }
    },
    _lost: fail,
    _log(log) {
      session = { ...session, log }
    },
    async _turn(poll) {
      const max = streams > 3 ? 1 : streams ? 2 : 4
      while (polls >= max && !signal.aborted) await new Promise<void>((resolve) => waiting.push(resolve))
      polls++
      try {
        return await poll(waiting.length > 0 || polls === max ? 1 : 25)
      } finally {
        polls--
        waiting.shift()?.()
      }
    },
  }

  const beat = createBeat(() => capabilities(http, settings.pingGraceMs, signal), hooks, fail)
  const able = await beat._timed(capabilities(http, settings.connectTimeoutMs, opening))
  if (transport === 'sse' && filters) {
    try {
      const pieces = http._stream(`/v1/events?${queryOf({ filters })}`, opening)
      if ((await pieces.next()).done) throw lost('the stream ended')
      void pieces.return(0)
    } catch (cause) {
      const error = errorOf(opening.reason ?? cause)
      // What the broker refuses has reached it: that is the subscription's business, and not the transport's.
      if (isOfLink(error)) throw error
    }
  }
  beat._set(pingIntervalMs(able?.limits as Words | undefined))

  return {
    _transport: transport,
    get _session() {
      return session
    },
    _window: 1,
    _subscribe(sink) {
      const { presence } = sink._request()
      const stream = transport === 'sse' && streams < (presence ? 5 : 3)
      // A request stays nowhere, so that the broker has nobody to list.
      if (!stream && presence) core._failed(failure('unavailable', 'not listed by polls'))
      const one = Number(stream)
      streams += one
      return openFeed(inner, sink, stream, () => {
        streams -= one
      })
    },
    async _publish({ batch, events }) {
      const bodies = events.map(toJsonEvent)
      return publishedOf(await inner._json('POST', '/v1/events', batch ? bodies : bodies[0]))
    },
    /** Requests carry the newest token; streams get it when they begin anew. */
    _refresh() {},
    _wake: beat._wake,
    _close: close,
  }
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
