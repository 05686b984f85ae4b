// What a durable's events come to: handed over once, acknowledged or to come again, as the handler or the program says.
//
// A lease is what was handed to the program and the broker may deliver again:
// - Being handled, or its ack on the way: a redelivery is passed over.
// - Acknowledged a moment ago: it was on its way already; it is acknowledged again.
// - Handed over on an earlier connection: the new session brings it once more, which is passed over. What comes again
//   after that was waited for too long, and is handed over again.
//
// An errand is an ack or nack that the broker has not answered, in the order in which they were made:
// - What is said while an answer is awaited is gathered: many acks become one request, of 4,096 events at most.
// - After a lost connection they are said again; that changes nothing where they had arrived.

import type { TidingsError } from '../errors.js'
import type { Acknowledged, SubscribeOptions } from '../types.js'
import type { Words } from '../wire.js'
import type { Feed } from './link.js'
import { errorOf, isFinal } from './verdict.js'
import { alarm, unless } from './wait.js'

/** How long a redelivery may be on its way behind the answer to its ack. */
const LATE_MS = 10_000
/** How many acknowledged events are remembered at most, and how many go in one request. */
const OFFSETS_MAX = 4_096
/** How long to wait after an answer that says to try again and not when. */
const RETRY_MS = 500

/** `carried`: handed over on an earlier connection. */
type Lease = 'handling' | 'handed' | 'carried' | 'acking'

interface Errand {
  _kind: 'ack' | 'nack'
  /** `offset`, or `offsets`; and of a nack the rest. Without a log it is as on a connection to that log. */
  _words: Words
  /** Those who wait are told that the broker has answered, or why not. */
  _settled: ((error?: TidingsError) => void)[]
}

export interface Acks {
  /** Whether this delivery is to be handed over. */
  _offer(offset: number): boolean
  /** The handler is done with it, or has failed. It may have said itself what is to become of it. */
  _handled(offset: number, kind: 'ack' | 'nack'): void
  /** Tells the broker; resolved when it has answered. */
  _say(kind: 'ack' | 'nack', words: Words, signal?: AbortSignal): Promise<void>
  /** There is a feed to say it over, or there is none. */
  _attach(feed: Feed | undefined): void
  /** The feed is gone: what was not handed over, and what is open, is brought again by the next. */
  _lost(waiting: readonly number[]): void
  /** The log is another one: its offsets are those of other events. */
  _forget(): void
  /** Resolved when all that was said is answered, or cannot be. */
  _flush(): Promise<void>
  /** Nothing is said any more: everybody who waits is told why. */
  _close(why: TidingsError): void
}

/**
 * `acked` has the floor that an ack has led to; `failed` what became of one that no caller waits for; `logOf` says which
 * log the offsets are of.
 */
export function createAcks(
  { durable, mode, ack }: SubscribeOptions & { mode?: string; ack?: string },
  acked: (cursor: number) => void,
  failed: (error: TidingsError) => void,
  logOf: () => string | undefined,
): Acks {
  // A mirror leases nothing.
  const leased = !!durable && mode !== 'mirror'
  const leases = new Map<number, Lease>()
  /** When the newest were acknowledged. */
  const done = new Map<number, number>()
  const queue: Errand[] = []
  let feed: Feed | undefined
  let busy = false
  let drained: (() => void) | undefined

  /** Forgets what was acknowledged long ago. */
  const forgetLate = (): void => {
    for (const [offset, atMs] of done) {
      if (Date.now() - atMs < LATE_MS && done.size <= OFFSETS_MAX) return
      done.delete(offset)
    }
  }

  const next = async (): Promise<void> => {
    const by = feed
    const [errand] = queue
    if (!by || !errand || busy || retry._on()) return
    busy = true
    let cursor: number | undefined
    let error: TidingsError | undefined
    try {
      cursor = await by._say(errand._kind, errand._words)
    } catch (cause) {
      error = errorOf(cause)
    }
    if (feed !== by) return
    busy = false
    if (error && !isFinal(error) && !drained) return retry._set(error.retryAfterMs ?? RETRY_MS)
    if (cursor !== undefined) acked(cursor)
    if (queue[0] === errand) queue.shift()
    for (const settle of errand._settled) settle(error)
    if (!queue[0]) drained?.()
    void next()
  }
  const retry = alarm(next)

  const add = (kind: 'ack' | 'nack', words: Words): Promise<void> =>
    new Promise((resolve, reject) => {
      const settle = (error?: TidingsError): void => (error ? reject(error) : resolve())
      const last = queue.at(-1)
      const offsets = last?._words.offsets as number[] | undefined
      const more = words.offsets as number[] | undefined
      if (
        // The first is on its way.
        !(busy && queue.length === 1) &&
        kind === 'ack' &&
        last?._kind === kind &&
        last._words.log === words.log &&
        offsets &&
        more &&
        offsets.length + more.length <= OFFSETS_MAX
      ) {
        offsets.push(...more)
        last._settled.push(settle)
      } else queue.push({ _kind: kind, _words: words, _settled: [settle] })
      // In a microtask: what is acknowledged in one go becomes one request.
      queueMicrotask(next)
    })

  const acks: Acks = {
    _offer(offset) {
      if (!leased) return true
      forgetLate()
      const lease = leases.get(offset)
      const hand = lease ? lease === 'handed' : !done.has(offset)
      if (hand) leases.set(offset, 'handling')
      else if (lease === 'carried') leases.set(offset, 'handed')
      else if (!lease) unasked('ack', offset)
      return hand
    },
    _handled(offset, kind) {
      if (leased && leases.get(offset) !== 'handling') return
      if (ack === 'manual') {
        // Of a mirror nothing would ever take it out again.
        if (leased) leases.set(offset, 'handed')
      }
      // A mirror delivers nothing again: there is nothing to be told of a failure.
      else if (kind === 'ack' || leased) unasked(kind, offset)
    },
    _say(kind, words, signal) {
      const log = logOf()
      const { offset = 0, offsets } = words as { offset?: number; offsets?: number[] }
      const these = leased ? (offsets ?? [...leases.keys()].filter((each) => each <= offset)) : []
      const release = (): void => {
        for (const each of these) leases.delete(each)
      }
      if (kind === 'nack') release()
      else for (const each of these) leases.set(each, 'acking')
      const said = add(kind, log ? { ...words, log } : words).then(
        () => {
          if (kind === 'nack') return
          release()
          for (const each of these) done.set(each, Date.now())
        },
        (error) => {
          // It is as if nothing had been said: the broker brings them again.
          release()
          throw error
        },
      )
      return unless(signal, said)
    },
    _attach(to) {
      // What was said over it is on its way still.
      if (!to || to !== feed) {
        feed = to
        busy = false
        retry._clear()
      }
      void next()
    },
    _lost(waiting) {
      for (const offset of waiting) leases.delete(offset)
      for (const [offset, lease] of leases) if (lease === 'handed') leases.set(offset, 'carried')
    },
    _forget() {
      leases.clear()
      done.clear()
    },
    _flush: () =>
      new Promise((resolve) => {
        drained = resolve
        if (queue.length === 0) resolve()
      }),
    _close(why) {
      acks._attach(undefined)
      for (const { _settled: settled } of queue.splice(0)) for (const settle of settled) settle(why)
    },
  }

  const unasked = (kind: 'ack' | 'nack', offset: number): void => {
    acks._say(kind, { offsets: [offset] }).catch(failed)
  }
  return acks
}

export function offsetsOf(events: Acknowledged | readonly Acknowledged[]): number[] {
  return [events].flat().map((event) => (typeof event === 'number' ? event : (event as { offset: number }).offset))
}
