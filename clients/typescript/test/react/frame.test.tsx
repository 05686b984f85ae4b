import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { inNextFrame } from '../../src/react/frame.js'

describe('inNextFrame', () => {
  let frames: ((at: number) => void)[] = []
  beforeEach(() => {
    frames = []
    vi.useFakeTimers()
    vi.stubGlobal('requestAnimationFrame', (run: (at: number) => void) => frames.push(run))
    vi.stubGlobal('cancelAnimationFrame', (id: number) => {
      frames[id - 1] = () => {}
    })
  })
  afterEach(() => {
    vi.useRealTimers()
    vi.unstubAllGlobals()
  })

  it('runs each job once, all in one frame', () => {
    const ran: string[] = []
    const a = () => void ran.push('a')
    const b = () => void ran.push('b')
    for (let n = 0; n < 1_000; n += 1) inNextFrame(a)
    inNextFrame(b)
    expect(frames).toHaveLength(1)
    expect(ran).toEqual([])
    frames[0]?.(0)
    expect(ran).toEqual(['a', 'b'])
    vi.advanceTimersByTime(1_000)
    expect(ran).toEqual(['a', 'b'])
    inNextFrame(a)
    expect(frames).toHaveLength(2)
    frames[1]?.(0)
    expect(ran).toEqual(['a', 'b', 'a'])
  })

  it('does not wait for frames that a hidden page does not have', () => {
    const ran: string[] = []
    inNextFrame(() => void ran.push('a'))
    vi.advanceTimersByTime(99)
    expect(ran).toEqual([])
    vi.advanceTimersByTime(1)
    expect(ran).toEqual(['a'])
    // The frame that comes after all finds nothing to do.
    for (const frame of frames) frame(0)
    expect(ran).toEqual(['a'])
  })

  it('runs the others where one throws, and tells the host', () => {
    const thrown: (() => void)[] = []
    vi.stubGlobal('queueMicrotask', (job: () => void) => thrown.push(job))
    const ran: string[] = []
    inNextFrame(() => {
      throw new Error('thrown')
    })
    inNextFrame(() => void ran.push('b'))
    frames[0]?.(0)
    expect(ran).toEqual(['b'])
    expect(thrown).toHaveLength(1)
    expect(thrown[0]).toThrow('thrown')
  })

  it('goes on when a job asks for another', () => {
    const ran: number[] = []
    const again = () => {
      ran.push(ran.length)
      if (ran.length < 3) inNextFrame(again)
    }
    inNextFrame(again)
    for (const frame of frames) frame(0)
    expect(ran).toEqual([0, 1, 2])
  })
})
