// Which errors there are of a connection, and what they mean for the next try.

import { type BrokerCode, failure, TidingsError, toError } from '../errors.js'
import type { Words } from '../wire.js'

/** The cause of an error after which another token helps nothing: this one was revoked. */
export const REVOKED = Symbol('revoked')

/** The error in the broker's words. */
export function refusal({ code, message, retryable, retry_after_ms }: Words): TidingsError {
  return new TidingsError(code as BrokerCode, message as string, {
    retryable: retryable as boolean | undefined,
    retryAfterMs: retry_after_ms as number | undefined,
  })
}

export function lost(message = 'the connection was lost', cause?: unknown): TidingsError {
  return failure('disconnected', message, cause)
}

export function errorOf(cause: unknown): TidingsError {
  return toError(cause, 'disconnected', 'the broker cannot be reached')
}

/** Whether an error says something of the connection, and not of what was asked. */
export function isOfLink({ code }: TidingsError): boolean {
  return ['disconnected', 'timeout', 'unauthenticated', 'protocol'].includes(code)
}

/** Why nothing more can be asked of a client, or of a subscription. */
export function ended(): TidingsError {
  return failure('closed', 'it is closed')
}

/** Whether another token is needed. */
export function isRejected({ code, cause }: TidingsError): boolean {
  return code === 'unauthenticated' && cause !== REVOKED
}

/** Whether trying again helps nothing. */
export function isFinal(error: TidingsError): boolean {
  return !error.retryable && !isRejected(error)
}

/** What a close code means: those that say that we do wrong end it, else the range decides (docs/protocol.md). */
export function closeError(code: number, reason: string, retryAfterMs?: number): TidingsError {
  const wrong = /^(4[5-9]..|100[23789])$/.test(`${code}`)
  return new TidingsError(
    code === 4401 || code === 4503 ? 'unauthenticated' : wrong ? 'protocol' : 'disconnected',
    `it was closed, code ${code}${reason && `: ${reason}`}`,
    { retryAfterMs, cause: code === 4503 ? REVOKED : undefined },
  )
}
