// A day of events through every helper that keeps something.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import {
  agents,
  assemble,
  chat,
  inbox,
  members,
  operations,
  structure,
  terminal,
  typing,
} from '../../src/helpers/index.js'
import type { TidingsEvent } from '../../src/types.js'
import { Fake } from './fake.js'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** What stands on each topic, ever new. */
function eventOf(n: number): Pick<TidingsEvent, 'topic' | 'type'> & Partial<TidingsEvent> {
  const text = `text ${n} of a day`
  switch (n % 9) {
    case 0:
      return { topic: 'rooms.1', type: 'message', data: { text } }
    case 1:
      // Messages of ten chunks; every third one never ends, and every fifth has lost its beginning.
      return {
        topic: 'rooms.1',
        type: 'message.chunk',
        correlation: `c${Math.floor(n / 90)}`,
        data: {
          seq: (Math.floor(n / 9) % 10) + (Math.floor(n / 90) % 5 === 0 ? 1 : 0),
          delta: text,
          final: Math.floor(n / 9) % 10 === 9 && Math.floor(n / 90) % 3 !== 0,
        },
      }
    case 2:
      return { topic: 'users.alice.notifications', type: 'notification', data: { title: text } }
    case 3:
      return { topic: `operations.${n}`, type: 'operation.started', data: { of: 10, deadline: '2099-12-31T23:59:59Z' } }
    case 4:
      return { topic: 'rooms.1', type: 'typing', key: `k${n}`, data: { name: text } }
    case 5:
      return { topic: 'terminals.1', type: 'terminal.output', data: n % 2 === 0 ? text : `${text}\n` }
    case 6:
      return { topic: `agents.a${n}`, type: 'agent.status', key: 'status', data: { status: text } }
    case 7:
      return {
        topic: '$presence.agents',
        type: 'presence.joined',
        data: { session: `s${n}`, subject: 'x', since: 't', data: { agent: `a${n}` } },
      }
    default:
      return { topic: 'structures.1', type: 'structure.changed', key: `/parts/${n % 1_000}`, data: { value: text } }
  }
}

test('a million events leave no more behind than two hundred thousand', async () => {
  const fake = new Fake()
  const { client } = fake
  const kept = [
    chat(client, 'rooms.1'),
    assemble(client.subscribe('rooms.1')),
    inbox(client, 'alice', { historyMs: 0 }),
    operations(client),
    typing(client, 'rooms.1'),
    terminal(client, '1'),
    agents(client),
    members(client, 'agents'),
    structure(client, '1'),
  ]
  for (const watched of kept) watched.subscribe(() => watched.snapshot())
  const heap = async (from: number, to: number) => {
    for (let n = from; n < to; n++) {
      const event = { offset: n + 1, id: `id-${n}`, source: 'urn:tidings:subject:bob', time: new Date(n).toISOString() }
      const whole: TidingsEvent = { priority: 'normal', attempts: 1, own: false, ...event, ...eventOf(n) }
      for (const sub of fake.subs) if (sub.wants(whole)) sub.offer(whole)
      if (n % 1_000 === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    for (const watched of kept) watched.snapshot()
    await new Promise((resolve) => setTimeout(resolve, 50))
    collect()
    return process.memoryUsage().heapUsed / 1e6
  }
  const before = await heap(0, 200_000)
  const after = await heap(200_000, 1_000_000)
  expect(after - before).toBeLessThan(3)
  expect(kept[2]?.snapshot()).toMatchObject({ unread: 10_000 })
  await Promise.all(kept.map((watched) => watched.close()))
}, 180_000)
