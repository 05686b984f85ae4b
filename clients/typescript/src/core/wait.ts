import { failure, TidingsError } from '../errors.js'

/** A timer of which there is one at a time. */
export interface Alarm {
  /** Whether it is set. */
  _on(): boolean
  /** Sets it anew; `Infinity` never rings. */
  _set(ms: number): void
  _clear(): void
}

export function alarm(ring: () => void): Alarm {
  let timer: ReturnType<typeof setTimeout> | undefined
  const clear = (): void => {
    clearTimeout(timer)
    timer = undefined
  }
  return {
    _on: () => timer !== undefined,
    _set(ms) {
      clear()
      if (ms === Infinity) return
      timer = setTimeout(
        () => {
          timer = undefined
          ring()
        },
        // A timer takes 2^31 milliseconds at most.
        Math.min(ms, 0x7fff_ffff),
      )
    },
    _clear: clear,
  }
}

/** Does it when the signal is aborted, also where it is already. The function that is returned takes it back. */
export function onAbort(signal: AbortSignal | undefined, act: () => void): () => void {
  if (signal?.aborted) act()
  else signal?.addEventListener('abort', act)
  return () => signal?.removeEventListener('abort', act)
}

/** Why it was aborted: a time that was over, or else the caller. */
export function aborted({ reason }: AbortSignal): TidingsError {
  return reason instanceof TidingsError ? reason : failure('aborted', 'the call was aborted', reason)
}

/** A promise that a signal ends. `start` returns what is to be undone when it is settled, where there is something. */
export function abortable<T>(
  signal: AbortSignal | undefined,
  start: (resolve: (value: T) => void, reject: (error: unknown) => void) => (() => unknown) | undefined,
): Promise<T> {
  let undo: (() => unknown) | undefined
  let unlisten: (() => void) | undefined
  return new Promise<T>((resolve, reject) => {
    unlisten = onAbort(signal, () => signal && reject(aborted(signal)))
    if (!signal?.aborted) undo = start(resolve, reject)
  }).finally(() => {
    unlisten?.()
    undo?.()
  })
}

/** Waits; ends early, without an error, by the signal. */
export async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  const limit = deadline(ms, signal)
  await new Promise<void>((resolve) => onAbort(limit.signal, resolve))
  limit._done()
}

/** A signal that a time ends as well as those given. */
export interface Deadline {
  readonly signal: AbortSignal
  /** The time begins anew, with so much. */
  _again(ms: number): void
  /** Nothing ends it any more. Has to be called. */
  _done(): void
}

export function deadline(ms: number, ...signals: (AbortSignal | undefined)[]): Deadline {
  const controller = new AbortController()
  const timer = alarm(() => controller.abort(late(ms)))
  const again = (forMs: number): void => {
    ms = forMs
    timer._set(ms)
  }
  again(ms)
  const unlisten = signals.map((signal) => onAbort(signal, () => controller.abort(signal?.reason)))
  const done = (): void => {
    timer._clear()
    for (const each of unlisten) each()
  }
  return { signal: controller.signal, _again: again, _done: done }
}

export function late(ms: number): TidingsError {
  return failure('timeout', `no answer within ${ms} ms`)
}

export function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === 'function'
}
