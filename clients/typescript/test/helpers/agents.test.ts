// Agents and dashboards end to end, over a broker that dies in the middle.

import { expect, test } from 'vitest'
import { type Agent, agent, agents, operation, terminal, terminalWriter } from '../../src/helpers/index.js'
import { TidingsError } from '../../src/index.js'
import { until } from '../support/wait.js'
import { world } from './world.js'

const here = world()

test('a command that was sent while the agent was away is done in sight of two dashboards, over kill -9, until an interrupt', async () => {
  const id = here.fresh()
  const [one, two] = [here.connect(), here.connect()]
  const boards = [agents<{ role: string }>(one), agents<{ role: string }>(two)]
  const screens = [terminal(one, id), terminal(two, id)]
  const info = (board: (typeof boards)[number]) => board.snapshot().agents.find((found) => found.id === id)

  const sent = await boards[0]?.command(id, { lines: 'many' })
  expect(info(boards[0] as never)).toBeUndefined()

  // The agent comes, and finds the command.
  const machine = here.connect()
  let written = 0
  let stop: unknown
  const worker: Agent = agent(machine, id, {
    data: { role: 'builder' },
    run: async (command, { signal, status }) => {
      expect(command.id).toBe(sent?.id)
      status('building')
      const out = terminalWriter(machine, id)
      while (!signal.aborted) {
        await out.write(`line ${written++} äöü ✓\r\n`)
        await new Promise((resolve) => setTimeout(resolve, 1))
      }
      stop = signal.reason
      await out.end(130)
      throw signal.reason
    },
  })
  await worker.ready()
  await until(() => boards.every((board) => info(board)?.status === 'busy' && info(board)?.online === true))
  await until(() => boards.every((board) => info(board)?.message === 'building'))
  expect(info(boards[1] as never)).toMatchObject({ data: { role: 'builder' }, command: sent?.id })
  await until(() => screens.every((screen) => screen.snapshot().lines.length > 50))

  const before = written
  await here.restart()
  await until(() => written > before + 100)
  expect(worker.running?.id).toBe(sent?.id)

  const asked = await boards[1]?.interrupt(id, { reason: 'wrong plan' })
  await until(() => stop !== undefined)
  expect(stop).toBeInstanceOf(TidingsError)
  expect(stop).toMatchObject({ code: 'aborted', message: 'wrong plan' })
  expect(asked?.offset).toBeGreaterThan(sent?.offset ?? Infinity)
  await until(() => boards.every((board) => info(board)?.status === 'idle'))
  await until(() => screens.every((screen) => screen.snapshot().closed))

  // Every line, once and in order, on both screens.
  const want = Array.from({ length: written }, (_, n) => `line ${n} äöü ✓`)
  for (const screen of screens) {
    const { lines, exit, dropped } = screen.snapshot()
    expect(exit).toBe(130)
    expect(lines).toEqual(want.slice(dropped))
  }
  // It is done: it does not come again.
  await until(async () => {
    const { lag } = await one.call<{ lag: number }>('GET', `/v1/subscriptions/agent-${id}`)
    return lag === 0
  })
  await worker.close()
  await until(() => boards.every((board) => info(board)?.online === false))
  await Promise.all([...boards, ...screens].map((watched) => watched.close()))
})

test('commands are answered, one after the other, and what fails says so', async () => {
  const id = here.fresh()
  const board = agents(here.connect())
  let running = 0
  const worker = agent(here.connect(), id, {
    run: async ({ data }) => {
      expect(++running).toBe(1)
      await new Promise((resolve) => setTimeout(resolve, 5))
      running--
      if (data === 3) throw new TidingsError('not_found', 'there is no three')
      return { twice: (data as number) * 2 }
    },
  })
  const answers = await Promise.all([1, 2, 3].map((n) => board.ask(id, n)))
  expect(answers.map(({ type, data }) => [type, data])).toEqual([
    ['command.done', { twice: 2 }],
    ['command.done', { twice: 4 }],
    ['command.failed', { code: 'not_found', message: 'there is no three' }],
  ])
  await worker.close()
  await board.close()
})

test('an interrupt that names a command which waits stops that one, also where the agent is away', async () => {
  const id = here.fresh()
  const board = agents(here.connect())
  const runs: unknown[] = []
  let finish = () => {}
  const run = async (command: { data?: unknown }): Promise<void> => {
    runs.push(command.data)
    if (command.data === 'a') await new Promise<void>((resolve) => (finish = resolve))
  }
  const first = agent(here.connect(), id, { run })
  await board.command(id, 'a')
  await until(() => runs.length === 1)
  const behind = await board.command(id, 'b', { id: `${id}-b` })
  await board.interrupt(id, { command: behind.id, reason: 'no more' })
  const next = board.ask(id, 'c')
  finish()
  await next
  expect(runs).toEqual(['a', 'c'])
  await first.close()

  const away = await board.command(id, 'd', { id: `${id}-d` })
  // Of the next two one is stopped, and what names none means what runs, not what waits.
  await board.interrupt(id, { command: away.id })
  await board.interrupt(id)
  const last = agent(here.connect(), id, { run })
  expect((await board.ask(id, 'e')).type).toBe('command.done')
  expect(runs).toEqual(['a', 'c', 'e'])
  await last.close()
  await board.close()
})

test('a command that an agent died with comes again, and does not where it was interrupted meanwhile', async () => {
  const id = here.fresh()
  const board = agents(here.connect())
  const first = here.connect()
  const runs: [string, number][] = []
  const run =
    (name: string) =>
    async (command: { data?: unknown; attempts: number }, { signal }: { signal: AbortSignal }) => {
      runs.push([`${name} ${command.data}`, command.attempts])
      if (name === 'first')
        await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    }
  const dying = agent(first, id, { run: run('first') })
  const asked = board.ask(id, 'a')
  await until(() => runs.length === 1)
  await board.command(id, 'b')
  await dying.close()
  const second = agent(here.connect(), id, { run: run('second') })
  await until(() => runs.length === 3)
  expect(runs).toEqual([
    ['first a', 1],
    ['second a', 2],
    ['second b', 1],
  ])
  // Whoever asked hears of it from the one that did it.
  expect((await asked).type).toBe('command.done')
  await second.close()

  // The same, with a word against it.
  runs.length = 0
  const again = agent(here.connect(), id, { run: run('first') })
  await board.command(id, 'c')
  await until(() => runs.length === 1)
  await again.close()
  await board.interrupt(id)
  const last = agent(here.connect(), id, { run: run('second') })
  await board.command(id, 'd')
  await until(() => runs.length === 2)
  expect(runs).toEqual([
    ['first c', 1],
    ['second d', 1],
  ])
  await last.close()
  await board.close()
})

test('an interrupt of all takes away what waits too', async () => {
  const id = here.fresh()
  const board = agents(here.connect())
  const done: unknown[] = []
  const worker = agent(here.connect(), id, {
    run: ({ data }, { signal }) => {
      done.push(data)
      return data === 1
        ? new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
        : data
    },
  })
  const asked = [1, 2, 3].map((n) => board.ask(id, n))
  await until(() => done.length === 1)
  await board.interrupt(id, { all: true })
  const answers = await Promise.all([...asked, board.ask(id, 4)])
  expect(answers.map(({ type }) => type)).toEqual([...Array(3).fill('command.interrupted'), 'command.done'])
  expect(done).toEqual([1, 4])
  await worker.close()
  await board.close()
})

test('an operation of an agent is seen and cancelled', async () => {
  const [there, viewer] = [here.connect(), here.connect()]
  const id = here.fresh()
  const watched = operation(viewer, id).watch({ notifyMs: 0 })
  const work = await operation(there, id).start({ title: 'Build', of: 10, deadlineMs: 60_000 })
  let asked: unknown
  work.onCancel((request) => {
    asked = request.reason
  })
  work.progress(4, { message: 'four' })
  await until(() => watched.snapshot().done === 4)
  expect(watched.snapshot()).toMatchObject({
    status: 'running',
    ratio: 0.4,
    message: 'four',
    title: 'Build',
    attempt: 1,
  })
  await operation(viewer, id).cancel('not needed')
  await until(() => watched.snapshot().status === 'cancelled')
  expect(watched.snapshot()).toMatchObject({ reason: 'not needed', cancelRequested: true, done: 4 })
  expect(work.signal.aborted).toBe(true)
  expect(asked).toBe('not needed')
  await watched.close()
})

test('a command that takes longer than a lease is done once', async () => {
  const id = here.fresh()
  const board = agents(here.connect())
  let runs = 0
  const client = here.connect()
  const worker = agent(client, id, {
    queue: { ackWaitMs: 50 },
    run: async () => {
      runs++
      // Until the broker has given it again several times.
      await until(async () => {
        const { redelivered } = await client.call<{ redelivered: number }>('GET', `/v1/subscriptions/agent-${id}`)
        return redelivered > 0
      })
      await new Promise((resolve) => setTimeout(resolve, 300))
    },
  })
  expect((await board.ask(id)).type).toBe('command.done')
  expect((await board.ask(id)).type).toBe('command.done')
  expect(runs).toBe(2)
  await worker.close()
  await board.close()
})

test('agents of one client are all listed, whenever they come and go, and told where there is no room for them', async () => {
  const machine = here.connect()
  const board = agents<{ role: string }>(here.connect())
  const ids = [here.fresh(), here.fresh(), here.fresh()] as const
  const online = () => board.snapshot().agents.filter((found) => found.online && ids.includes(found.id))
  const errors: unknown[] = []
  const begin = (id: string, role: string): Agent =>
    agent(machine, id, { data: { role }, run: () => id, onError: ({ code }) => errors.push(code) })

  const [first, second] = [begin(ids[0], 'builder'), begin(ids[1], 'tester')]
  await Promise.all([first.ready(), second.ready()])
  await until(() => online().length === 2)
  expect(new Map(online().map(({ id, data }) => [id, data?.role]))).toEqual(
    new Map([
      [ids[0], 'builder'],
      [ids[1], 'tester'],
    ]),
  )
  expect((await board.ask(ids[1])).data).toBe(ids[1])

  const third = begin(ids[2], 'writer')
  await third.ready()
  await until(() => online().length === 3)
  await first.close()
  await until(() => online().length === 2)
  expect(online().map(({ id }) => id)).toEqual([ids[1], ids[2]].sort())
  expect(errors).toEqual([])

  const large = begin(here.fresh(), 'x'.repeat(2_000))
  await expect(large.ready()).rejects.toMatchObject({ code: 'invalid_argument' })
  expect(errors).toContain('invalid_argument')
  await large.close()
  await until(() => online().length === 2)
  await Promise.all([second, third].map((one) => one.close()))
  await until(() => online().length === 0)
  await board.close()
})
