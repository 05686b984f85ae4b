// What a subscription has received and nobody has taken yet, in the order of the stream.

import type { Gap, TidingsEvent } from '../types.js'

/** An event, or something that is told in its place between events. */
export type Item =
  | { readonly event: TidingsEvent; readonly bytes: number }
  | { readonly mark: number }
  | { readonly caughtUp: number }
  | { readonly gap: Gap }
  | { readonly superseded: true }

/** What an event takes beside its data, about. */
const ENVELOPE_BYTES = 512

/** About how much room an event takes. Walks the data: writing it as JSON would take longer than reading it did. */
export function eventBytes(event: TidingsEvent): number {
  return ENVELOPE_BYTES + weight(event.data)
}

function weight(value: unknown): number {
  if (typeof value === 'string') return value.length
  if (value instanceof Uint8Array) return value.length
  if (typeof value !== 'object' || value === null) return 8
  let sum = 16
  for (const [name, inner] of Object.entries(value)) sum += name.length + weight(inner)
  return sum
}

export class Buffer {
  #items: Item[] = []
  #at = 0
  #bytes = 0
  #events = 0
  readonly #eventsMax: number
  readonly #bytesMax: number

  constructor(eventsMax: number, bytesMax: number) {
    this.#eventsMax = eventsMax
    this.#bytesMax = bytesMax
  }

  get full(): boolean {
    return this.#events >= this.#eventsMax || this.#bytes >= this.#bytesMax
  }

  get empty(): boolean {
    return this.#at === this.#items.length
  }

  /** How many more events there is room for. */
  get room(): number {
    return Math.max(0, this.#eventsMax - this.#events)
  }

  push(item: Item): void {
    if ('event' in item) {
      this.#events++
      this.#bytes += item.bytes
    }
    this.#items.push(item)
  }

  take(): Item | undefined {
    const item = this.#items[this.#at]
    if (item === undefined) return undefined
    // Taken items are cut off in steps: one by one it would move all others each time.
    if (++this.#at === this.#items.length || this.#at > 512) {
      this.#items = this.#items.slice(this.#at)
      this.#at = 0
    }
    if ('event' in item) {
      this.#events--
      this.#bytes -= item.bytes
    }
    return item
  }

  /** Takes out events and what was said between them, but for gaps: they will come again. Their offsets. */
  forgetEvents(): number[] {
    const left = this.#items.slice(this.#at)
    this.#items = left.filter((item) => 'gap' in item)
    this.#at = this.#bytes = this.#events = 0
    return left.flatMap((item) => ('event' in item ? [item.event.offset] : []))
  }

  clear(): void {
    this.#items = []
    this.#at = this.#bytes = this.#events = 0
  }
}
