// How often listeners of a store hear of events, and what a gap makes of its state.

import { expect, test, vi } from 'vitest'
import { tidingsStore } from '../../src/zustand/index.js'
import { timed } from '../helpers/timed.js'

const it = timed()

test('listeners are told of a thousand events a few times, and another log begins anew', async () => {
  const { fake } = it
  const list = tidingsStore(
    fake.client,
    'a',
    (state: readonly number[], { data }) => [...state, data as number].slice(-10),
    { initial: [] },
  )
  const told = vi.fn()
  list.subscribe(told)
  for (let n = 0; n < 1_000; n++) fake.other({ topic: 'a', data: n })
  expect(told).toHaveBeenCalledTimes(1)
  await vi.advanceTimersByTimeAsync(16)
  expect(told).toHaveBeenCalledTimes(2)
  expect(list.getState()).toEqual([990, 991, 992, 993, 994, 995, 996, 997, 998, 999])
  await vi.advanceTimersByTimeAsync(16)
  fake.gap(fake.sub, 'retention')
  expect(list.getState()).toHaveLength(10)
  fake.gap(fake.sub, 'log_changed')
  expect(list.getState()).toEqual([])
  await list.close()
})
