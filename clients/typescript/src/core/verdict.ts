import { type BrokerCode, TidingsError } from '../errors.js'
import type { Words } from '../wire.js'

/** What the end of a connection, or a failed try, means for the next. */
export interface Verdict {
  readonly error: TidingsError
  /** Trying again helps nothing. */
  readonly stop?: boolean
  /** Another token is needed. */
  readonly rejected?: boolean
  /** How long the broker asks to wait, in milliseconds. */
  readonly afterMs?: number | undefined
}

/** The error in the broker's words. */
export function refusal(words: Words, cause?: unknown): TidingsError {
  const {
    code,
    message,
    retryable,
    retry_after_ms: after,
  } = words as {
    code: BrokerCode
    message: string
    retryable?: boolean
    retry_after_ms?: number
  }
  return new TidingsError(code, message, { retryable, retryAfterMs: after, cause })
}

export function lost(message: string, cause?: unknown): TidingsError {
  return new TidingsError('disconnected', message, { cause })
}

/** What a refused `connect`, or an error over HTTP, means. */
export function verdictOf(cause: unknown): Verdict {
  const error = cause instanceof TidingsError ? cause : lost(cause instanceof Error ? cause.message : `${cause}`, cause)
  if (error.code === 'unauthenticated') return { error, rejected: true }
  return { error, stop: !error.retryable, afterMs: error.retryAfterMs }
}

/** What a close code means: those that say that we do wrong end it, else the range decides (docs/protocol.md). */
export function verdictOfClose(code: number, reason: string, afterMs?: number): Verdict {
  const text = `the connection was closed, code ${code}${reason && `: ${reason}`}`
  const refused = new TidingsError('unauthenticated', text)
  if (code === 4401) return { error: refused, rejected: true }
  if ([1002, 1003, 1007, 1008, 1009].includes(code)) return { error: new TidingsError('protocol', text), stop: true }
  if (code === 4503)
    return { error: new TidingsError('unauthenticated', reason || 'the token was revoked'), stop: true }
  if (code >= 4500 && code < 5000) return { error: new TidingsError('protocol', text), stop: true }
  return { error: lost(text), afterMs }
}
