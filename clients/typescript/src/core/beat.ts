// Shows that the broker is there, or is not any more.
//
// - Nothing heard for the broker's ping interval: it is asked. Nothing heard for the grace after that: it is gone.

import type { LinkHooks } from './link.js'
import { alarm } from './wait.js'

export interface Beat {
  /** Something came. */
  _heard(): void
  /** Begins: the broker says something every so often. */
  _set(intervalMs: number): void
  /** Asks now. */
  _wake(): void
  /** Tells how long an answer took. */
  _timed<T>(answer: Promise<T>): Promise<T>
  _clear(): void
}

/** `ping` asks and is rejected after the grace; `silent` is told then, where nothing else was heard either. */
export function createBeat(
  ping: () => Promise<unknown>,
  { _latency: latency }: LinkHooks,
  silent: (error: unknown) => void,
): Beat {
  let intervalMs = 0
  let heardMs = 0
  let askedMs = 0

  const timed = async <T>(answer: Promise<T>): Promise<T> => {
    const sentMs = Date.now()
    const got = await answer
    latency(Date.now() - sentMs)
    return got
  }
  const wake = (): void => {
    const sentMs = Date.now()
    askedMs = sentMs
    // Whatever is heard, and not its answer alone, shows that the broker is there.
    timed(ping()).catch((error) => heardMs > sentMs || silent(error))
  }
  const dueMs = (): number => Math.max(heardMs, askedMs) + intervalMs - Date.now()
  /** Looks again when the interval is over; one timer, that follows what was heard. */
  const listen = (): void => timer._set(Math.max(dueMs(), 10))
  const timer = alarm(() => {
    if (dueMs() <= 0) wake()
    listen()
  })

  return {
    _heard() {
      heardMs = Date.now()
    },
    _set(ms) {
      intervalMs = ms
      listen()
    },
    _wake: wake,
    _timed: timed,
    _clear: timer._clear,
  }
}
