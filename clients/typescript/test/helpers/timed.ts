// Fake timers and a client in memory for each test of a file; no test may leave a timer behind.

import { afterEach, beforeEach, expect, vi } from 'vitest'
import { Fake } from './fake.js'

export interface Timed {
  fake: Fake
  /** Lets promises settle. */
  settle(): Promise<unknown>
  /** The events of a type. */
  of(type: string): Fake['log']
}

export function timed(): Timed {
  const it: Timed = {
    fake: new Fake(),
    settle: () => vi.advanceTimersByTimeAsync(0),
    of: (type) => it.fake.log.filter((event) => event.type === type),
  }
  beforeEach(() => {
    vi.useFakeTimers()
    vi.setSystemTime('2026-11-21T05:16:00Z')
    it.fake = new Fake()
  })
  afterEach(() => {
    expect(vi.getTimerCount(), 'a timer was left behind').toBe(0)
    vi.useRealTimers()
  })
  return it
}
