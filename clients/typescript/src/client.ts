import { ask } from './core/asking.js'
import { Connection } from './core/connection.js'
import { Emitter } from './core/emitter.js'
import { Http } from './core/http.js'
import { capabilities, HttpLink, type ReadWords } from './core/http-link.js'
import type { Link, LinkHooks } from './core/link.js'
import { Outbox } from './core/outbox.js'
import { watchPage } from './core/page.js'
import { Saver } from './core/saver.js'
import { type Settings, settingsOf } from './core/settings.js'
import { SocketLink } from './core/socket.js'
import { LiveSubscription } from './core/subscription.js'
import { Tokens } from './core/tokens.js'
import { uuidv7 } from './core/uuid.js'
import { abortable } from './core/wait.js'
import { placeWords, publishWords, queryOf, toEvent, wordsOf } from './core/words.js'
import { memoryCursors } from './cursors.js'
import { TidingsError } from './errors.js'
import { fromJsonEvents } from './json.js'
import type {
  Acknowledged,
  AnySchema,
  CallOptions,
  Client,
  ClientEvents,
  ClientOptions,
  EventHandler,
  Member,
  OutboxEvent,
  Published,
  PublishOptions,
  PublishRequest,
  ReadOptions,
  ReadResult,
  Receipt,
  RequestOptions,
  Session,
  State,
  Status,
  SubscribeOptions,
  Subscription,
  TidingsEvent,
  TopicInfo,
  TransportName,
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
  // The schema is known to the compiler alone.
  return new TidingsClient(url, options) as unknown as Client<S>
}

class TidingsClient implements Client {
  readonly #settings: Settings
  readonly #id = uuidv7()
  readonly #emitter: Emitter<ClientEvents>
  readonly #tokens: Tokens
  readonly #http: Http
  readonly #connection: Connection
  readonly #outbox: Outbox
  readonly #saver: Saver
  readonly #subscriptions = new Set<LiveSubscription>()
  readonly #own = new Set<string>()
  readonly #socketUrl: string
  readonly #WebSocket: typeof WebSocket | undefined
  readonly #stopPage: () => void
  #closed = false
  /** The connection was given up because the page was hidden; it is wanted again when it is shown. */
  #hidden = false

  constructor(url: string, options: ClientOptions) {
    const base = baseOf(url)
    const settings = settingsOf(options)
    this.#settings = settings
    this.#emitter = new Emitter((cause) => this.#failed(cause))
    this.#tokens = new Tokens(options, settings.requestTimeoutMs)
    this.#http = new Http(base, options.fetch ?? fetch, this.#tokens, settings.requestTimeoutMs)
    this.#socketUrl = `${base.replace(/^http/, 'ws')}/v1/ws`
    this.#WebSocket = options.WebSocket ?? (globalThis as { WebSocket?: typeof WebSocket }).WebSocket
    const transports = settings.transports.filter((name) => name !== 'websocket' || this.#WebSocket)
    if (transports.length === 0)
      throw new TidingsError('invalid_argument', 'transports: none of them is to be had here')
    const { cursors = 'memory' } = options
    this.#saver = new Saver(cursors === 'memory' ? memoryCursors() : cursors, (error) => this.#failed(error))
    this.#connection = new Connection(
      { ...settings, transports },
      {
        dial: (transport, hooks, signal) => this.#dial(transport, hooks, signal),
        reachable: (signal) =>
          capabilities(this.#http, settings.connectTimeoutMs, signal).then(
            () => true,
            () => false,
          ),
        attach: (link) => {
          for (const subscription of [...this.#subscriptions]) subscription.attach(link)
          this.#outbox.attach(link)
        },
        rejected: () => this.#tokens.renewable,
        tokenExpiring: (link) => void this.#renew(link),
        status: (status, moved) => {
          this.#emitter.emit('status', status)
          if (!moved) return
          settings.logger?.debug(`tidings is ${status.state}`, status)
          this.#emitter.emit('state', status)
        },
        goodbye: (code, reconnectAfterMs) => this.#emitter.emit('goodbye', { code, reconnectAfterMs }),
        error: (error) => this.#failed(error),
      },
    )
    this.#outbox = new Outbox(options.outbox ?? {}, {
      changed: (outboxEvents) => {
        this.#connection.set({ outboxEvents })
        this.#emitter.emit('outbox', outboxEvents)
      },
      failed: (error) => this.#failed(error),
    })
    this.#stopPage = watchPage({
      wake: () => this.#connection.wake(),
      hide: () => this.#hide(),
      show: () => this.#show(),
    })
    if (settings.autoConnect) this.connect()
  }

  get state(): State {
    return this.#connection.status.state
  }

  get status(): Status {
    return this.#connection.status
  }

  get session(): Session | undefined {
    return this.#connection.link?.session ?? this.#connection.session
  }

  get subscriptions(): readonly Subscription[] {
    return [...this.#subscriptions]
  }

  connect(): void {
    if (!this.#closed) this.#connection.connect()
  }

  disconnect(): void {
    this.#connection.disconnect()
  }

  ready(options: number | CallOptions = {}): Promise<void> {
    const { signal, timeoutMs } = typeof options === 'number' ? { signal: undefined, timeoutMs: options } : options
    return abortable(signal, (resolve, reject) => {
      const look = (): void => {
        const { state, error } = this.status
        if (state === 'connected') resolve()
        else if (this.#closed) reject(new TidingsError('closed', 'the client is closed'))
        else if (state === 'disconnected' && error) reject(error)
        else return
        stop()
      }
      const late = (): void => {
        stop()
        reject(new TidingsError('timeout', `not connected within ${timeoutMs} ms`, { cause: this.status.error }))
      }
      const timer = timeoutMs === undefined ? undefined : setTimeout(late, timeoutMs)
      const unlisten = this.on('state', look)
      const stop = (): void => {
        clearTimeout(timer)
        unlisten()
      }
      look()
      return stop
    })
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#stopPage()
    for (const subscription of this.#subscriptions) subscription.finish()
    await this.#saver.flush()
    const outbox = this.#outbox.close()
    this.#connection.disconnect()
    this.#tokens.close()
    this.#http.close()
    await outbox
    this.#emitter.clear()
  }

  on<K extends keyof ClientEvents>(name: K, listener: (...args: ClientEvents[K]) => void): () => void {
    return this.#emitter.on(name, listener)
  }

  async publish(topic: string, data?: unknown, options: PublishOptions = {}): Promise<Published> {
    const { signal, ...rest } = options
    const [published] = await this.#publish([{ ...rest, topic, data }], false, signal)
    return published as Published
  }

  publishBatch(events: readonly PublishRequest[], options: { signal?: AbortSignal } = {}): Promise<Published[]> {
    return this.#publish(events, true, options.signal)
  }

  request<Answer>(topic: string, data?: unknown, options: RequestOptions = {}): Promise<TidingsEvent<Answer>> {
    return ask(this, `replies.${this.#id}`, topic, data, options) as Promise<TidingsEvent<Answer>>
  }

  subscribe(
    filter: string | readonly string[],
    options: SubscribeOptions | EventHandler = {},
    onEvent?: EventHandler,
  ): Subscription {
    const [chosen, handler] = typeof options === 'function' ? [{}, options] : [options, onEvent]
    const subscription = new LiveSubscription(typeof filter === 'string' ? [filter] : [...filter], chosen, handler, {
      isOwn: (id) => this.#own.has(id),
      echo: this.#settings.echo,
      event: (event, from) => this.#emitter.emit('event', event, from),
      gap: (gap, from) => this.#emitter.emit('gap', gap, from),
      failed: (error) => this.#failed(error),
      moved: (key, saved) => this.#saver.set(key, saved),
      closed: (from) => void this.#subscriptions.delete(from as LiveSubscription),
    })
    if (this.#closed) subscription.finish()
    if (subscription.state === 'closed') return subscription
    this.#subscriptions.add(subscription)
    const { key } = subscription
    if (key !== undefined) void this.#saver.get(key).then((saved) => subscription.place(saved))
    subscription.attach(this.#connection.link)
    return subscription
  }

  async read(filter: string | readonly string[], options: ReadOptions = {}): Promise<ReadResult<never>> {
    const { after, waitMs = 0, onGap, signal, timeoutMs = this.#settings.requestTimeoutMs, ...rest } = options
    const query = queryOf({
      filters: typeof filter === 'string' ? [filter] : filter,
      ...placeWords(after),
      ...wordsOf(rest),
      on_gap: onGap === 'error' ? onGap : 'skip',
      wait: `${waitMs}ms`,
    })
    const answer = await this.#http.json<ReadWords>('GET', `/v1/events?${query}`, {
      signal,
      timeoutMs: timeoutMs + waitMs,
    })
    const events = fromJsonEvents(answer.events).map((event) => toEvent(event, 1, this.#own.has(event.id as string)))
    return { ...answer, events } as unknown as ReadResult<never>
  }

  async presence<Data>(topic: string, options: CallOptions = {}): Promise<Member<Data>[]> {
    const answer = await this.call<{ members: Member<Data>[] }>(
      'GET',
      `/v1/presence/${encodeURIComponent(topic)}`,
      undefined,
      options,
    )
    return answer.members
  }

  async receipts(event: Acknowledged, options: CallOptions = {}): Promise<Receipt[]> {
    const offset = typeof event === 'number' ? event : event.offset
    return (await this.call<{ receipts: Receipt[] }>('GET', `/v1/events/${offset}/receipts`, undefined, options))
      .receipts
  }

  topics(
    filter = '>',
    { limit, cursor, ...options }: CallOptions & { limit?: number; cursor?: string } = {},
  ): Promise<{ topics: TopicInfo[]; cursor?: string }> {
    return this.call('GET', `/v1/topics?${queryOf(wordsOf({ filter, limit, cursor }))}`, undefined, options)
  }

  async cancel(event: Acknowledged, options: CallOptions = {}): Promise<void> {
    await this.call('DELETE', `/v1/scheduled/${offsetOf(event)}`, undefined, options)
  }

  async call<T>(method: string, path: string, body?: unknown, options: CallOptions = {}): Promise<T> {
    return this.#http.json<T>(method, path, { body, ...options })
  }

  async #publish(requests: readonly PublishRequest[], batch: boolean, signal?: AbortSignal): Promise<Published[]> {
    const events = requests.map((request) => publishWords(request))
    this.#remember(events)
    return this.#outbox.add(events, batch, signal)
  }

  #remember(events: readonly OutboxEvent[]): void {
    for (const { id } of events) {
      this.#own.add(id)
      if (this.#own.size <= OWN_MAX) continue
      const [oldest] = this.#own
      if (oldest !== undefined) this.#own.delete(oldest)
    }
  }

  async #dial(transport: TransportName, hooks: LinkHooks, signal: AbortSignal): Promise<Link> {
    const Socket = this.#WebSocket
    if (transport !== 'websocket' || !Socket) {
      const [first] = this.#subscriptions
      return new HttpLink(transport === 'poll' ? 'poll' : 'sse', this.#http, this.#settings, hooks).open(
        first?.filters,
        signal,
      )
    }
    const token = await this.#tokens.current()
    const lost: LinkHooks['lost'] = (verdict) => {
      if (verdict.rejected) this.#tokens.ended()
      hooks.lost(verdict)
    }
    try {
      return await new SocketLink(this.#socketUrl, Socket, this.#settings, { ...hooks, lost }).open(token, signal)
    } catch (error) {
      if ((error as { rejected?: boolean }).rejected) this.#tokens.rejected(token)
      throw error
    }
  }

  async #renew(link: Link): Promise<void> {
    try {
      const token = await this.#tokens.renewed()
      if (token !== undefined && link === this.#connection.link) link.refresh(token)
    } catch (error) {
      this.#failed(error)
    }
  }

  #hide(): void {
    this.#hidden ||= this.state !== 'disconnected'
    this.#connection.disconnect()
    void this.#saver.flush()
    void this.#outbox.suspend()
  }

  #show(): void {
    this.#outbox.resume()
    if (this.#hidden) this.connect()
    this.#hidden = false
  }

  #failed(cause: unknown): void {
    const error = cause instanceof TidingsError ? cause : new TidingsError('internal', 'a listener threw', { cause })
    this.#settings.logger?.warn(error.message, error)
    if (!this.#closed) this.#emitter.emit('error', error)
  }
}

function offsetOf(event: Acknowledged): number {
  return typeof event === 'number' ? event : event.offset
}

function baseOf(url: string): string {
  const here = (globalThis as { location?: { href: string } }).location?.href
  try {
    const { protocol, host, pathname, search } = new URL(url, here)
    const scheme = { 'http:': 'http', 'ws:': 'http', 'https:': 'https', 'wss:': 'https' }[protocol]
    if (scheme && !search) return `${scheme}://${host}${pathname.replace(/\/+$/, '')}`
  } catch {}
  throw new TidingsError('invalid_argument', `"${url}" is no address of a broker: give http(s)://HOST[:PORT][/PATH]`)
}
