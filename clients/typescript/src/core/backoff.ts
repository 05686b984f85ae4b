import type { ReconnectOptions } from '../options.js'

/**
 * How long to wait before the next try. The n-th wait is at most `minMs · factor^n`, and at most `maxMs`; with full
 * jitter a random part of that.
 */
export class Backoff {
  /** How many tries have failed in a row. */
  attempt = 0
  readonly #options: ReconnectOptions
  readonly #random: () => number
  readonly #failed: (cause: unknown) => void
  #firstMs = 0

  /** `failed` is told what `nextDelay` threw; the wait is then as without it. */
  constructor(
    options: ReconnectOptions = {},
    random: () => number = Math.random,
    failed: (cause: unknown) => void = () => {},
  ) {
    this.#failed = failed
    this.#options = options
    this.#random = random
  }

  /**
   * A try has failed: the wait in milliseconds, or `null` to give up. `askedMs` is what the broker asks for, followed up
   * to 300,000.
   */
  next(error: unknown, nowMs: number, askedMs?: number): number | null {
    const {
      minMs = 500,
      maxMs = 30_000,
      factor = 2,
      jitter = 'full',
      maxAttempts = Infinity,
      nextDelay,
    } = this.#options
    if (this.attempt === 0) this.#firstMs = nowMs
    const boundMs = Math.min(maxMs, minMs * factor ** Math.min(this.attempt, 64))
    const attempt = ++this.attempt
    if (attempt > maxAttempts) return null
    const delayMs =
      askedMs === undefined ? (jitter === 'full' ? this.#random() * boundMs : boundMs) : Math.min(askedMs, 300_000)
    try {
      return nextDelay ? nextDelay({ attempt, elapsedMs: nowMs - this.#firstMs, error, delayMs }) : delayMs
    } catch (cause) {
      this.#failed(cause)
      return delayMs
    }
  }

  /** A connection that lasted so long is gone: the waits are short again where that was long enough. */
  lasted(ms: number): void {
    if (ms >= (this.#options.resetAfterMs ?? 60_000)) this.attempt = 0
  }

  reset(): void {
    this.attempt = 0
  }
}
