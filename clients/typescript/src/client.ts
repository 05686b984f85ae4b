import { offsetsOf } from './core/acks.js'
import { ask } from './core/asking.js'
import { createConnection } from './core/connection.js'
import type { Core } from './core/core.js'
import { createEmitter } from './core/emitter.js'
import { type CallInit, createHttp } from './core/http.js'
import { openHttp, type ReadWords } from './core/http-link.js'
import { createOutbox } from './core/outbox.js'
import { watchPage } from './core/page.js'
import { createSaver } from './core/saver.js'
import { settingsOf } from './core/settings.js'
import { openSocket } from './core/socket.js'
import { createSubscription, type LiveSubscription } from './core/subscription.js'
import { createTokens } from './core/tokens.js'
import { uuidv7 } from './core/uuid.js'
import { ended } from './core/verdict.js'
import { abortable, unless, within } from './core/wait.js'
import { placeWords, publishWords, queryOf, toEvent } from './core/words.js'
import { memoryCursors } from './cursors.js'
import { failure, toError } from './errors.js'
import { fromJsonEvents } from './json.js'
import type {
  AnySchema,
  CallOptions,
  Client,
  ClientEvents,
  ClientOptions,
  Published,
  PublishRequest,
  Receipt,
  Subscription,
} from './types.js'

/** How many ids of its own a client remembers. */
const OWN_MAX = 1_000

/**
 * A client of the broker at `url` (`https://tidings.example`, with a path where it stands behind one). It connects by
 * itself unless `autoConnect` is off.
 *
 * ```ts
 * const client = createClient('https://tidings.example', { token })
 * client.subscribe('tasks.*', (event) => console.log(event.topic, event.data))
 * await client.publish('tasks.42', { done: 7, of: 10 })
 * ```
 *
 * Throws a `TidingsError` of code `invalid_argument` for an address that is none.
 */
export function createClient<S extends object = AnySchema>(url: string, options: ClientOptions = {}): Client<S> {
  const base = baseOf(url)
  const settings = settingsOf(options)
  const transports = settings.transports.filter((name) => name !== 'websocket' || settings.WebSocket)
  if (transports.length === 0) throw failure('invalid_argument', 'no transport')
  const { cursors = 'memory', logger } = settings
  const subscriptions = new Set<LiveSubscription>()
  const own = new Set<string>()
  const replies = `replies.${uuidv7()}`
  const end = new AbortController()
  let closed = false
  /** The connection was given up because the page was hidden; it is wanted again when it is shown. */
  let hidden = false

  const failed = (cause: unknown): void => {
    const error = toError(cause, 'internal', 'a listener threw')
    logger?.warn(error.message, error)
    if (!closed) emitter._emit('error', error)
  }
  const emitter = createEmitter<ClientEvents>(failed)
  const tokens = createTokens(settings, end.signal)
  const http = createHttp(base, settings, tokens, end.signal)
  const saver = createSaver(cursors === 'memory' ? memoryCursors() : cursors, failed)
  const core: Core = {
    _settings: settings,
    _tokens: tokens,
    _http: http,
    _saver: saver,
    _emit: emitter._emit,
    _failed: failed,
  }

  const connection = createConnection(
    core,
    transports,
    (transport, hooks, signal) => {
      if (transport === 'websocket') return openSocket(`${base.replace(/^http/, 'ws')}/v1/ws`, core, hooks, signal)
      const [oldest] = subscriptions
      return openHttp(transport, oldest?._shown.filters, core, hooks, signal)
    },
    (link) => {
      for (const subscription of [...subscriptions]) subscription._attach(link)
      outbox._attach(link)
    },
  )
  const { _open: connect, _close: disconnect } = connection
  const outbox = createOutbox(
    settings.outbox ?? {},
    (outboxEvents) => {
      connection._set({ outboxEvents })
      emitter._emit('outbox', outboxEvents)
    },
    failed,
  )

  const publish = async (
    requests: readonly PublishRequest[],
    batch: boolean,
    signal?: AbortSignal,
  ): Promise<Published[]> => {
    const events = requests.map(publishWords)
    for (const { id } of events) {
      own.add(id)
      const [oldest] = own
      if (own.size > OWN_MAX && oldest) own.delete(oldest)
    }
    return outbox._publish(events, batch, signal)
  }
  const call = async <T>(method: string, path: string, body?: unknown, options?: CallOptions): Promise<T> =>
    http._json<T>(method, path, { body, ...options })
  const get = <T>(path: string, options?: CallInit): Promise<T> => http._json<T>('GET', `/v1/${path}`, options)

  watchPage(
    end.signal,
    connection._wake,
    () => {
      hidden ||= client.state !== 'disconnected'
      disconnect()
      void saver._flush()
      void outbox._suspend()
    },
    () => {
      outbox._open()
      if (hidden) client.connect()
      hidden = false
    },
  )

  const client: Client = {
    get state() {
      return connection._status().state
    },
    get status() {
      return connection._status()
    },
    get session() {
      return connection._session()
    },
    get subscriptions() {
      return [...subscriptions].map(({ _shown: shown }) => shown)
    },
    connect() {
      if (!closed) connect()
    },
    disconnect: () => disconnect(),
    ready(options = {}) {
      const { signal, timeoutMs = Infinity } = typeof options === 'number' ? { timeoutMs: options } : options
      const connected = (limit: AbortSignal): Promise<void> =>
        abortable(limit, (resolve, reject) => {
          const look = (): void => {
            const { state, error } = client.status
            if (state === 'connected') resolve()
            else if (closed) reject(ended())
            else if (state === 'disconnected' && error) reject(error)
          }
          look()
          return client.on('state', look)
        })
      return within(timeoutMs, connected, signal)
    },
    async close() {
      if (closed) return
      closed = true
      for (const subscription of subscriptions) subscription._close()
      // All else is closed whatever becomes of a store that hangs.
      const saved = within(settings.requestTimeoutMs, (limit) => unless(limit, saver._flush())).catch(failed)
      const done = outbox._close()
      disconnect()
      end.abort(ended())
      await done
      await saved
      emitter._clear()
    },
    on: emitter._on,
    async publish(topic, data, { signal, ...rest } = {}) {
      const [published] = await publish([{ ...rest, topic, data }], false, signal)
      return published as Published
    },
    publishBatch: (events, { signal } = {}) => publish(events, true, signal),
    request: (topic, data, options = {}) => ask(client, replies, topic, data, options) as Promise<never>,
    subscribe(filter: string | readonly string[], options: object = {}, onEvent?: unknown) {
      const [chosen, handler] = typeof options === 'function' ? [{}, options] : [options, onEvent]
      const subscription = createSubscription(
        [filter].flat(),
        chosen,
        handler as never,
        core,
        (id) => own.has(id),
        (self) => void subscriptions.delete(self),
      )
      const { _shown: shown } = subscription
      if (closed) subscription._close()
      if (shown.state !== 'closed') {
        subscriptions.add(subscription)
        subscription._attach(connection._link())
      }
      return shown as Subscription<never>
    },
    async read(filter, { after, waitMs = 0, onGap, signal, timeoutMs = settings.requestTimeoutMs, ...rest } = {}) {
      const gaps = onGap === 'error' ? onGap : 'skip'
      const words = { filters: [filter].flat(), ...rest, ...placeWords(after), wait: `${waitMs}ms`, onGap: gaps }
      const init = { signal, timeoutMs: timeoutMs + waitMs }
      const answer = await get<ReadWords>(`events?${queryOf(words)}`, init)
      const events = fromJsonEvents(answer.events).map((event) => toEvent(event, 1, own.has(event.id as string)))
      return { ...answer, events } as never
    },
    presence: async (topic, options) =>
      (await get<{ members: never }>(`presence/${encodeURIComponent(topic)}`, options)).members,
    async receipts(event, options) {
      const all: Receipt[] = []
      let cursor: string | undefined
      do {
        const query = queryOf({ limit: 1000, cursor })
        const page = await get<{ receipts: Receipt[]; cursor?: string }>(
          `events/${offsetsOf(event)}/receipts?${query}`,
          options,
        )
        all.push(...page.receipts)
        cursor = page.cursor
      } while (cursor)
      return all
    },
    topics: (filter = '>', { limit, cursor, ...options } = {}) =>
      get(`topics?${queryOf({ filter, limit, cursor })}`, options),
    cancel: (event, options) => call('DELETE', `/v1/scheduled/${offsetsOf(event)}`, undefined, options),
    call,
  }
  if (settings.autoConnect) connect()
  // The schema is known to the compiler alone.
  return client as unknown as Client<S>
}

function baseOf(url: string): string {
  const here = (globalThis as { location?: { href: string } }).location?.href
  try {
    const { protocol, origin, pathname, search } = new URL(url.replace(/^ws(?=s?:)/i, 'http'), here)
    if (/^http/.test(protocol) && !search) return origin + pathname.replace(/\/+$/, '')
  } catch {}
  throw failure('invalid_argument', `no http(s) address: "${url}"`)
}
