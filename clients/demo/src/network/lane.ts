// One direction of a connection: what goes in comes out in order, as late as the line says.

import type { Line } from './line'

/** What may be on its way, as in the buffers of a real network; more is a connection that is lost. */
export const BYTES_MAX = 8 << 20

export class Lane {
  readonly #line: Line
  readonly #unlisten: () => void
  readonly #waiting: { bytes: number; sinceMs: number; arrive: () => void }[] = []
  /** When the last piece had gone out: the next one follows it. */
  #freeMs = 0
  #bytes = 0
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(line: Line) {
    this.#line = line
    this.#unlisten = line.state.subscribe(() => this.#next())
  }

  /** Sends so many bytes; `arrive` is called when they are there. False where there is no room for them. */
  send(bytes: number, arrive: () => void): boolean {
    if (this.#bytes + bytes > BYTES_MAX) return false
    this.#bytes += bytes
    this.#waiting.push({ bytes, sinceMs: performance.now(), arrive })
    if (this.#timer === undefined) this.#next()
    return true
  }

  /** What is on its way is lost. */
  close(): void {
    clearTimeout(this.#timer)
    this.#waiting.length = 0
    this.#unlisten()
  }

  #next(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      const { delayMs, bytesPerSecond } = this.#line.state.getState()
      const goneMs = Math.max(this.#freeMs, first.sinceMs) + (first.bytes * 1_000) / bytesPerSecond
      const restMs = goneMs + delayMs - performance.now()
      if (restMs > 0) {
        this.#timer = setTimeout(() => this.#next(), restMs)
        return
      }
      this.#freeMs = goneMs
      this.#bytes -= first.bytes
      this.#waiting.shift()
      first.arrive()
    }
  }
}
