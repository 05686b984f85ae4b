// A connection over WebSocket, from the upgrade to its end.
//
// - Nothing heard for the broker's ping interval: it is asked. Nothing heard for the grace after that: it is gone.
// - After a goodbye nothing more is published here: it waits for the next connection.

import { TidingsError } from '../errors.js'
import type { OutboxEntry } from '../options.js'
import type { Gap, Published, Session } from '../types.js'
import type { WireMessage, Words } from '../wire.js'
import { kindOf, LATER } from './check.js'
import { frameReader } from './frames.js'
import type { Feed, Link, LinkHooks, Sink } from './link.js'
import { Pending } from './pending.js'
import type { Settings } from './settings.js'
import type { Batch } from './track.js'
import { lost, refusal, type Verdict, verdictOf, verdictOfClose } from './verdict.js'
import type { Timer } from './wait.js'

/** A publish has no time of its own, but a broker that answers pings and no publishes is none. */
const PUBLISH_TIMEOUTS = 3

export class SocketLink implements Link {
  readonly transport = 'websocket'
  /** How many publishes may wait for their answers. */
  readonly window = 256
  session: Session = { id: '', subject: undefined, log: undefined }

  readonly #settings: Settings
  readonly #hooks: LinkHooks
  readonly #socket: WebSocket
  readonly #pending = new Pending()
  readonly #sinks = new Map<number, Sink>()
  /** Told how the opening ended; `undefined` when it has. */
  #opening: ((verdict?: Verdict) => void) | undefined
  #over = false
  #intervalMs = 0
  #bytesMax = 1 << 20
  #heardMs = 0
  #askedMs = 0
  #beat: Timer
  #goodbyeMs: number | undefined

  constructor(url: string, Socket: typeof WebSocket, settings: Settings, hooks: LinkHooks) {
    this.#settings = settings
    this.#hooks = hooks
    const broken = (error: unknown): void => {
      // What only a later version says is passed over.
      if ((error as TidingsError).cause !== LATER) this.end({ ...verdictOf(error), stop: true })
    }
    const take = frameReader(
      settings.codec,
      settings.compress,
      () => this.#bytesMax,
      (message) => this.#take(message),
      broken,
    )
    const socket = new Socket(url, settings.codec.subprotocol)
    this.#socket = socket
    socket.binaryType = 'arraybuffer'
    socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
      this.#heardMs = Date.now()
      take(data)
    }
    socket.onclose = ({ code, reason }) => this.end(verdictOfClose(code, reason, this.#goodbyeMs))
    // The close that follows says as much as there is to know. In Node 22 none follows where the handshake failed.
    socket.onerror = () => void setTimeout(() => this.end(verdictOfClose(1006, '', this.#goodbyeMs)))
  }

  /** Connects. Rejected with a `Verdict`. */
  open(token: string | undefined, signal: AbortSignal): Promise<this> {
    return new Promise((resolve, reject) => {
      const stop = (): void => this.end(verdictOf(signal.reason))
      this.#opening = (verdict) => {
        this.#opening = undefined
        signal.removeEventListener('abort', stop)
        if (verdict) reject(verdict)
        else resolve(this)
      }
      if (signal.aborted) return stop()
      signal.addEventListener('abort', stop)
      this.#socket.onopen = () => {
        const { name: client, compress } = this.#settings
        const connect: Words = { client }
        if (token !== undefined) connect.token = token
        if (compress?.available) connect.compress = [compress.name]
        const sentMs = Date.now()
        this.#ask({ connect }).then(
          (connected) => this.#connected(connected, Date.now() - sentMs),
          (error) => this.end(verdictOf(error)),
        )
      }
    })
  }

  #connected(words: Words, latencyMs: number): void {
    this.session = { id: `${words.session}`, subject: `${words.subject}`, log: `${words.log}` }
    this.#intervalMs = Math.max(100, Number(words.ping_interval_ms) || 25_000)
    this.#bytesMax = Number(words.max_message_bytes) || this.#bytesMax
    this.#opening?.()
    this.#hooks.latency(latencyMs)
    this.#listen()
  }

  // ---- What the client asks for.

  subscribe(sink: Sink): Feed {
    let number: number | undefined
    let closed = false
    const answered = (words: Words): void => {
      // At once, and not a microtask later: what follows in the stream may be for it.
      number = words.subscription as number
      if (closed) return
      this.#sinks.set(number, sink)
      sink.subscribed(words.cursor as number, this.session.log)
    }
    // It has no time of its own: a state of many keys takes long, and pings find a connection that is dead.
    const asked = this.#ask({ subscribe: sink.request() }, answered, Infinity).catch(
      (error) => closed || this.#over || sink.refused(error),
    )
    return {
      say: async (kind, words) =>
        (await this.#ask({ [kind]: { subscription: number, ...words } })).cursor as number | undefined,
      close: async () => {
        closed = true
        if (number === undefined) await asked
        if (number === undefined) return
        this.#sinks.delete(number)
        await this.#ask({ unsubscribe: { subscription: number } }).catch(() => {})
      },
    }
  }

  async publish({ batch, events }: OutboxEntry): Promise<Published[]> {
    if (this.#goodbyeMs !== undefined) throw lost('the broker is about to close the connection')
    const request = batch ? { publish_batch: { events } } : { publish: events[0] }
    const { results, ...answer } = await this.#ask(
      request,
      undefined,
      PUBLISH_TIMEOUTS * this.#settings.requestTimeoutMs,
    ).catch((error) => {
      if (error.code === 'timeout') this.end({ error })
      throw error
    })
    return ((results as Words[] | undefined) ?? [answer]).map(toPublished)
  }

  refresh(token: string): void {
    this.#ask({ refresh: { token } }).catch((error) => this.#over || this.#hooks.error(error))
  }

  check(): void {
    const sentMs = Date.now()
    this.#askedMs = sentMs
    this.#ask({ ping: {} }, undefined, this.#settings.pingGraceMs).then(
      () => this.#hooks.latency(Date.now() - sentMs),
      (error) => {
        // Whatever is heard, and not its answer alone, shows that the broker is there.
        if (this.#heardMs <= sentMs) this.end({ error: lost('the broker has been silent for too long', error) })
      },
    )
  }

  close(): void {
    this.end(undefined)
  }

  // ---- How it works.

  /** Asks; `at` has the answer before the next message is read. */
  #ask(request: Words, at?: (answer: Words) => void, timeoutMs = this.#settings.requestTimeoutMs): Promise<Words> {
    return new Promise((resolve, reject) => {
      if (this.#over) throw lost('the connection is lost')
      const id = this.#pending.next()
      const message = this.#settings.codec.encode({ id, ...request })
      const bytes = bytesOf(message, this.#bytesMax)
      if (bytes > this.#bytesMax) {
        throw new TidingsError('too_large', `the message has ${bytes} bytes, at most ${this.#bytesMax} are allowed`)
      }
      this.#socket.send(typeof message === 'string' ? message : framed(message))
      const answered = (answer: Words): void => {
        at?.(answer)
        resolve(answer)
      }
      this.#pending.add(id, timeoutMs, answered, reject)
    })
  }

  #take(message: WireMessage): void {
    if (this.#over) return
    if (message.reply !== undefined) return this.#pending.answer(message)
    const kind = kindOf(message)
    const words = message[kind ?? ''] as Words
    const number = words.subscription as number
    const cursor = words.cursor as number
    const sink = this.#sinks.get(number)
    if (kind === 'events') sink?.batch(words as unknown as Batch)
    else if (kind === 'gap') sink?.gap(words as unknown as Gap)
    else if (kind === 'caught_up') sink?.caughtUpAt(cursor)
    else if (kind === 'acked') sink?.acked(cursor)
    else if (kind === 'superseded') {
      this.#sinks.delete(number)
      sink?.superseded()
    } else if (kind === 'goodbye') {
      this.#goodbyeMs = Number(words.reconnect_after_ms)
      this.#hooks.goodbye(`${words.code}`, this.#goodbyeMs)
    } else if (kind === 'token_expiring') this.#hooks.tokenExpiring()
    else if (kind === 'error') {
      const error = refusal(words)
      const ended = Number(/^subscription (\d+) ends:/.exec(error.message)?.[1])
      const of = this.#sinks.get(ended)
      if (this.#opening) this.end(verdictOf(error))
      else if (of) {
        this.#sinks.delete(ended)
        of.refused(error)
      } else this.#hooks.error(error)
    }
  }

  /** Looks again when the broker's interval is over; one timer, that follows what was heard. */
  #listen(): void {
    const dueMs = (): number => Math.max(this.#heardMs, this.#askedMs) + this.#intervalMs - Date.now()
    this.#beat = setTimeout(
      () => {
        if (dueMs() <= 0) this.check()
        this.#listen()
      },
      Math.max(dueMs(), 10),
    )
  }

  end(verdict: Verdict | undefined): void {
    if (this.#over) return
    this.#over = true
    clearTimeout(this.#beat)
    const socket = this.#socket
    socket.onopen = socket.onmessage = socket.onclose = null
    socket.close(1000)
    this.#sinks.clear()
    this.#pending.fail(lost('the connection was lost', verdict?.error))
    if (this.#opening) this.#opening(verdict ?? { error: lost('closed') })
    else if (verdict) this.#hooks.lost(verdict)
  }
}

/** How many bytes are sent. A text is only counted where it may be too large: a character has three bytes at most. */
function bytesOf(message: string | Uint8Array, bytesMax: number): number {
  if (typeof message !== 'string' || message.length * 3 <= bytesMax) return message.length
  return new TextEncoder().encode(message).length
}

/** A binary frame begins with 0 where nothing is compressed. */
function framed(message: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(message.length + 1)
  frame.set(message, 1)
  return frame
}

/** What a publish is answered with, over a socket and over HTTP. */
export function toPublished({ offset, id, duplicate = false, scheduled = false }: Words): Published {
  return { offset, id, duplicate, scheduled } as Published
}
