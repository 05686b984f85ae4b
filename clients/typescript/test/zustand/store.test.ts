// A store of zustand over a subscription.

import { expect, test, vi } from 'vitest'
import { tidingsStore } from '../../src/zustand/index.js'
import { world } from '../helpers/world.js'
import { until } from '../support/wait.js'

const here = world()

test('the state is made of what was there and of what comes, over a broker that dies', async () => {
  const topic = here.fresh()
  const client = here.connect()
  for (const n of [1, 2, 3]) await client.publish(`${topic}.a`, n)
  const sum = tidingsStore(client, `${topic}.*`, (state, event) => state + (event.data as number), { initial: 0 })
  const told = vi.fn()
  sum.subscribe(told)
  await until(() => sum.getState() === 6)
  expect(sum.caughtUp()).toBe(true)
  expect(sum.getInitialState()).toBe(0)
  await here.restart()
  await client.publish(`${topic}.b`, 4)
  await until(() => sum.getState() === 10)
  expect(told).toHaveBeenLastCalledWith(10, 6)
  await sum.close()
  await client.publish(`${topic}.b`, 5)
  expect(sum.getState()).toBe(10)
})

test('a state and what changes it is one request', async () => {
  const topic = here.fresh()
  const client = here.connect()
  for (let n = 0; n < 50; n++) await client.publish(topic, n, { key: `k${n % 3}` })
  let events = 0
  const last = tidingsStore(
    client,
    topic,
    (state: Record<string, unknown>, { key, data }) => {
      events++
      return key === undefined ? state : { ...state, [key]: data }
    },
    { initial: {}, lastPerKey: true },
  )
  await until(() => last.caughtUp() && Object.keys(last.getState()).length === 3)
  expect(last.getState()).toEqual({ k0: 48, k1: 49, k2: 47 })
  expect(events).toBe(3)
  await last.close()
})
