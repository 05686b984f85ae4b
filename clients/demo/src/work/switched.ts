// Work that goes on in this window as long as its switch is on.

import { type Me, me } from '../me'

/** Calls `start` whenever what `wanted` picks becomes true, and aborts its signal when it does not hold any more. */
export function whileWanted(wanted: (state: Me) => boolean, start: (signal: AbortSignal) => void): void {
  let running: AbortController | undefined
  const look = (): void => {
    const on = wanted(me.getState())
    if (on && running === undefined) {
      running = new AbortController()
      start(running.signal)
    } else if (!on) {
      running?.abort(new DOMException('switched off in this window', 'AbortError'))
      running = undefined
    }
  }
  me.subscribe(look)
  look()
}
