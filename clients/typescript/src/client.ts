import { offsetsOf } from './core/acks.js'
import { ask } from './core/asking.js'
import { createConnection } from './core/connection.js'
import type { Core } from './core/core.js'
import { createEmitter } from './core/emitter.js'
import { createHttp } from './core/http.js'
import { openHttp, type ReadWords } from './core/http-link.js'
import { createOutbox } from './core/outbox.js'
import { watchPage } from './core/page.js'
import { createSaver } from './core/saver.js'
import { settingsOf } from './core/settings.js'
import { openSocket } from './core/socket.js'
import { createSubscription, type LiveSubscription } from './core/subscription.js'
import { createTokens } from './core/tokens.js'
import { uuidv7 } from './core/uuid.js'
import { abortable, deadline } from './core/wait.js'
import { placeWords, publishWords, queryOf, toEvent, wordsOf } from './core/words.js'
import { memoryCursors } from './cursors.js'
import { failure, TidingsError } from './errors.js'
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
  const [first, ...others] = settings.transports.filter((name) => name !== 'websocket' || settings.WebSocket)
  if (!first) throw failure('invalid_argument', 'transports: none is available here')
  const { cursors = 'memory', logger } = settings
  const subscriptions = new Set<LiveSubscription>()
  const own = new Set<string>()
  const replies = `replies.${uuidv7()}`
  let closed = false
  /** The connection was given up because the page was hidden; it is wanted again when it is shown. */
  let hidden = false

  const failed = (cause: unknown): void => {
    const error = cause instanceof TidingsError ? cause : failure('internal', 'a listener threw', cause)
    logger?.warn(error.message, error)
    if (!closed) emitter.emit('error', error)
  }
  const emitter = createEmitter<ClientEvents>(failed)
  const tokens = createTokens(settings)
  const http = createHttp(base, settings, tokens)
  const saver = createSaver(cursors === 'memory' ? memoryCursors() : cursors, failed)
  const core: Core = { settings, tokens, http, saver, emit: emitter.emit, failed }

  const connection = createConnection(
    core,
    [first, ...others],
    (transport, hooks, signal) => {
      if (transport === 'websocket') return openSocket(`${base.replace(/^http/, 'ws')}/v1/ws`, core, hooks, signal)
      const [oldest] = subscriptions
      return openHttp(transport, oldest?.shown.filters, core, hooks, signal)
    },
    (link) => {
      for (const subscription of [...subscriptions]) subscription.attach(link)
      outbox.attach(link)
    },
  )
  const { connect, disconnect } = connection
  const outbox = createOutbox(
    settings.outbox ?? {},
    (outboxEvents) => {
      connection.set({ outboxEvents })
      emitter.emit('outbox', outboxEvents)
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
    return outbox.add(events, batch, signal)
  }
  const call = async <T>(method: string, path: string, body?: unknown, options?: CallOptions): Promise<T> =>
    http.json<T>(method, path, { body, ...options })

  const stopPage = watchPage({
    wake: connection.wake,
    hide() {
      hidden ||= client.state !== 'disconnected'
      disconnect()
      void saver.flush()
      void outbox.suspend()
    },
    show() {
      outbox.resume()
      if (hidden) client.connect()
      hidden = false
    },
  })

  const client: Client = {
    get state() {
      return connection.status().state
    },
    get status() {
      return connection.status()
    },
    get session() {
      return connection.session()
    },
    get subscriptions() {
      return [...subscriptions].map(({ shown }) => shown)
    },
    connect() {
      if (!closed) connect()
    },
    disconnect: () => disconnect(),
    ready(options = {}) {
      const { signal, timeoutMs = Infinity } = typeof options === 'number' ? { timeoutMs: options } : options
      const limit = deadline(timeoutMs, signal)
      return abortable<void>(limit.signal, (resolve, reject) => {
        const look = (): void => {
          const { state, error } = client.status
          if (state === 'connected') resolve()
          else if (closed) reject(failure('closed', 'the client is closed'))
          else if (state === 'disconnected' && error) reject(error)
        }
        look()
        return client.on('state', look)
      }).finally(limit.done)
    },
    async close() {
      if (closed) return
      closed = true
      stopPage()
      for (const subscription of subscriptions) subscription.finish()
      await saver.flush()
      const done = outbox.close()
      disconnect()
      tokens.close()
      http.close()
      await done
      emitter.clear()
    },
    on: emitter.on,
    async publish(topic, data, { signal, ...rest } = {}) {
      const [published] = await publish([{ ...rest, topic, data }], false, signal)
      return published as Published
    },
    publishBatch: (events, { signal } = {}) => publish(events, true, signal),
    request: (topic, data, options = {}) => ask(client, replies, topic, data, options) as Promise<never>,
    subscribe(filter: string | readonly string[], options: object = {}, onEvent?: unknown) {
      const [chosen, handler] = typeof options === 'function' ? [{}, options] : [options, onEvent]
      const subscription = createSubscription([filter].flat(), chosen, handler as never, {
        core,
        isOwn: (id) => own.has(id),
        closed: (self) => void subscriptions.delete(self),
      })
      const { shown } = subscription
      if (closed) subscription.finish()
      if (shown.state !== 'closed') {
        subscriptions.add(subscription)
        subscription.attach(connection.link())
      }
      return shown as Subscription<never>
    },
    async read(filter, { after, waitMs = 0, onGap, signal, timeoutMs = settings.requestTimeoutMs, ...rest } = {}) {
      const query = queryOf({
        filters: [filter].flat(),
        ...placeWords(after),
        ...wordsOf(rest),
        on_gap: onGap === 'error' ? onGap : 'skip',
        wait: `${waitMs}ms`,
      })
      const init = { signal, timeoutMs: timeoutMs + waitMs }
      const answer = await http.json<ReadWords>('GET', `/v1/events?${query}`, init)
      const events = fromJsonEvents(answer.events).map((event) => toEvent(event, 1, own.has(event.id as string)))
      return { ...answer, events } as never
    },
    presence: async (topic, options) =>
      (await call<{ members: never }>('GET', `/v1/presence/${encodeURIComponent(topic)}`, undefined, options)).members,
    async receipts(event, options) {
      const path = `/v1/events/${offsetsOf(event)}/receipts?limit=1000`
      const all: Receipt[] = []
      for (let behind = ''; ; ) {
        const page = await call<{ receipts: Receipt[]; cursor?: string }>('GET', path + behind, undefined, options)
        all.push(...page.receipts)
        if (!page.cursor) return all
        behind = `&cursor=${encodeURIComponent(page.cursor)}`
      }
    },
    topics: (filter = '>', { limit, cursor, ...options } = {}) =>
      call('GET', `/v1/topics?${queryOf(wordsOf({ filter, limit, cursor }))}`, undefined, options),
    async cancel(event, options) {
      await call('DELETE', `/v1/scheduled/${offsetsOf(event)}`, undefined, options)
    },
    call,
  }
  if (settings.autoConnect) connect()
  // The schema is known to the compiler alone.
  return client as unknown as Client<S>
}

function baseOf(url: string): string {
  const here = (globalThis as { location?: { href: string } }).location?.href
  try {
    const { protocol, host, pathname, search } = new URL(url, here)
    const scheme = { 'http:': 'http', 'ws:': 'http', 'https:': 'https', 'wss:': 'https' }[protocol]
    if (scheme && !search) return `${scheme}://${host}${pathname.replace(/\/+$/, '')}`
  } catch {}
  throw failure('invalid_argument', `"${url}" is no address: give http(s)://HOST[:PORT][/PATH]`)
}
