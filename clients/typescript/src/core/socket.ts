// A connection over WebSocket, from the upgrade to its end.
//
// - After a goodbye nothing more is published here: it waits for the next connection.

import { failure, type TidingsError, toError } from '../errors.js'
import type { Session } from '../types.js'
import type { WireMessage, Words } from '../wire.js'
import { createBeat } from './beat.js'
import { kindOf, LATER, unreadable } from './check.js'
import type { Core } from './core.js'
import { type Link, type LinkHooks, pingIntervalMs, publishedOf, type Sink } from './link.js'
import type { Batch } from './track.js'
import { closeError, errorOf, isRejected, lost, refusal } from './verdict.js'
import { alarm, late, onAbort } from './wait.js'
import { wordsOf } from './words.js'

/** A publish has no time of its own, but a broker that answers pings and no publishes is none. */
const PUBLISH_TIMEOUTS = 3

/** Takes the answer, or why there is none. */
type Asker = (answer: Words | undefined, error?: TidingsError) => void

/** Connects. */
export async function openSocket(url: string, core: Core, hooks: LinkHooks, signal: AbortSignal): Promise<Link> {
  const { _settings: settings, _tokens: tokens, _failed: failed } = core
  const { codec, requestTimeoutMs } = settings
  const compress = settings.compress?.available ? settings.compress : undefined
  const Socket = settings.WebSocket as typeof WebSocket
  /** Requests that have not been answered. An answer goes to who asked; each has its time. */
  const asked = new Map<number, Asker>()
  const sinks = new Map<number, Sink>()
  /** What the broker has said to the connect. */
  let session: Session | undefined
  let shown = await tokens._get()
  let lastId = 0
  let over = false
  let bytesMax = 1 << 20
  let goodbyeMs: number | undefined
  /** Fails the opening; says nothing any more when it has succeeded. */
  let refuse: (error: TidingsError) => void

  /** Asks; `at` has the answer before the next message is read. */
  const ask = (request: Words, timeoutMs = requestTimeoutMs, at?: (answer: Words) => void): Promise<Words> =>
    new Promise((resolve, reject) => {
      if (over) throw lost()
      // A number that no open request has: far fewer than 2^32 are open at a time.
      lastId = (lastId % 0xffff_ffff) + 1
      const id = lastId
      const message = codec.encode({ id, ...request })
      // A text is only counted where it may be too large: a character has three bytes at most.
      const bytes =
        typeof message === 'string' && message.length * 3 > bytesMax
          ? new TextEncoder().encode(message).length
          : message.length
      if (bytes > bytesMax) {
        throw failure('too_large', `${bytes} bytes, at most ${bytesMax}`)
      }
      socket.send(typeof message === 'string' ? message : framed(message))
      const timer = alarm(() => settle(undefined, late(timeoutMs)))
      timer._set(timeoutMs)
      const settle: Asker = (answer, error) => {
        asked.delete(id)
        timer._clear()
        if (!answer) return reject(error)
        at?.(answer)
        resolve(answer)
      }
      asked.set(id, settle)
    })

  const end = (why?: TidingsError): void => {
    if (over) return
    over = true
    if (why && isRejected(why)) tokens._reject(shown)
    beat._clear()
    socket.close(1000)
    for (const settle of asked.values()) settle(undefined, lost(undefined, why))
    refuse(why ?? lost())
    if (why) hooks._lost(why)
  }

  const take = (message: WireMessage): void => {
    const kind = kindOf(message)
    if (over || !kind) return
    const words = message[kind] as Words
    const { reply } = message
    if (reply !== undefined) {
      const settle = asked.get(reply)
      if (kind === 'error') settle?.(undefined, refusal(words))
      else settle?.(kind === 'scheduled' ? { scheduled: words } : words)
      return
    }
    const number = words.subscription as number
    const sink = sinks.get(number)
    if (kind === 'events') sink?._batch(words as unknown as Batch)
    else if (kind === 'goodbye') {
      goodbyeMs = Number(words.reconnect_after_ms)
      hooks._goodbye(`${words.code}`, goodbyeMs)
    } else if (kind === 'token_expiring') hooks._tokenExpiring()
    else if (kind === 'error') {
      const error = refusal(words)
      const ended = Number(/^subscription (\d+) ends:/.exec(error.message)?.[1])
      const of = sinks.get(ended)
      sinks.delete(ended)
      if (!session) end(error)
      else if (of) of._reject(error)
      else failed(error)
    } else {
      if (kind === 'superseded') sinks.delete(number)
      sink?._told(kind, words)
    }
  }

  const beat = createBeat(
    () => ask({ ping: {} }, settings.pingGraceMs),
    hooks,
    (error) => end(lost('no answer', error)),
  )

  const decode = (frame: string | Uint8Array): WireMessage => {
    if (typeof frame === 'string') return codec.decode(frame)
    // A binary frame begins with 0 where nothing is compressed.
    if (frame[0]) throw unreadable('a frame')
    return codec.decode(frame.subarray(1))
  }
  const broken = (cause: unknown): void => {
    const error = toError(cause, 'protocol', 'it cannot be read')
    // What only a later version says is passed over.
    if (error.cause !== LATER) end(error)
  }
  const inflate = compress?.reader(codec, () => bytesMax, decode, take, broken)
  const socket = new Socket(url, codec.subprotocol)
  socket.binaryType = 'arraybuffer'
  socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
    beat._heard()
    try {
      const frame = typeof data === 'string' ? data : new Uint8Array(data)
      if (!inflate?.(frame)) take(decode(frame))
    } catch (error) {
      broken(error)
    }
  }
  socket.onclose = ({ code, reason }) => end(closeError(code, reason, goodbyeMs))
  // The close that follows says as much as there is to know. In Node 22 none follows where the handshake failed.
  socket.onerror = () => void setTimeout(() => end(closeError(1006, '', goodbyeMs)))

  const link: Link = {
    _transport: 'websocket',
    get _session() {
      return session as Session
    },
    /** How many publishes may wait for their answers. */
    _window: 256,
    _subscribe(sink) {
      let number: number | undefined
      let closed = false
      // It has no time of its own: a state of many keys takes long, and pings find a connection that is dead.
      const answered = ask({ subscribe: { ...sink._request(), ...sink._answerLost } }, Infinity, (words) => {
        // At once, and not a microtask later: what follows in the stream may be for it.
        number = words.subscription as number
        if (closed) return
        sinks.set(number, sink)
        sink._subscribed(words.cursor as number, session?.log)
      }).catch((error) => closed || over || sink._reject(error))
      return {
        _say: async (kind, words) =>
          (await ask({ [kind]: { subscription: number, ...words } })).cursor as number | undefined,
        async _close() {
          closed = true
          if (number === undefined) await answered
          if (number === undefined) return
          sinks.delete(number)
          await ask({ unsubscribe: { subscription: number } }).catch(() => {})
        },
      }
    },
    async _publish({ batch, events }, follows) {
      if (goodbyeMs !== undefined) throw lost()
      const answer = await ask(
        batch ? { follows, publish_batch: { events } } : { follows, publish: events[0] },
        PUBLISH_TIMEOUTS * requestTimeoutMs,
      ).catch((error) => {
        if (error.code === 'timeout') end(error)
        throw error
      })
      return publishedOf(answer)
    },
    _refresh(token) {
      shown = token
      ask({ refresh: { token } }).catch((error) => over || failed(error))
    },
    _wake: beat._wake,
    _close: () => end(),
  }

  const opened = new Promise<Link>((resolve, reject) => {
    refuse = reject
    socket.onopen = () => {
      const connect = wordsOf({
        client: settings.name,
        token: shown,
        compress: compress && [compress.name],
      })
      beat._timed(ask({ connect })).then((words) => {
        // Who was told how long it took may have hung up.
        if (over) return
        session = { id: words.session, subject: words.subject, log: words.log } as Session
        bytesMax = Number(words.max_message_bytes) || bytesMax
        beat._set(pingIntervalMs(words))
        resolve(link)
      }, end)
    }
  })
  return opened.finally(onAbort(signal, () => end(errorOf(signal.reason))))
}

/** A binary frame begins with 0 where nothing is compressed. */
function framed(message: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(message.length + 1)
  frame.set(message, 1)
  return frame
}
