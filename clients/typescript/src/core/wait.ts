import { failure, type TidingsError, toError } from '../errors.js'

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
  return toError(reason, 'aborted', 'it was aborted')
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

/** What is under way, that a signal need not end: then it is not waited for. */
export function unless<T>(signal: AbortSignal | undefined, value: T | PromiseLike<T>): Promise<T> {
  return abortable(signal, (resolve, reject) => void Promise.resolve(value).then(resolve, reject))
}

/** Waits; ends early, without an error, by the signal. */
export function sleep(ms: number, by: AbortSignal): Promise<void> {
  return within(ms, (signal) => new Promise((resolve) => onAbort(signal, resolve)), by)
}

/**
 * Does what has its time, and ends by others too. `act` gets a signal of all of them, and what makes the time begin anew,
 * with so much; what it throws after one of them has come is that this one has come.
 */
export async function within<T>(
  ms: number,
  act: (signal: AbortSignal, again: (ms: number) => void) => Promise<T>,
  ...others: (AbortSignal | undefined)[]
): Promise<T> {
  const controller = new AbortController()
  const { signal } = controller
  const end = (why: unknown): void => {
    timer._clear()
    controller.abort(why)
  }
  const timer = alarm(() => end(late(ms)))
  const again = (forMs: number): void => {
    ms = forMs
    timer._set(ms)
  }
  again(ms)
  const unlisten = others.map((other) => onAbort(other, () => end(other?.reason)))
  try {
    return await act(signal, again)
  } catch (cause) {
    throw signal.aborted ? aborted(signal) : cause
  } finally {
    timer._clear()
    for (const each of unlisten) each()
  }
}

export function late(ms: number): TidingsError {
  return failure('timeout', `no answer within ${ms} ms`)
}

export function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === 'function'
}
