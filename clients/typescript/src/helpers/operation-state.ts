// What events make of an operation: a function of the state and the next event, in the order of the log.

import type { TidingsError } from '../errors.js'
import type { TidingsEvent } from '../types.js'
import { fields, finite, text } from './data.js'

/** How an operation stands. `unknown`: nothing was heard of it yet. */
export type OperationStatus = 'unknown' | 'running' | 'completed' | 'failed' | 'cancelled' | 'timed_out'

/** An operation as it stands. */
export interface OperationSnapshot {
  /** The operation: what is on `operations.<id>`. */
  readonly id: string
  /** Where it stands. */
  readonly status: OperationStatus
  /** The number of the try: 1, or more after a retry; 0 while nothing is known. */
  readonly attempt: number
  /** What it is called, where the producer said so. */
  readonly title: string | undefined
  /** How much is done, in the producer's unit. */
  readonly done: number | undefined
  /** Of how much; `undefined` where nobody knows. */
  readonly of: number | undefined
  /** `done` of `of`, 0 to 1; `undefined` where either is not known. 1 when it is completed. */
  readonly ratio: number | undefined
  /** How sure the producer is of what it has so far, 0 to 1, where it said so. */
  readonly confidence: number | undefined
  /** What the producer said last: of progress, or why it failed. */
  readonly message: string | undefined
  /** What came out of it, when it is completed. */
  readonly result: unknown
  /** Why it was cancelled, as far as somebody said. */
  readonly reason: string | undefined
  /** When this try began, in milliseconds since 1970 by the broker's clock. */
  readonly startedAt: number | undefined
  /** When this try ended, in milliseconds since 1970 by the broker's clock. */
  readonly endedAt: number | undefined
  /** When it is to be done, in milliseconds since 1970 by the producer's clock. */
  readonly deadline: number | undefined
  /** Whether that has passed, and the producer has not said how it ended: it may be gone. */
  readonly overdue: boolean
  /** Whether somebody has asked this try to stop. */
  readonly cancelRequested: boolean
  /** Whether all that was there has been heard. */
  readonly caughtUp: boolean
  /** Why nothing more will be heard. */
  readonly error: TidingsError | undefined
}

/** What is kept between events. */
export type OperationState = Omit<OperationSnapshot, 'overdue' | 'caughtUp' | 'error' | 'ratio'>

const ENDS: Readonly<Record<string, OperationStatus>> = {
  'operation.completed': 'completed',
  'operation.failed': 'failed',
  'operation.cancelled': 'cancelled',
  'operation.timed_out': 'timed_out',
}

/** The types of the events of an operation, and of what is asked of it. */
export const OPERATION_TYPES: readonly string[] = ['operation.*']

export function newOperation(id: string): OperationState {
  return {
    id,
    status: 'unknown',
    attempt: 0,
    title: undefined,
    done: undefined,
    of: undefined,
    confidence: undefined,
    message: undefined,
    result: undefined,
    reason: undefined,
    startedAt: undefined,
    endedAt: undefined,
    deadline: undefined,
    cancelRequested: false,
  }
}

/** The state behind the event; the same object where it changes nothing. */
export function reduceOperation(state: OperationState, event: TidingsEvent): OperationState {
  const data = fields(event.data)
  const at = Date.parse(event.time)
  const attempt = Math.max(1, finite(data.attempt) ?? state.attempt)
  if (event.type === 'operation.cancel') {
    // It has its answer.
    if (isEnd(state.status)) return state
    return { ...state, cancelRequested: true, reason: text(data.reason) }
  }
  // Somebody of an earlier try has not noticed that there is another.
  if (attempt < state.attempt) return state
  const end = ENDS[event.type]
  const said = { attempt, title: text(data.title) ?? state.title, message: text(data.message) ?? state.message }
  if (event.type === 'operation.started') {
    return {
      ...newOperation(state.id),
      ...said,
      message: text(data.message),
      status: 'running',
      done: finite(data.of) === undefined ? undefined : 0,
      of: finite(data.of),
      startedAt: at,
      deadline: moment(data.deadline),
    }
  }
  if (event.type === 'operation.progress') {
    // Late, as the last words of a worker that somebody else has declared dead.
    if (isEnd(state.status) && attempt === state.attempt) return state
    const again = attempt > state.attempt ? newOperation(state.id) : state
    return {
      ...again,
      ...said,
      status: 'running',
      done: finite(data.done) ?? again.done,
      of: finite(data.of) ?? again.of,
      confidence: portion(data.confidence) ?? again.confidence,
      startedAt: again.startedAt ?? at,
    }
  }
  if (end === undefined) return state
  return {
    ...state,
    ...said,
    message: text(data.message) ?? text(data.error) ?? (end === 'completed' ? state.message : undefined),
    status: end,
    done: finite(data.done) ?? state.done,
    of: finite(data.of) ?? state.of,
    result: data.result,
    reason: text(data.reason) ?? state.reason,
    endedAt: at,
  }
}

/** 0 to 1, and nothing else. */
function portion(value: unknown): number | undefined {
  const number = finite(value)
  return number !== undefined && number >= 0 && number <= 1 ? number : undefined
}

const RFC_3339 =
  /^(\d{4})-(\d\d)-(\d\d)T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$/

/** A moment in RFC 3339 from 1970 on. `Date.parse` alone takes much else, and a 30th of February for a 1st of March. */
function moment(value: unknown): number | undefined {
  const written = text(value)?.toUpperCase() ?? ''
  const parts = RFC_3339.exec(written)
  if (parts === null) return undefined
  const [, year, month, day] = parts.map(Number)
  const lastDay = new Date(Date.UTC(year ?? 0, month ?? 0, 0)).getUTCDate()
  const at = Date.parse(written)
  return (day ?? 0) <= lastDay && at >= 0 ? at : undefined
}

/** Whether nothing more is to come of this try. */
export function isEnd(status: OperationStatus): boolean {
  return status !== 'unknown' && status !== 'running'
}

/** The state as it is shown. */
export function showOperation(
  state: OperationState,
  now: number,
  more: { caughtUp: boolean; error: TidingsError | undefined },
): OperationSnapshot {
  return { ...state, ratio: ratioOf(state), overdue: isOverdue(state, now), ...more }
}

/** Whether its moment has passed and nobody has said how it ended. */
export function isOverdue(state: OperationState, now: number): boolean {
  return state.status === 'running' && state.deadline !== undefined && now >= state.deadline
}

function ratioOf({ status, done, of }: OperationState): number | undefined {
  if (status === 'completed') return 1
  if (done === undefined || of === undefined || of <= 0) return undefined
  return Math.min(1, Math.max(0, done / of))
}
