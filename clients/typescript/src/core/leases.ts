// What a durable has handed to the program and the broker may deliver again: so that the handler sees it once.
//
// - Being handled, or its ack on the way: a redelivery is passed over.
// - Acknowledged a moment ago: it was on its way already; it is acknowledged again.
// - Handed over on an earlier connection: the new session brings it once more, which is passed over. What comes again
//   after that was waited for too long, and is handed over again.

/** How long a redelivery may be on its way behind the answer to its ack. */
const LATE_MS = 10_000
/** How many acknowledged events are remembered at most. */
const ACKED_MAX = 4_096

interface Lease {
  state: 'handling' | 'handed' | 'acking' | 'acked'
  carried: boolean
  atMs: number
}

export class Leases {
  readonly #leases = new Map<number, Lease>()
  readonly #acked: number[] = []

  /** What to do with a delivery. */
  offer(offset: number, nowMs: number): 'hand' | 'pass' | 'ack' {
    this.#forget(nowMs)
    const lease = this.#leases.get(offset)
    if (lease === undefined) return 'hand'
    if (lease.state === 'acked') return 'ack'
    if (lease.state !== 'handed') return 'pass'
    const carried = lease.carried
    lease.carried = false
    return carried ? 'pass' : 'hand'
  }

  set(offset: number, state: Lease['state'], nowMs: number): void {
    if (state === 'acked') this.#acked.push(offset)
    this.#leases.set(offset, { state, carried: false, atMs: nowMs })
  }

  /** Whether it is being handled, and nobody has acknowledged or refused it meanwhile. */
  handling(offset: number): boolean {
    return this.#leases.get(offset)?.state === 'handling'
  }

  /** Acknowledged by one that said "all up to here". */
  upTo(offset: number, state: 'acking' | 'acked', nowMs: number): void {
    for (const [each, lease] of this.#leases)
      if (each <= offset && lease.state !== 'acked') this.set(each, state, nowMs)
  }

  /** It is to come again: a nack, or its ack was refused. */
  drop(offset: number): void {
    this.#leases.delete(offset)
  }

  /** The connection is gone: the next one brings all that is open again. */
  carry(): void {
    for (const lease of this.#leases.values()) lease.carried = true
  }

  clear(): void {
    this.#leases.clear()
    this.#acked.length = 0
  }

  #forget(nowMs: number): void {
    for (;;) {
      const offset = this.#acked[0]
      if (offset === undefined) return
      const lease = this.#leases.get(offset)
      if (lease?.state === 'acked' && nowMs - lease.atMs < LATE_MS && this.#acked.length <= ACKED_MAX) return
      if (lease?.state === 'acked') this.#leases.delete(offset)
      this.#acked.shift()
    }
  }
}
