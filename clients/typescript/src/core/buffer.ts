// What a subscription has received and nobody has taken yet, in the order of the stream.

import type { Gap, TidingsEvent } from '../types.js'

/** An event, or something that is told in its place between events. */
export interface Item {
  readonly event?: TidingsEvent
  readonly mark?: number
  readonly caughtUp?: number
  readonly gap?: Gap
  /** How much room it takes; set by the buffer. */
  bytes?: number
}

export interface Buffer {
  full(): boolean
  empty(): boolean
  /** How many more events there is room for. */
  room(): number
  push(item: Item): void
  take(): Item | undefined
  /** Takes out events and what was said between them, but for gaps: they will come again. Their offsets. */
  forgetEvents(): number[]
  clear(): void
}

/** What an event takes beside its data, about. */
const ENVELOPE_BYTES = 512

/** About how much room data takes. Walks it: writing it as JSON would take longer than reading it did. */
function weight(value: unknown): number {
  if (typeof value === 'string' || value instanceof Uint8Array) return value.length
  if (typeof value !== 'object' || value === null) return 8
  let sum = 16
  for (const [name, inner] of Object.entries(value)) sum += name.length + weight(inner)
  return sum
}

export function createBuffer(eventsMax: number, bytesMax: number): Buffer {
  let items: Item[] = []
  let at = 0
  let bytes = 0
  let events = 0
  const empty = (): boolean => at === items.length
  const clear = (): void => {
    items = []
    at = bytes = events = 0
  }
  return {
    full: () => events >= eventsMax || bytes >= bytesMax,
    empty,
    room: () => Math.max(0, eventsMax - events),
    push(item) {
      if (item.event) {
        item.bytes = ENVELOPE_BYTES + weight(item.event.data)
        bytes += item.bytes
        events++
      }
      items.push(item)
    },
    take() {
      const item = items[at]
      if (!item) return undefined
      // Taken items are cut off in steps: one by one it would move all others each time.
      if (++at > 512 || empty()) {
        items = items.slice(at)
        at = 0
      }
      if (item.event) events--
      bytes -= item.bytes ?? 0
      return item
    },
    forgetEvents() {
      const left = items.slice(at)
      clear()
      items = left.filter(({ gap }) => gap)
      return left.flatMap(({ event }) => event?.offset ?? [])
    },
    clear,
  }
}
