// Acks and nacks of one subscription that the broker has not answered, in the order in which they were made.
//
// - What is said while an answer is awaited is gathered: many acks become one request, of 4,096 events at most.
// - After a lost connection they are said again; that changes nothing where they had arrived.

import type { TidingsError } from '../errors.js'
import type { Words } from '../wire.js'
import type { Feed } from './link.js'
import { verdictOf } from './verdict.js'

const OFFSETS_MAX = 4_096
/** How long to wait after an answer that says to try again and not when. */
const RETRY_MS = 500

interface Errand {
  kind: 'ack' | 'nack'
  /** `offset`, or `offsets`; and of a nack the rest. Without a log it is as on a connection to that log. */
  words: Words
  settled: { resolve(): void; reject(error: TidingsError): void }[]
}

export class Errands {
  #queue: Errand[] = []
  #feed: Feed | undefined
  #busy = false
  #timer: ReturnType<typeof setTimeout> | undefined
  #drained: (() => void) | undefined
  readonly #acked: (cursor: number) => void

  constructor(acked: (cursor: number) => void) {
    this.#acked = acked
  }

  /** Whether nothing waits for an answer. */
  get idle(): boolean {
    return this.#queue.length === 0
  }

  add(kind: 'ack' | 'nack', words: Words): Promise<void> {
    return new Promise((resolve, reject) => {
      const settled = { resolve, reject }
      const last = this.#queue.at(-1)
      const offsets = last?.words.offsets
      const more = words.offsets
      // The first is on its way.
      const open = last !== undefined && !(this.#busy && this.#queue.length === 1)
      const alike = kind === 'ack' && last?.kind === 'ack' && last.words.log === words.log
      if (
        open &&
        alike &&
        Array.isArray(offsets) &&
        Array.isArray(more) &&
        offsets.length + more.length <= OFFSETS_MAX
      ) {
        offsets.push(...more)
        last.settled.push(settled)
      } else this.#queue.push({ kind, words: { ...words }, settled: [settled] })
      // In a microtask: what is acknowledged in one go becomes one request.
      queueMicrotask(() => this.#next())
    })
  }

  /** There is a feed to say them over, or there is none. */
  attach(feed: Feed | undefined): void {
    // What was said over it is on its way still.
    if (feed && feed === this.#feed) return this.#next()
    this.#feed = feed
    this.#busy = false
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#next()
  }

  /** Resolved when all that was said has been answered, or cannot be. */
  drain(): Promise<void> {
    return new Promise((resolve) => {
      this.#drained = resolve
      if (this.idle) resolve()
    })
  }

  /** Nothing is said any more: everybody who waits is told why. */
  end(why: TidingsError): void {
    this.attach(undefined)
    for (const errand of this.#queue.splice(0)) for (const { reject } of errand.settled) reject(why)
  }

  #next(): void {
    const feed = this.#feed
    const errand = this.#queue[0]
    if (!feed || !errand || this.#busy || this.#timer !== undefined) return
    this.#busy = true
    feed.say(errand.kind, errand.words).then(
      (cursor) => {
        if (this.#feed !== feed) return
        this.#busy = false
        if (this.#queue[0] === errand) this.#queue.shift()
        if (cursor !== undefined) this.#acked(cursor)
        for (const { resolve } of errand.settled) resolve()
        if (this.idle) this.#drained?.()
        this.#next()
      },
      (cause) => {
        if (this.#feed !== feed) return
        const { error, stop, afterMs } = verdictOf(cause)
        this.#busy = false
        if (stop || this.#drained) {
          if (this.#queue[0] === errand) this.#queue.shift()
          for (const { reject } of errand.settled) reject(error)
          if (this.idle) this.#drained?.()
          this.#next()
        } else {
          this.#timer = setTimeout(() => {
            this.#timer = undefined
            this.#next()
          }, afterMs ?? RETRY_MS)
        }
      },
    )
  }
}
