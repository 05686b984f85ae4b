import type { TidingsError } from '../errors.js'
import type { ReconnectOptions } from '../options.js'

/**
 * How long to wait after so many tries in a row that failed, in milliseconds, or `null` to give up. The n-th wait is at
 * most `minMs · factor^n`, and at most `maxMs`; with full jitter a random part of that. What the broker
 * asks for is followed up to 300,000. `failed` is told what `nextDelay` threw; the wait is then as without it.
 */
export function delayOf(
  options: ReconnectOptions,
  attempt: number,
  elapsedMs: number,
  error: TidingsError,
  failed: (cause: unknown) => void,
): number | null {
  const { minMs = 500, maxMs = 30_000, factor = 2, jitter, maxAttempts = Infinity, nextDelay } = options
  if (attempt > maxAttempts) return null
  const boundMs = Math.min(maxMs, minMs * factor ** Math.min(attempt - 1, 64))
  const ownMs = jitter === 'none' ? boundMs : Math.random() * boundMs
  const askedMs = error.retryAfterMs
  const delayMs = askedMs == null ? ownMs : Math.min(askedMs, 300_000)
  try {
    return nextDelay ? nextDelay({ attempt, elapsedMs, error, delayMs }) : delayMs
  } catch (cause) {
    failed(cause)
    return delayMs
  }
}
