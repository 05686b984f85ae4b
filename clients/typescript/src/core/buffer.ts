// What a subscription has received and nobody has taken yet, in the order of the stream.

import type { TidingsEvent } from '../types.js'
import { weight } from './weight.js'

/** An event, or what is to be done in its place between events. */
export interface Item {
  readonly _event?: TidingsEvent
  _act?(): void
  /** It does not come again with the events that do. */
  readonly _once?: boolean
}

export interface Buffer {
  _empty(): boolean
  /** How many more events there is room for; none where those that are here have too many bytes. */
  _room(): number
  _push(item: Item): void
  _take(): Item | undefined
  /** Takes out what will come again. The offsets of the events. */
  _forget(): number[]
  _clear(): void
}

/** What an event takes beside its data, about. */
const ENVELOPE_BYTES = 512

export function createBuffer(eventsMax: number, bytesMax: number): Buffer {
  /** What came last, and what came before it with the next one last: taking from the front would move all others. */
  let newer: [item: Item, bytes: number][] = []
  let older: [item: Item, bytes: number][] = []
  let bytes = 0
  let events = 0
  const clear = (): void => {
    newer = []
    older = []
    bytes = events = 0
  }
  return {
    _empty: () => newer.length + older.length === 0,
    _room: () => (bytes < bytesMax ? Math.max(0, eventsMax - events) : 0),
    _push(item) {
      const size = item._event ? ENVELOPE_BYTES + weight(item._event.data) : 0
      if (size) events++
      bytes += size
      newer.push([item, size])
    },
    _take() {
      if (older.length === 0) {
        older = newer.reverse()
        newer = []
      }
      const [item, size = 0] = older.pop() ?? []
      if (size) events--
      bytes -= size
      return item
    },
    _forget() {
      const left = [...older.reverse(), ...newer]
      clear()
      newer = left.filter(([{ _once: once }]) => once)
      return left.flatMap(([{ _event: event }]) => event?.offset ?? [])
    },
    _clear: clear,
  }
}
