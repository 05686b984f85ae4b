/** What the broker says when it refuses: the codes of docs/protocol.md, the same over every transport. */
export type BrokerCode =
  | 'invalid_argument'
  | 'unauthenticated'
  | 'permission_denied'
  | 'not_found'
  | 'conflict'
  | 'offset_gone'
  | 'too_large'
  | 'unsupported_media_type'
  | 'rate_limited'
  | 'unavailable'
  | 'internal'

/**
 * What happens on this side of the line:
 *
 * - `disconnected`: no connection, and the call does not wait for one
 * - `timeout`: no answer in time; whether it was carried out is not known
 * - `aborted`: the caller's `AbortSignal`
 * - `closed`: `client.close()` was called, or the subscription has ended
 * - `superseded`: another session has taken the durable subscription over
 * - `outbox_full`, `outbox_expired`: the outbox has no room, or it waited longer than `maxAgeMs`
 * - `no_reply`: nobody answered a `request` in time
 * - `protocol`: what came is not what a broker of this version says
 */
export type ClientCode =
  | 'disconnected'
  | 'timeout'
  | 'aborted'
  | 'closed'
  | 'superseded'
  | 'outbox_full'
  | 'outbox_expired'
  | 'no_reply'
  | 'protocol'

/** Every `code` of a {@link TidingsError}. */
export type ErrorCode = BrokerCode | ClientCode

/** What may work later without anything being changed. */
const RETRYABLE = ['disconnected', 'timeout', 'outbox_full', 'no_reply', 'rate_limited', 'unavailable']

/** What else an error carries. */
export interface ErrorDetails {
  /** Whether the same call may succeed later. Default: by the code. */
  retryable?: boolean | undefined
  /** How long to wait before that, in milliseconds, where the broker says so. */
  retryAfterMs?: number | undefined
  /** What it comes from. */
  cause?: unknown
}

/** The one error of this package. `switch (error.code)` covers all that can happen. */
export class TidingsError extends Error {
  /** Tells it from other errors where `instanceof` cannot. */
  override readonly name = 'TidingsError'
  /** What happened. */
  declare readonly code: ErrorCode
  /** Whether the same call may succeed later. */
  declare readonly retryable: boolean
  /** How long to wait before that, in milliseconds; `undefined` where nobody said. */
  declare readonly retryAfterMs: number | undefined

  /** For codecs, stores and helpers of your own; what it does not say follows from the code. */
  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details)
    this.code = code
    this.retryable = details.retryable ?? RETRYABLE.includes(code)
    this.retryAfterMs = details.retryAfterMs
  }
}

/** As `new TidingsError`, with what it comes from. */
export function failure(code: ErrorCode, message: string, cause?: unknown): TidingsError {
  return new TidingsError(code, message, { cause })
}

/** What was caught, where it is one of ours; else what is said of it here. */
export function toError(cause: unknown, code: ErrorCode, message: string): TidingsError {
  return cause instanceof TidingsError ? cause : failure(code, message, cause)
}
