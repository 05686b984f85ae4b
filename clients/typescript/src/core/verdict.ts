import { type BrokerCode, failure, TidingsError } from '../errors.js'
import type { Words } from '../wire.js'
import { isWords } from './check.js'

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
export function refusal(words: Words): TidingsError {
  return new TidingsError(words.code as BrokerCode, words.message as string, {
    retryable: words.retryable as boolean | undefined,
    retryAfterMs: words.retry_after_ms as number | undefined,
  })
}

export function lost(message: string, cause?: unknown): TidingsError {
  return failure('disconnected', message, cause)
}

export function errorOf(cause: unknown): TidingsError {
  return cause instanceof TidingsError ? cause : lost('the broker cannot be reached', cause)
}

/** Whether an error says something of the connection, and not of what was asked. */
export function isOfLink({ code }: TidingsError): boolean {
  return ['disconnected', 'timeout', 'unauthenticated', 'protocol'].includes(code)
}

/** What a refused `connect`, or an error over HTTP, means. */
export function verdictOf(cause: unknown): Verdict {
  if (isWords(cause) && cause.error instanceof TidingsError) return cause as unknown as Verdict
  const error = errorOf(cause)
  if (error.code === 'unauthenticated') return { error, rejected: true }
  return { error, stop: !error.retryable, afterMs: error.retryAfterMs }
}

/** What a close code means: those that say that we do wrong end it, else the range decides (docs/protocol.md). */
export function verdictOfClose(code: number, reason: string, afterMs?: number): Verdict {
  const text = `the connection was closed, code ${code}${reason && `: ${reason}`}`
  const stop = (code >= 4500 && code < 5000) || [1002, 1003, 1007, 1008, 1009].includes(code)
  const rejected = code === 4401
  const of = rejected || code === 4503 ? 'unauthenticated' : stop ? 'protocol' : 'disconnected'
  return { error: failure(of, text), stop, rejected, afterMs }
}
