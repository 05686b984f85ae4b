// Snapshots that stay the same, listeners who are told often enough and not more often, ends that come once.

import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Lifetime, Store } from '../../src/helpers/watch.js'

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

test('a snapshot is the same object until something changes, and is built when it is looked at', () => {
  let n = 0
  const build = vi.fn(() => ({ n }))
  const store = new Store(build)
  expect(store.snapshot()).toBe(store.snapshot())
  n = 1
  expect(store.snapshot()).toEqual({ n: 0 })
  for (let i = 0; i < 100; i++) store.changed()
  expect(build).toHaveBeenCalledTimes(1)
  expect(store.snapshot()).toEqual({ n: 1 })
  expect(store.snapshot()).toBe(store.snapshot())
  expect(build).toHaveBeenCalledTimes(2)
})

test('the first change is told at once, the others together, and nothing is told for nothing', () => {
  const store = new Store(() => ({}), 16)
  const told = vi.fn()
  const stop = store.subscribe(told)
  store.changed()
  expect(told).toHaveBeenCalledTimes(1)
  for (let i = 0; i < 10_000; i++) store.changed()
  expect(told).toHaveBeenCalledTimes(1)
  vi.advanceTimersByTime(16)
  expect(told).toHaveBeenCalledTimes(2)
  vi.advanceTimersByTime(1_000)
  expect(told).toHaveBeenCalledTimes(2)
  store.changed()
  expect(told).toHaveBeenCalledTimes(3)
  store.changed()
  store.flush()
  expect(told).toHaveBeenCalledTimes(4)
  expect(vi.getTimerCount()).toBe(0)
  stop()
  store.changed()
  expect(told).toHaveBeenCalledTimes(4)
  expect(vi.getTimerCount()).toBe(0)
})

test('10,000 changes a second are at most 63 calls', () => {
  const store = new Store(() => ({}), 16)
  const told = vi.fn()
  store.subscribe(told)
  for (let ms = 0; ms < 1_000; ms++) {
    for (let i = 0; i < 10; i++) store.changed()
    vi.advanceTimersByTime(1)
  }
  expect(told.mock.calls.length).toBeGreaterThan(55)
  expect(told.mock.calls.length).toBeLessThanOrEqual(64)
})

test('a function that listens twice is told twice and removed once; one that throws keeps nobody from being told', () => {
  const store = new Store(() => ({}), 0)
  const told = vi.fn()
  store.subscribe(() => {
    throw new Error('broken')
  })
  const stop = store.subscribe(told)
  store.subscribe(told)
  expect(() => store.changed()).toThrow('broken')
  expect(told).toHaveBeenCalledTimes(2)
  stop()
  stop()
  expect(() => store.changed()).toThrow('broken')
  expect(told).toHaveBeenCalledTimes(3)
})

test('a life ends once, by whatever ends it first', async () => {
  const abort = new AbortController()
  const life = new Lifetime(abort.signal)
  const end = vi.fn()
  life.add(end)
  life.add(() => {
    throw new Error('what fails at the end keeps nothing else from ending')
  })
  const other = vi.fn()
  life.add(other)
  abort.abort()
  await life.close()
  await life.close()
  expect(end).toHaveBeenCalledTimes(1)
  expect(other).toHaveBeenCalledTimes(1)
  // What is added too late ends at once.
  life.add(end)
  expect(end).toHaveBeenCalledTimes(2)
  // Whoever closes it once more waits for the end, too.
  const slow = new Lifetime(undefined)
  let release = () => {}
  slow.add(
    () =>
      new Promise<void>((resolve) => {
        release = resolve
      }),
  )
  const ends = [vi.fn(), vi.fn()]
  for (const ended of ends) void slow.close().then(ended)
  await vi.advanceTimersByTimeAsync(0)
  for (const ended of ends) expect(ended).not.toHaveBeenCalled()
  release()
  await vi.advanceTimersByTimeAsync(0)
  for (const ended of ends) expect(ended).toHaveBeenCalled()
  const late = new Lifetime(abort.signal)
  late.add(other)
  await vi.advanceTimersByTimeAsync(0)
  expect(other).toHaveBeenCalledTimes(2)
})
