import type { TransportName } from '../types.js'

/** A connection that did not last so long counts as a failure of its transport. */
const GOOD_AFTER_MS = 5_000
/** So many failures in a row lead down. */
const FAILURES_MAX = 2

/**
 * Which transport is tried next. Two failures in a row lead one step down, if the broker can be reached at all: where
 * it cannot, the transport is not to blame. From the lowest step it goes on at the top.
 */
export class Ladder {
  readonly #order: readonly TransportName[]
  #step = 0
  #failures = 0

  constructor(order: readonly TransportName[]) {
    this.#order = order
  }

  /** The transport to try. */
  get current(): TransportName {
    return this.#order[this.#step] ?? 'websocket'
  }

  /** Those to try again while this one is in use, best first. */
  get better(): readonly TransportName[] {
    return this.#order.slice(0, this.#step)
  }

  /** A try failed, or a connection was lost after so long. True where it is to be found out whether to step down. */
  failed(lastedMs = 0): boolean {
    this.#failures = lastedMs < GOOD_AFTER_MS ? this.#failures + 1 : 0
    return this.#failures >= FAILURES_MAX && this.#order.length > 1
  }

  /** The broker answers, so it is the transport. */
  stepDown(): void {
    this.#failures = 0
    this.#step = (this.#step + 1) % this.#order.length
  }

  /** This one is in use now. */
  use(transport: TransportName): void {
    if (transport === this.current) return
    this.#failures = 0
    this.#step = Math.max(0, this.#order.indexOf(transport))
  }
}
