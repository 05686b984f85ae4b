// One subscription: what it wants of the connection, what has come, and who takes it.
//
// - The feed is open while there is a connection, room in the buffer, and nobody has paused: closing it and opening it
//   again after the cursor is all there is to pausing, backpressure and a change of transport.
// - Items are handed over one after the other, in the order of the stream, by the handler's loop or by an iterator.

import { failure, type TidingsError } from '../errors.js'
import type {
  Acknowledged,
  EventHandler,
  Gap,
  SubscribeOptions,
  Subscription,
  SubscriptionEvents,
  SubscriptionState,
  TidingsEvent,
} from '../types.js'
import type { Words } from '../wire.js'
import { createAcks, offsetsOf } from './acks.js'
import { createBuffer } from './buffer.js'
import type { Core } from './core.js'
import { createEmitter } from './emitter.js'
import type { Feed, Link, Sink } from './link.js'
import { createTrack } from './track.js'
import { ended } from './verdict.js'
import { abortable, alarm, isPromise, onAbort } from './wait.js'
import { subscribeWords, toEvent, wordsOf } from './words.js'

/** How long to wait before a subscribe is tried again that the broker refused for now without saying how long. */
const RETRY_MS = 1_000

/** What a program sees, written to from here alone. */
type Shown = { -readonly [K in keyof Subscription]: Subscription[K] }

/** What the client does with a subscription. */
export interface LiveSubscription {
  readonly _shown: Subscription
  /** There is a connection, or none. Where there was another, its feed is closed first. */
  _attach(link: Link | undefined): void
  /** The client was told to end. */
  _close(): void
}

/** `isOwn` tells what this client published by its id; `closed` is told when it has ended. */
export function createSubscription(
  filters: readonly string[],
  options: SubscribeOptions,
  handler: EventHandler | undefined,
  { _settings: settings, _emit: emit, _failed: failed, _saver: saver }: Core,
  isOwn: (id: string) => boolean,
  closed: (subscription: LiveSubscription) => void,
): LiveSubscription {
  const { durable, mode, key: name } = options as SubscribeOptions & { key?: string; mode?: string }
  const key = durable ? undefined : name
  // A mirror leases nothing.
  const leased = !!durable && mode !== 'mirror'
  const words = subscribeWords(filters, options)
  const emitter = createEmitter<SubscriptionEvents>(failed)
  const track = createTrack(words, options, (offset) => emitter._emit('again', offset))
  const buffer = createBuffer(options.bufferEvents ?? 1_000, options.bufferBytes ?? 1 << 20)
  /** To which log an event of a durable belongs: in another one its offset is that of another event. */
  const logs = new WeakMap<object, number>()
  let logNumber = 0
  let link: Link | undefined
  let feed: Feed | undefined
  let live = false
  /** The place is known: at once, or when the store has answered. */
  let placed = !key
  let paused = false
  /** Another session has it: it is not asked for again. */
  let taken = false
  let handling = false
  const wakers: (() => void)[] = []
  let subscribedOnce = false

  // ---- How it works.

  const sync = (): void => {
    const full = !buffer._room()
    const held = paused || taken || retry._on() || (full && !leased)
    const isClosed = shown.state === 'closed'
    if (!link || !placed || held || isClosed) {
      if (feed) drop(true)
    } else feed ??= link._subscribe(sink)
    if (isClosed) return
    const here = live || (full && link)
    become(paused ? 'paused' : !here ? 'subscribing' : shown.caughtUp ? 'live' : 'catching-up')
  }
  const retry = alarm(sync)

  /** Closes the feed; what a lease that ends with it brings again is taken out of the buffer. */
  const drop = (tell: boolean): void => {
    const before = feed
    feed = undefined
    live = false
    acks._attach(undefined)
    if (!before) return
    if (tell) void before._close()
    if (leased) acks._lost(before._leases ? [] : buffer._forget())
  }

  const become = (state: SubscriptionState): void => {
    if (state === shown.state) return
    shown.state = state
    emitter._emit('state', state)
  }

  const tell = (error: TidingsError): void => {
    failed(error)
    emitter._emit('error', error)
  }

  const wake = (): void => {
    for (const waker of wakers.splice(0)) waker()
    if (handler && !handling) void handle(handler)
  }

  const handle = async (take: EventHandler): Promise<void> => {
    handling = true
    while (!paused) {
      const event = next()
      if (!event) break
      try {
        const result = take(event, shown)
        if (isPromise(result)) await result
        settle(event)
      } catch (cause) {
        const error = failure('internal', 'a handler threw', cause)
        tell(error)
        settle(event, 'nack')
      }
    }
    handling = false
  }

  /** The next event; what stands before it is told. */
  const next = (): TidingsEvent | undefined => {
    for (;;) {
      const item = buffer._take()
      if (!item) return undefined
      if (buffer._empty() && !feed) sync()
      const { _event: event } = item
      if (event) {
        emit('event', event, shown)
        return event
      }
      item._act?.()
    }
  }

  /** The event is done, or to come again. */
  const settle = (event: TidingsEvent, kind: 'ack' | 'nack' = 'ack'): void => {
    if (!durable) move(Math.max(shown.cursor, event.offset))
    else if (shown.state !== 'closed' && logs.get(event) === logNumber) acks._handled(event.offset, kind)
  }

  const say = async (
    kind: 'ack' | 'nack',
    events: Acknowledged | readonly Acknowledged[],
    more: Words,
    signal?: AbortSignal,
  ): Promise<void> => {
    if (shown.state === 'closed') throw shown.error ?? ended()
    if (!durable) throw failure('invalid_argument', 'it is no durable')
    // What was not made here is believed.
    if ([events].flat().some((event) => (logs.get(Object(event)) ?? logNumber) !== logNumber))
      throw failure('offset_gone', 'its log is gone')
    return acks._say(kind, more, signal)
  }

  const move = (cursor: number, log = shown.log): void => {
    shown.cursor = cursor
    shown.log = log
    if (key && log !== undefined) saver._set(key, { log, cursor })
  }

  /** In its place: what stands before it is not done. */
  const later = (act: () => void, once = false): void => buffer._push({ _act: act, _once: once })
  const reach = (cursor: number): void => later(() => move(cursor))

  const forget = (): void => {
    logNumber++
    acks._forget()
  }

  /** It ends: what is here can still be pulled, but for what could not be acknowledged any more. */
  const release = (): void => {
    if (handler || leased) buffer._clear()
  }

  /** The broker wants no more of it. */
  const end = (error: TidingsError): void => {
    if (shown.state === 'closed') return
    release()
    drop(true)
    tell(error)
    close(error)
  }

  const close = (error?: TidingsError): void => {
    if (shown.state === 'closed') return
    shown.error = error
    retry._clear()
    unlisten()
    if (error || !live) acks._close(error ?? ended())
    become('closed')
    closed(self)
    wake()
    emitter._clear()
  }

  const finish = (): void => {
    buffer._clear()
    drop(false)
    close()
  }

  const acks = createAcks(options, move, (error) => shown.state === 'closed' || failed(error), track._log)

  // ---- What the connection calls.

  const sink: Sink = {
    _reader: undefined,
    _request: track._request,
    _answerLost: undefined,
    _room: buffer._room,
    _subscribed(cursor, log) {
      const before = track._log()
      const known = log ?? before ?? ''
      // The stream began anew on the same feed: what nobody has taken comes again.
      if (live && leased) acks._lost(buffer._forget())
      if (before !== undefined && before !== known) forget()
      track._subscribed(cursor, known)
      // From here on the place is known, also where no event ever comes.
      if (durable || shown.log === undefined) move(cursor, known)
      subscribedOnce = true
      live = true
      // Not by polls. A fetch that is still on its way has been left behind: what fetches next has another name.
      if (log) sink._reader = sink._answerLost = undefined
      acks._attach(feed)
      sync()
      emitter._emit('subscribed', cursor)
    },
    _batch(batch) {
      const events = track._batch(batch)
      if (!events) {
        drop(true)
        sync()
        return false
      }
      for (const each of events) {
        const offset = each.offset as number
        const own = isOwn(each.id as string)
        const event = toEvent(each, batch.attempts?.[offset] ?? 1, own)
        if (durable) {
          if (!acks._offer(offset)) continue
          logs.set(event, logNumber)
        }
        // In its place: what stands before it is not done.
        if (!own || settings.echo) buffer._push({ _event: event })
        else if (!durable) reach(offset)
        else settle(event)
      }
      if (!durable && batch.cursor !== undefined) reach(batch.cursor)
      sync()
      wake()
      return true
    },
    _told(kind, said) {
      const cursor = said.cursor as number
      if (kind === 'acked') {
        move(cursor)
        return emitter._emit('acked', cursor)
      }
      if (kind === 'caught_up') {
        later(() => {
          shown.caughtUp = true
          sync()
          emitter._emit(kind, cursor)
        })
      } else if (kind === 'gap') {
        const gap = said as unknown as Gap
        if (gap.reason === 'log_changed') forget()
        track._lost(gap)
        later(() => {
          if (!durable) move(Math.max(0, gap.first - 1), gap.log)
          emit(kind, gap, shown)
          emitter._emit(kind, gap)
        }, true)
      } else if (kind === 'superseded') {
        taken = true
        feed = undefined
        if (leased) buffer._forget()
        later(() => {
          emitter._emit(kind)
          close(failure(kind, 'another has it'))
        })
      }
      wake()
    },
    _reject(error) {
      drop(false)
      if (!error.retryable) return end(error)
      failed(error)
      retry._set(error.retryAfterMs ?? RETRY_MS)
      sync()
    },
  }

  // ---- What a program calls.

  const shown: Shown = {
    filters,
    durable,
    state: 'subscribing',
    cursor: 0,
    caughtUp: false,
    get saved() {
      const { log, cursor } = shown
      return log === undefined ? undefined : { log, cursor }
    },
    ready: ({ signal } = {}) =>
      abortable(signal, (resolve, reject) => {
        const look = (): void => {
          if (subscribedOnce) resolve()
          else if (shown.state === 'closed') reject(shown.error ?? ended())
        }
        look()
        return emitter._on('state', look)
      }),
    on: emitter._on,
    ack: (events, { signal } = {}) => say('ack', events, { offsets: offsetsOf(events) }, signal),
    ackUpTo: (event, { signal } = {}) => say('ack', event, { offset: offsetsOf(event)[0] }, signal),
    nack: (events, { delayMs, reason, signal } = {}) =>
      say('nack', events, wordsOf({ offsets: offsetsOf(events), delayMs, reason }), signal),
    pause() {
      paused = true
      drop(true)
      sync()
    },
    resume() {
      paused = false
      sync()
      wake()
    },
    async unsubscribe() {
      if (shown.state === 'closed') return
      const before = feed
      feed = undefined
      release()
      // What was acknowledged before arrives first, where there is a connection.
      const said = live ? acks._flush() : undefined
      close()
      await said
      acks._close(ended())
      await before?._close()
    },
    [Symbol.asyncIterator]() {
      const over = { value: undefined, done: true } as const
      let pulled: TidingsEvent | undefined
      return {
        async next() {
          // Whoever took it has come back for more.
          if (pulled) settle(pulled)
          for (;;) {
            if (handler) throw failure('invalid_argument', 'it has a handler')
            pulled = paused ? undefined : next()
            if (pulled) return { value: pulled, done: false }
            if (shown.state === 'closed') {
              if (shown.error) throw shown.error
              return over
            }
            await new Promise<void>((resolve) => wakers.push(resolve))
          }
        },
        // The event at which the loop was left is not done: whoever comes next gets it again.
        async return() {
          buffer._clear()
          await shown.unsubscribe()
          return over
        },
      }
    },
  } as Shown

  const self: LiveSubscription = {
    _shown: shown,
    _attach(to) {
      drop(!!to)
      link = to
      sync()
    },
    _close: finish,
  }
  // A signal that is aborted already closes it at once.
  let unlisten = (): void => {}
  unlisten = onAbort(options.signal, () => void shown.unsubscribe())
  if (key)
    void saver._get(key).then((saved) => {
      if (saved) {
        track._set(saved)
        shown.cursor = saved.cursor
        shown.log = saved.log
      }
      placed = true
      sync()
    })
  return self
}
