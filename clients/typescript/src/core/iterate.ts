import type { TidingsEvent } from '../types.js'

/** Where an iterator takes its events from. */
export interface Source {
  /** The next event that is here; throws where there never is another, for a reason. */
  next(): TidingsEvent | 'none' | 'over'
  /** Whoever took it has come back for more. */
  done(event: TidingsEvent): void
  /** Resolved when there may be another. */
  wait(): Promise<void>
  /** Nobody comes back. */
  leave(): Promise<void>
}

/** Events one by one, as they are pulled. */
export function iterate(source: Source): AsyncIterator<TidingsEvent, undefined> {
  const over = { value: undefined, done: true } as const
  let pulled: TidingsEvent | undefined
  return {
    async next() {
      const before = pulled
      pulled = undefined
      if (before) source.done(before)
      for (;;) {
        const event = source.next()
        if (event === 'over') return over
        if (event !== 'none') {
          pulled = event
          return { value: event, done: false }
        }
        await source.wait()
      }
    },
    // The event at which the loop was left is not done: whoever comes next gets it again.
    async return() {
      await source.leave()
      return over
    },
  }
}
