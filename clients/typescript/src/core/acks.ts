// What a durable's events come to: handed over once, acknowledged or to come again, as the handler or the program says.

import { TidingsError } from '../errors.js'
import type { Acknowledged, SubscribeOptions } from '../types.js'
import type { Words } from '../wire.js'
import { Errands } from './errands.js'
import { Leases } from './leases.js'
import type { Feed } from './link.js'
import { abortable } from './wait.js'

export class Acks {
  readonly #errands: Errands
  readonly #leases = new Leases()
  readonly #leased: boolean
  readonly #manual: boolean
  readonly #failed: (error: TidingsError) => void

  /** `acked` has the floor that an ack has led to; `failed` what became of one that no caller waits for. */
  constructor(options: SubscribeOptions, acked: (cursor: number) => void, failed: (error: TidingsError) => void) {
    const { durable } = options
    this.#errands = new Errands(acked)
    // A mirror leases nothing.
    this.#leased = durable !== undefined && options.mode !== 'mirror'
    this.#manual = durable !== undefined && options.ack === 'manual'
    this.#failed = failed
  }

  /** Whether this delivery is to be handed over. */
  offer(offset: number, log: string | undefined): boolean {
    if (!this.#leased) return true
    const what = this.#leases.offer(offset, Date.now())
    if (what === 'hand') this.#leases.set(offset, 'handling', Date.now())
    if (what === 'ack') this.#unasked('ack', offset, log)
    return what === 'hand'
  }

  /** The handler is done with it, or has failed. It may have said itself what is to become of it. */
  handled(offset: number, kind: 'ack' | 'nack', log: string | undefined): void {
    if (this.#leased && !this.#leases.handling(offset)) return
    if (this.#manual) {
      // Of a mirror nothing would ever take it out again.
      if (this.#leased) this.#leases.set(offset, 'handed', Date.now())
    }
    // A mirror delivers nothing again: there is nothing to be told of a failure.
    else if (kind === 'ack' || this.#leased) this.#unasked(kind, offset, log)
  }

  /** Tells the broker; resolved when it has answered. */
  say(kind: 'ack' | 'nack', words: Words, log: string | undefined, signal?: AbortSignal): Promise<void> {
    const offsets = (words.offsets as number[] | undefined) ?? []
    const mark = (state: 'acking' | 'acked' | undefined): void => {
      if (!this.#leased) return
      for (const offset of offsets) {
        if (state) this.#leases.set(offset, state, Date.now())
        else this.#leases.drop(offset)
      }
      if (state && typeof words.offset === 'number') this.#leases.upTo(words.offset, state, Date.now())
    }
    const isAck = kind === 'ack'
    mark(isAck ? 'acking' : undefined)
    const said = this.#errands.add(kind, log ? { ...words, log } : words).then(
      () => {
        if (isAck) mark('acked')
      },
      (error) => {
        // It is as if nothing had been said: the broker brings them again.
        mark(undefined)
        throw error
      },
    )
    return abortable(signal, (resolve, reject) => void said.then(resolve, reject) as undefined)
  }

  /** There is a feed to say it over, or there is none. */
  attach(feed: Feed | undefined): void {
    this.#errands.attach(feed)
  }

  /** The feed is gone: what was not handed over, and what is open, is brought again by the next. */
  lost(waiting: readonly number[]): void {
    for (const offset of waiting) this.#leases.drop(offset)
    this.#leases.carry()
  }

  /** The log is another one: its offsets are those of other events. */
  forget(): void {
    this.#leases.clear()
  }

  /** Resolved when all that was said is answered, or cannot be. */
  drain(): Promise<void> {
    return this.#errands.drain()
  }

  /** Nothing is said any more. */
  end(why: TidingsError): void {
    this.#errands.end(why)
  }

  #unasked(kind: 'ack' | 'nack', offset: number, log: string | undefined): void {
    this.say(kind, { offsets: [offset] }, log).catch(this.#failed)
  }
}

export function offsetsOf(events: Acknowledged | readonly Acknowledged[]): number[] {
  const list: readonly Acknowledged[] = Array.isArray(events) ? events : [events as Acknowledged]
  return list.map((event) => (typeof event === 'number' ? event : event.offset))
}

export function ended(): TidingsError {
  return new TidingsError('closed', 'the subscription has ended')
}
