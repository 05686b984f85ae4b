// How far a subscription has come, and what to ask for to go on from there. No I/O, no clock.
//
// - An ephemeral subscription goes on after the last cursor seen, in the log it belongs to; a durable one by its name.
// - Batches are chained: one whose `after` is not our cursor means that something was missed.
// - Of an ephemeral one, and of a mirror, no event is handed out twice: what is at or below the cursor is dropped.

import type { Gap, SavedCursor, SubscribeOptions } from '../types.js'
import type { Words } from '../wire.js'

/** A batch of events as they came. */
export interface Batch {
  readonly events: readonly Words[]
  /** The cursor before it, where the transport says so. */
  readonly after?: number | undefined
  /** The cursor behind it; absent with `order: 'priority'`. */
  readonly cursor?: number | undefined
  /** How often events were delivered, from the second time on, by offset. */
  readonly attempts?: Readonly<Record<string, number>> | undefined
}

export class Track {
  readonly #words: Words
  /** The broker keeps its place. */
  readonly durable: boolean
  /** Of a durable: what is delivered is leased, and bounded by the broker. A mirror leases nothing. */
  readonly leased: boolean
  #place: SavedCursor | undefined
  /** After a gap the next batch says where we are. */
  #adrift = false
  /** A batch has come: until then a state (`last_per_key`) is asked for anew, after that the cursor says it all. */
  #begun = false
  /** The highest offset that was handed out; of a mirror it outlives a new session, which begins at the floor. */
  #highest = 0

  constructor(words: Words, options: SubscribeOptions, saved?: SavedCursor) {
    this.#words = words
    this.durable = options.durable !== undefined
    this.leased = options.durable !== undefined && options.mode !== 'mirror'
    this.#place = saved
    this.#begun = saved !== undefined
  }

  /** Everything up to here was received. */
  get place(): SavedCursor | undefined {
    return this.#place
  }

  /** The subscribe to go on with. */
  request(): Words {
    const place = this.#place
    if (this.durable || place === undefined || (this.#words.last_per_key && !this.#begun)) return this.#words
    const { since, last_per_key, ...words } = this.#words
    return { ...words, after: place.cursor, log: place.log }
  }

  /** The broker has subscribed us; with a gap its cursor may be another than we asked for. */
  subscribed(cursor: number, log: string): void {
    if (this.#place?.log !== undefined && this.#place.log !== log && this.durable) this.#highest = 0
    this.#place = { cursor, log }
    this.#adrift = false
  }

  /** The events of a batch that are new, or `undefined` when it does not follow on what came before. */
  batch(batch: Batch): Words[] | undefined {
    const before = this.#place?.cursor ?? 0
    if (batch.after !== undefined && !this.#adrift && batch.after !== before) return undefined
    let covered = 0
    if (!this.durable && !this.#words.last_per_key) covered = this.#adrift ? (batch.after ?? before) : before
    else if (this.durable && !this.leased) covered = this.#highest
    if (batch.cursor !== undefined && this.#place) this.#place = { ...this.#place, cursor: batch.cursor }
    this.#adrift = false
    this.#begun = true
    const fresh = batch.events.filter((event) => (event.offset as number) > covered)
    for (const event of fresh) this.#highest = Math.max(this.#highest, event.offset as number)
    return fresh
  }

  /** Events are gone: delivery goes on from the first there is. */
  gap(gap: Gap): void {
    const first = Math.max(0, gap.first - 1)
    const stays = this.#place !== undefined && gap.reason !== 'log_changed'
    this.#place = { cursor: stays ? Math.max(this.#place?.cursor ?? 0, first) : first, log: gap.log }
    if (!stays) this.#highest = 0
    this.#adrift = true
  }
}
