// Shows that the broker is there, or is not any more.
//
// - Nothing heard for the broker's ping interval: it is asked. Nothing heard for the grace after that: it is gone.
// - The clock is one that nobody sets: one that is set back would hear nothing missing for as long.

import type { LinkHooks } from './link.js'
import { type Alarm, alarm } from './wait.js'

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
  /** When something was heard or asked. */
  let lastMs = 0
  /** How often something was heard. */
  let heard = 0

  const timed = async <T>(answer: Promise<T>): Promise<T> => {
    const sentMs = performance.now()
    const got = await answer
    latency(performance.now() - sentMs)
    return got
  }
  const wake = (): void => {
    const before = heard
    lastMs = performance.now()
    // Whatever is heard, and not its answer alone, shows that the broker is there.
    timed(ping()).catch((error) => heard > before || silent(error))
  }
  const dueMs = (): number => lastMs + intervalMs - performance.now()
  /** Looks when the interval may be over; one timer, that follows what was heard. */
  const timer: Alarm = alarm(() => {
    if (dueMs() <= 0) wake()
    timer._set(dueMs())
  })

  return {
    _heard() {
      heard++
      lastMs = performance.now()
    },
    _set(ms) {
      intervalMs = ms
      timer._set(ms)
    },
    _wake: wake,
    _timed: timed,
    _clear: timer._clear,
  }
}
