// What the helpers publish is what docs/conventions.md says: every example of it is published by them, and they publish
// nothing on these topics that it has no example of.

import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { serveRun } from '../../src/ag-ui/index.js'
import {
  agent,
  agents,
  chat,
  forwardConsole,
  inbox,
  type OperationWork,
  operation,
  reply,
  streamWriter,
  structure,
  terminalWriter,
  typing,
} from '../../src/helpers/index.js'
import { type Client, TidingsError, type TidingsEvent } from '../../src/index.js'
import { world } from '../helpers/world.js'
import { until } from '../support/wait.js'
import { snippetsOf } from './snippets.js'

const broker = world('websocket')
const page = readFileSync(new URL('../../../../docs/conventions.md', import.meta.url), 'utf8')

type Example = Record<string, unknown>

/** The events of a fence: each is an object, on a line or several. */
function eventsOf(code: string): Example[] {
  return code.split(/\n(?=\{)/).map((text) => JSON.parse(text))
}

/** An event as the page would write it: without what is the broker's, and what the publisher left to it. */
function written({
  topic,
  type,
  key,
  priority,
  correlation,
  headers,
  id,
  expires,
  data,
  ...event
}: TidingsEvent): Example {
  const content = event.datacontenttype === 'application/json' ? undefined : event.datacontenttype
  const all = { topic, type, key, priority, correlation, headers, id, expires, datacontenttype: content, data }
  return { ...all, priority: priority === 'normal' ? undefined : priority }
}

/** Whether the value is as the example has it: `…` is any text, within texts too; numbers of the log are any number. */
function fits(example: unknown, value: unknown, name = ''): boolean {
  if (typeof example === 'string' && typeof value === 'string') {
    const parts = example.split('…').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
    return new RegExp(`^${parts.join('[^]*')}$`).test(value)
  }
  if (typeof example === 'number' && ['start', 'offsets'].includes(name)) return typeof value === 'number'
  if (typeof example !== 'object' || example === null || typeof value !== 'object' || value === null) {
    return Object.is(example, value)
  }
  const [left, right] = [example as Example, value as Example]
  const names = new Set(
    [...Object.keys(left), ...Object.keys(right)].filter((one) => right[one] !== undefined || left[one] !== undefined),
  )
  return [...names].every((one) => {
    // An id, and a moment of expiry, are told where they follow from something.
    if (left[one] === undefined && one === 'id' && name === '') return true
    return fits(left[one], right[one], Array.isArray(example) ? name : one)
  })
}

/** Does everything that the examples show. */
async function play(client: Client): Promise<void> {
  // The inbox: what is read above something that is not.
  const box = inbox(client, 'alice', { historyMs: 0 })
  await client.publish('users.alice.notifications', { title: 'one' })
  const { offset } = await client.publish('users.alice.notifications', { title: 'two' })
  await until(() => box.snapshot().items.length === 2)
  await box.markRead(offset)
  await box.close()

  const job = operation(client, 'import-7')
  const ended = (work: OperationWork) => until(() => work.signal.aborted)
  const first = await job.start({ title: 'Import', of: 200, deadlineMs: 60_000 })
  first.progress(20, { message: 'reading', confidence: 0.8 })
  await job.cancel('wrong file')
  await ended(first)
  await first.cancelled('wrong file')
  await (await job.start()).fail(new Error('the disk is full'))
  const late = await job.start({ deadlineMs: 20 })
  await ended(late)
  await until(async () => (await client.read(job.topic, { types: ['operation.timed_out'] })).events.length === 1)
  await (await job.start()).complete({ rows: 200 })

  const plan = structure(client, 'plan')
  await plan.set('', { title: 'Plan', cells: [1, 2] })
  await plan.set('/cells/0', 10)
  await plan.remove('/title')
  await plan.close()

  const answer = streamWriter(client, 'sessions.1', { correlation: 'answer-1' })
  await answer.write('Events ')
  await answer.flush()
  await answer.write('are kept.')
  await answer.flush()
  await answer.end()
  const broken = streamWriter(client, 'sessions.1', { correlation: 'answer-2' })
  await broken.write('Ev')
  await broken.flush()
  await broken.abort('the model is gone')

  const resizer = reply(client, 'jobs.resize', ({ data }) => {
    if ((data as { image: number }).image === 8) throw new TidingsError('internal', 'no such image')
    return { width: 64 }
  })
  await resizer.ready()
  await client.request('jobs.resize', { image: 7 })
  await client.request('jobs.resize', { image: 8 }).catch(() => undefined)
  await resizer.close()

  const fleet = agents(client)
  const worker = agent(client, '7', {
    run: async ({ data }, { status, signal }) => {
      const { task } = data as { task: string }
      if (task === 'fail') throw new Error('no compiler')
      if (task === 'build') return { built: true }
      status('half of it')
      return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    },
  })
  await worker.ready()
  const long = fleet.ask('7', { task: 'wait' })
  await until(() => fleet.snapshot().agents[0]?.message === 'half of it')
  const command = worker.running?.id
  await fleet.interrupt('7', { reason: 'wrong plan', ...(command !== undefined && { command }) })
  await long
  await fleet.ask('7', { task: 'build' })
  await fleet.ask('7', { task: 'fail' })
  await worker.close()
  await fleet.close()

  const shell = terminalWriter(client, '7')
  await shell.write('\u001b[32mdone\u001b[0m\r\n')
  await shell.end(0)

  const room = chat(client, 'rooms.1')
  room.send('Hello')
  await until(() => room.snapshot().messages[0]?.state === 'sent')
  await room.close()
  const keys = typing(client, 'rooms.1', { key: 'anna', name: 'Anna' })
  keys.typing()
  keys.stopped()
  await until(async () => (await client.read('rooms.1', { types: ['typing'] })).events.length === 2)
  await keys.close()

  const quiet = { debug() {}, log() {}, info() {}, warn() {}, error: (..._: unknown[]) => {} }
  const forwarded = forwardConsole(client, 'logs.page-1', { console: quiet, uncaught: false })
  quiet.error('it broke', new Error('no'))
  await forwarded.close()

  for (const [n, run] of [() => ({ ok: true }), () => Promise.reject(new Error('the model is gone'))].entries()) {
    const input = {
      threadId: `thread-${n + 1}`,
      runId: `run-${n + 1}`,
      messages: [],
      state: {},
      tools: [],
      context: [],
    }
    const { offset: at } = await client.publish('agents.model.commands', input)
    const { events } = await client.read('agents.model.commands', { after: at - 1 })
    const [asked] = events
    if (asked === undefined) throw new Error('what was published is in the log')
    await serveRun(client, asked, async (_, { emit }) => {
      if (n === 0) await emit({ type: 'TEXT_MESSAGE_CONTENT', messageId: 'm', delta: 'Hi' })
      return run()
    })
  }
}

test('the examples of the conventions are what the helpers publish', async () => {
  const client = broker.connect()
  const log = client.subscribe(['>'], { after: 'first' })
  const seen: Example[] = []
  const reading = (async () => {
    for await (const event of log) seen.push(written(event))
  })()
  await play(client)
  const { offset } = await client.publish('end', null)
  await until(() => log.cursor >= offset || seen.some(({ topic }) => topic === 'end'))
  await log.unsubscribe()
  await reading
  const fences = snippetsOf(page).filter(({ language }) => language === 'json')
  const examples = fences.filter(({ checked, code }) => !checked && code !== '').flatMap(({ code }) => eventsOf(code))
  expect(examples.length).toBeGreaterThan(30)
  const missing = examples.filter((example) => !seen.some((event) => fits(example, event)))
  expect(missing, `published was\n${seen.map((event) => JSON.stringify(event)).join('\n')}`).toEqual([])
  // Of the topics and types that it has examples of, it has all forms that were published.
  const known = (event: Example) => examples.some(({ topic, type }) => fits(topic, event.topic) && type === event.type)
  const untold = seen.filter((event) => known(event) && !examples.some((example) => sameNames(example, event)))
  expect(untold).toEqual([])
})

/** Whether the example has the same fields, whatever stands in them. */
function sameNames(example: Example, event: Example): boolean {
  const names = (value: unknown): string =>
    typeof value === 'object' && value !== null ? Object.keys(value).sort().join() : typeof value
  return fits(example.topic, event.topic) && example.type === event.type && names(example.data) === names(event.data)
}
