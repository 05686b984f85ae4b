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

export interface Track {
  /** The log that the cursor belongs to. */
  _log(): string | undefined
  /** The subscribe to go on with. */
  _request(): Words
  /** Goes on from where somebody was. */
  _set(saved: SavedCursor): void
  /** The broker has subscribed us; with a gap its cursor may be another than we asked for. */
  _subscribed(cursor: number, log: string): void
  /** The events of a batch that are new, or `undefined` when it does not follow on what came before. */
  _batch(batch: Batch): Words[] | undefined
  /** Events are gone: delivery goes on from the first there is. */
  _lost(gap: Gap): void
}

/** `again` is told of events that are dropped. */
export function createTrack(
  words: Words,
  { durable, mode }: SubscribeOptions & { mode?: string },
  again: (offset: number) => void,
): Track {
  /** Everything up to here was received. */
  let at: SavedCursor | undefined
  /** After a gap the next batch says where we are. */
  let adrift = false
  /** A batch has come: until then a state (`last_per_key`) is asked for anew, after that the cursor says it all. */
  let begun = false
  /** The highest offset that was handed out; of a mirror it outlives a new session, which begins at the floor. */
  let highest = 0

  return {
    _log: () => at?.log,
    _request() {
      if (durable || !at || (words.last_per_key && !begun)) return words
      const { since, last_per_key, ...rest } = words
      return { ...rest, after: at.cursor, log: at.log }
    },
    _set(saved) {
      at = saved
      begun = true
    },
    _subscribed(cursor, log) {
      if (at && at.log !== log && durable) highest = 0
      at = { cursor, log }
      adrift = false
    },
    _batch({ events, after, cursor }) {
      const before = at?.cursor ?? 0
      if (after !== undefined && !adrift && after !== before) return undefined
      let covered = 0
      if (durable) covered = mode === 'mirror' ? highest : 0
      else if (!words.last_per_key) covered = adrift ? (after ?? before) : before
      if (cursor !== undefined && at) at = { ...at, cursor }
      adrift = false
      begun = true
      return (events as { offset: number }[]).filter(({ offset }) => {
        highest = Math.max(highest, offset)
        return offset > covered || again(offset)
      })
    },
    _lost({ first, log, reason }) {
      const cursor = Math.max(0, first - 1)
      const stays = at && reason !== 'log_changed'
      at = { cursor: stays && at ? Math.max(at.cursor, cursor) : cursor, log }
      if (!stays) highest = 0
      adrift = true
    },
  }
}
