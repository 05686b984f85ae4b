// Runs of AG-UI that survive connections, reloads and their reader.

import { type BaseEvent, EventType, type Message } from '@ag-ui/client'
import { expect, test, vi } from 'vitest'
import { localRuns, type RunContext, type RunStore, serveRun, TidingsAgent } from '../../src/ag-ui/index.js'
import { agent } from '../../src/helpers/index.js'
import type { TidingsEvent } from '../../src/index.js'
import { world } from '../helpers/world.js'
import { until } from '../support/wait.js'

const here = world()
const hello: Message = { id: 'u1', role: 'user', content: 'Tell me' }

/** What a page keeps in its storage. */
function storage() {
  const kept = new Map<string, string>()
  return {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => void kept.set(key, value),
  }
}

/** An agent whose answer is told word by word, when the test says so. */
function talker(id: string) {
  let aborted = false
  const words: (string | undefined)[] = []
  let wake = () => {}
  /** The next word; `undefined` is the end. */
  const next = async (signal: AbortSignal) => {
    signal.addEventListener('abort', () => wake(), { once: true })
    while (words.length === 0) {
      signal.throwIfAborted()
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
    return words.shift()
  }
  const client = here.connect()
  const worker = agent(client, id, {
    run: (command, context) =>
      serveRun(
        client,
        command,
        async (input, { emit, signal }: RunContext) => {
          signal.addEventListener('abort', () => {
            aborted = true
          })
          const messageId = `answer-${input.runId}`
          await emit({ type: 'STATE_DELTA', delta: [{ op: 'add', path: '/runs/-', value: input.runId }] })
          await emit({ type: 'TEXT_MESSAGE_START', messageId, role: 'assistant' })
          for (;;) {
            const word = await next(signal)
            if (word === undefined) break
            await emit({ type: 'TEXT_MESSAGE_CONTENT', messageId, delta: word })
          }
          await emit({ type: 'TEXT_MESSAGE_END', messageId })
          return { words: 'all' }
        },
        context,
      ),
  })
  return {
    worker,
    aborted: () => aborted,
    say(word?: string) {
      words.push(word)
      wake()
    },
  }
}

function page(id: string, runs: RunStore, messages: Message[] = [hello], state: object = { runs: [] }) {
  return new TidingsAgent({
    client: here.connect(),
    agent: id,
    threadId: 't1',
    runs,
    initialMessages: messages,
    initialState: state,
  })
}

const textOf = (agent: TidingsAgent) => agent.messages.map(({ content }) => content)

test('a run is told to who asked for it, with its state and its result, over a broker that dies', async () => {
  const id = here.fresh()
  const { say, worker } = talker(id)
  const asking = page(id, localRuns('', storage()))
  const events: string[] = []
  const running = asking.runAgent(
    { runId: `${id}-1` },
    { onEvent: ({ event }: { event: BaseEvent }) => void events.push(event.type) },
  )
  await until(() => events.includes('TEXT_MESSAGE_START'))
  say('Events ')
  await until(() => textOf(asking).at(-1) === 'Events ')
  await here.restart()
  say('are kept.')
  await until(() => textOf(asking).at(-1) === 'Events are kept.')
  say()
  expect(await running).toMatchObject({
    result: { words: 'all' },
    newMessages: [{ role: 'assistant', content: 'Events are kept.' }],
  })
  expect(asking.state).toEqual({ runs: [`${id}-1`] })
  expect(events).toEqual([
    'RUN_STARTED',
    'STATE_DELTA',
    'TEXT_MESSAGE_START',
    'TEXT_MESSAGE_CONTENT',
    'TEXT_MESSAGE_CONTENT',
    'TEXT_MESSAGE_END',
    'RUN_FINISHED',
  ])
  await worker.close()
})

test('a page that is loaded anew in the middle goes on, whatever it has kept', async () => {
  const id = here.fresh()
  const { say, worker } = talker(id)
  const kept = storage()
  const before = page(id, localRuns('', kept))
  void before.runAgent({ runId: `${id}-1` }).catch(() => undefined)
  await until(() => before.messages.length === 2)
  say('Events ')
  await until(() => textOf(before).at(-1) === 'Events ')
  await before.detachActiveRun()

  // It has kept half of the answer, and a state with the run in it.
  const after = page(id, localRuns('', kept), structuredClone(before.messages), structuredClone(before.state))
  const connected = after.connectAgent()
  await until(() => textOf(after).at(-1) === 'Events ')
  expect(textOf(after)).toEqual(['Tell me', 'Events '])
  say('are kept.')
  await until(() => textOf(after).at(-1) === 'Events are kept.')
  say()
  expect((await connected).result).toEqual({ words: 'all' })
  expect(after.state).toEqual({ runs: [`${id}-1`] })

  // Once more when it is over; and one that never had a run has none.
  const third = page(id, localRuns('', kept), structuredClone(after.messages), structuredClone(after.state))
  await third.connectAgent()
  expect(textOf(third)).toEqual(['Tell me', 'Events are kept.'])
  expect(third.state).toEqual({ runs: [`${id}-1`] })
  const none = page(id, localRuns('', storage()))
  expect(await none.connectAgent()).toMatchObject({ newMessages: [] })
  await worker.close()
})

// Before there is a connection, and before the command is sent.
test.each([1, 2])('a run that was not sent before the page went is sent by the next one, once (%s)', async (stage) => {
  const id = here.fresh()
  const kept = localRuns('', storage())
  const before = page(id, kept)
  // The store has it, and the broker not: the page went in between.
  let stored = 0
  const said = vi.spyOn(console, 'error').mockImplementation(() => {})
  const cut: RunStore = {
    get: kept.get,
    set(thread, run) {
      kept.set(thread, run)
      if (++stored === stage) throw new Error('the page is gone')
    },
  }
  await page(id, cut)
    .runAgent({ runId: `${id}-1` })
    .catch(() => undefined)
  expect(stored).toBe(stage)
  said.mockRestore()
  const { say, worker } = talker(id)
  const after = page(id, kept, before.messages)
  const connected = after.connectAgent()
  await until(() => after.messages.length === 2)
  say()
  expect((await connected).result).toEqual({ words: 'all' })
  const commands = await here.connect().read(`agents.${id}.commands`)
  expect(commands.events).toHaveLength(1)
  await worker.close()
})

test('an abort stops the agent, and where there is none it is over here', async () => {
  const id = here.fresh()
  const there = talker(id)
  const asking = page(id, localRuns('', storage()))
  let error: unknown
  const running = asking.runAgent(
    { runId: `${id}-1` },
    {
      onRunErrorEvent: ({ event }) => {
        error = event
      },
    },
  )
  await until(() => asking.messages.length === 2)
  asking.abortRun()
  await running
  expect(there.aborted()).toBe(true)
  expect(error).toMatchObject({ type: EventType.RUN_ERROR, code: 'aborted' })
  await there.worker.close()

  const nobody = new TidingsAgent({ client: here.connect(), agent: here.fresh(), abortMs: 20 })
  const waiting = nobody.runAgent({ runId: `${id}-2` })
  await until(async () =>
    (await here.connect().read('agents.*.commands')).events.some(({ id: sent }) => sent === `run:${id}-2`),
  )
  nobody.abortRun()
  await waiting
  expect(nobody.isRunning).toBe(false)
  expect(nobody.clone()).toBeInstanceOf(TidingsAgent)
})

test('a run that is aborted before the agent is asked is not asked for, then or later', async () => {
  const id = here.fresh()
  for (const [connected, begun] of [
    [true, true],
    [true, false],
    [false, true],
  ]) {
    const kept = localRuns('', storage())
    const client = here.connect()
    if (connected) await client.ready()
    else client.disconnect()
    // The broker cannot answer before who waits for this goes on.
    let begin = () => {}
    const began = new Promise<void>((resolve) => {
      begin = resolve
    })
    const runs: RunStore = {
      get: kept.get,
      set(thread, run) {
        kept.set(thread, run)
        begin()
      },
    }
    const asking = new TidingsAgent({ client, agent: id, threadId: 't1', runs, initialMessages: [hello] })
    const codes: unknown[] = []
    const running = asking.runAgent({}, { onRunErrorEvent: ({ event }) => void codes.push(event.code) })
    if (begun) await began
    asking.abortRun()
    await running
    expect(codes).toEqual(['aborted'])
    client.connect()
    await client.ready()
    expect(await page(id, kept).connectAgent()).toMatchObject({ newMessages: [] })
  }
  expect((await here.connect().read(`agents.${id}.commands`)).events).toEqual([])
})

test('what a page has kept of a run stays where the run is gone', async () => {
  const id = here.fresh()
  const kept = localRuns('', storage())
  const log = '9f3c21d0-5a3e-4c1b-8f00-0123456789ab'
  kept.set('t1', { runId: `${id}-1`, log, cursor: 7, messageIds: ['u1'], state: { runs: [] } })
  const answer: Message = { id: 'a1', role: 'assistant', content: 'Events are kept.' }
  const after = page(id, kept, [hello, answer], { runs: [`${id}-1`] })
  const said = vi.spyOn(console, 'error').mockImplementation(() => {})
  await expect(after.connectAgent()).rejects.toMatchObject({ code: 'offset_gone' })
  said.mockRestore()
  expect(textOf(after)).toEqual(['Tell me', 'Events are kept.'])
  expect(after.state).toEqual({ runs: [`${id}-1`] })
})

test.each([true, false])('a long run whose command comes again: over %s', async (over) => {
  const client = here.connect()
  const runId = here.fresh()
  // More than one page of a read.
  const chunks = Array.from({ length: 1_100 }, (_, value) => ({
    topic: `runs.${runId}`,
    type: 'CUSTOM',
    data: { name: 'x', value },
  }))
  await client.publish(`runs.${runId}`, { runId, threadId: 't' }, { type: 'RUN_STARTED' })
  for (let at = 0; at < chunks.length; at += 550) await client.publishBatch(chunks.slice(at, at + 550))
  if (over) await client.publish(`runs.${runId}`, { runId, threadId: 't' }, { type: 'RUN_FINISHED' })
  const run = vi.fn()
  const command = { offset: 0, attempts: 2, data: { runId, threadId: 't', messages: [] } } as unknown as TidingsEvent
  await serveRun(client, command, run)
  expect(run).not.toHaveBeenCalled()
  const { events } = await client.read(`runs.${runId}`, { types: ['RUN_FINISHED', 'RUN_ERROR'] })
  expect(events.map(({ type }) => type)).toEqual([over ? 'RUN_FINISHED' : 'RUN_ERROR'])
})

test('what a store cannot read is no run', () => {
  for (const text of ['{', 'null', '7', '{"runId":1}', '[]']) {
    expect(
      localRuns('', {
        getItem: () => text,
        setItem: () => {
          throw new Error('full')
        },
      }).get('t'),
    ).toBeUndefined()
  }
})
