// All helpers at once, under load, while the broker is killed again and again.

import { describe, expect, test } from 'vitest'
import {
  assemble,
  chat,
  inbox,
  operation,
  streamWriter,
  structure,
  terminal,
  terminalWriter,
} from '../../src/helpers/index.js'
import { until } from '../support/wait.js'
import { world } from './world.js'

describe.each(['websocket', 'sse', 'poll'] as const)('over %s', (transport) => {
  const here = world(transport)

  test('eight kills lose, double and reorder nothing of what helpers write and show', async () => {
    const id = here.fresh()
    const [writing, reading] = [here.connect(), here.connect()]
    const screen = terminal(reading, id, { maxLines: 100_000 })
    const out = terminalWriter(writing, id)
    const answer = streamWriter(writing, `answers.${id}`)
    const answers = assemble(reading.subscribe(`answers.${id}`, { after: 'first' }))
    const rooms = [writing, reading].map((client) => chat(client, `rooms.${id}`, { max: 10_000 }))
    const box = inbox(reading, id)
    const seen = operation(reading, id).watch()
    const work = await operation(writing, id).start({ of: 1e9 })
    const plans = [writing, reading].map((client) => structure<{ n?: number }>(client, id))

    let stop = false
    let written = 0
    let edits = 0
    const notifications: Promise<unknown>[] = []
    const writer = (async () => {
      for (; !stop; written++) {
        await out.write(`line ${written}\n`)
        await answer.write(`${written} `)
        work.progress(written)
        if (written % 10 === 0) {
          for (const [n, room] of rooms.entries()) room.send(`${n}: ${written}`)
          notifications.push(writing.publish(`users.${id}.notifications`, written))
        }
        // A program that writes as fast as it can would have the line to itself.
        await new Promise((resolve) => setTimeout(resolve, 1))
      }
    })()
    const editors = plans.map(async (plan) => {
      for (; !stop; edits++) await plan.edit((value) => ({ '/n': (value?.n ?? 0) + 1 }))
    })
    for (let kills = 0; kills < 8; kills++) {
      const before = written
      await until(() => written > before + 60)
      await here.restart()
    }
    stop = true
    await Promise.all([writer, ...editors])
    await Promise.all([out.end(0), answer.end(), work.complete(), ...notifications])

    const numbers = Array.from({ length: written }, (_, n) => n)
    await until(() => screen.snapshot().closed)
    expect(screen.snapshot().lines).toEqual(numbers.map((n) => `line ${n}`))
    await until(() => answers.snapshot()[0]?.complete === true)
    expect(answers.snapshot()[0]?.text).toBe(numbers.map((n) => `${n} `).join(''))
    const texts = rooms.map((room) => () => room.snapshot().messages.map(({ text }) => text))
    const sent = numbers.filter((n) => n % 10 === 0)
    await until(() => texts.every((shown) => shown().length === 2 * sent.length))
    expect(texts[0]?.()).toEqual(texts[1]?.())
    for (const n of [0, 1]) {
      expect(texts[0]?.().filter((text) => text.startsWith(`${n}:`))).toEqual(sent.map((at) => `${n}: ${at}`))
    }
    await until(() => rooms.every((room) => room.snapshot().messages.every(({ state }) => state !== 'pending')))
    await until(() => box.snapshot().unread === sent.length)
    await until(() => seen.snapshot().status === 'completed')
    await until(() => plans.every((plan) => plan.snapshot().value?.n === edits && plan.snapshot().pending === 0))
    await Promise.all([screen, answers, ...rooms, box, seen, ...plans].map((watched) => watched.close()))
  }, 120_000)
})
