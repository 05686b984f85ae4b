// What lies between this window and the broker, as far as the connection panel decides about it.

import type { TransportName } from 'tidings'
import { createStore } from 'zustand/vanilla'

/** What a connection is: of these, the line may let some through and others not. */
export type Kind = 'websocket' | 'sse' | 'http'

export interface LineState {
  /** Nothing goes through, and what was open is gone. */
  readonly cut: boolean
  /** The best transport that is let through. */
  readonly best: TransportName
  /** How long everything takes, each way. */
  readonly delayMs: number
  /** How much goes through in a second, each way and on each connection. */
  readonly bytesPerSecond: number
}

const LET: Readonly<Record<TransportName, readonly Kind[]>> = {
  websocket: ['websocket', 'sse', 'http'],
  sse: ['sse', 'http'],
  poll: ['http'],
}

/** The line of this window. A setting of it holds at once, also for what is open. */
export class Line {
  readonly state = createStore<LineState>(() => ({
    cut: false,
    best: 'websocket',
    delayMs: 0,
    bytesPerSecond: Infinity,
  }))
  readonly #open = new Map<() => void, Kind>()

  constructor() {
    this.state.subscribe(() => {
      for (const [close, kind] of [...this.#open]) if (!this.lets(kind)) close()
    })
  }

  /** Whether such a connection is let through. */
  lets(kind: Kind): boolean {
    const { cut, best } = this.state.getState()
    return !cut && LET[best].includes(kind)
  }

  /** Closes this when it is not let through any more; the function that is returned says that it is closed. */
  hold(kind: Kind, close: () => void): () => void {
    this.#open.set(close, kind)
    return () => void this.#open.delete(close)
  }
}
