import { TidingsError } from '../errors.js'

export type Timer = ReturnType<typeof setTimeout> | undefined

export function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === 'function'
}

export function aborted(signal: AbortSignal): TidingsError {
  return new TidingsError('aborted', 'the call was aborted', { cause: signal.reason })
}

/** A promise that a signal ends. `start` returns what is to be undone when it is settled, where there is something. */
export function abortable<T>(
  signal: AbortSignal | undefined,
  start: (resolve: (value: T) => void, reject: (error: unknown) => void) => (() => unknown) | undefined,
): Promise<T> {
  let undo: (() => unknown) | undefined
  let onAbort: (() => void) | undefined
  const promise = new Promise<T>((resolve, reject) => {
    onAbort = () => signal && reject(aborted(signal))
    if (signal?.aborted) return onAbort()
    signal?.addEventListener('abort', onAbort)
    undo = start(resolve, reject)
  })
  return promise.finally(() => {
    if (onAbort) signal?.removeEventListener('abort', onAbort)
    undo?.()
  })
}

/** Waits; ends early, without an error, by the signal. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const limit = deadline(ms, signal)
    const done = (): void => {
      limit.done()
      resolve()
    }
    if (limit.signal.aborted) done()
    else limit.signal.addEventListener('abort', done)
  })
}

/** A signal that a time ends as well as those given. */
export interface Deadline {
  readonly signal: AbortSignal
  /** The time begins anew. */
  again(): void
  /** The time is not counted any more; the other signals still are. */
  stop(): void
  /** Nothing ends it any more. Has to be called. */
  done(): void
}

export function deadline(ms: number, ...signals: (AbortSignal | undefined)[]): Deadline {
  const controller = new AbortController()
  let timer: Timer
  const abort = (event: Event): void => controller.abort((event.target as AbortSignal).reason)
  const stop = (): void => clearTimeout(timer)
  const again = (): void => {
    stop()
    timer = setTimeout(() => controller.abort(new TidingsError('timeout', `no answer within ${ms} ms`)), ms)
  }
  again()
  for (const signal of signals) {
    if (signal?.aborted) controller.abort(signal.reason)
    signal?.addEventListener('abort', abort)
  }
  const done = (): void => {
    stop()
    for (const signal of signals) signal?.removeEventListener('abort', abort)
  }
  return { signal: controller.signal, again, stop, done }
}
