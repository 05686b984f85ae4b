// The agent's side of AG-UI: does a run that was asked for, and says what it does on `runs.<runId>`.

import { EventType, type RunAgentInput } from '@ag-ui/client'
import { TidingsError } from '../errors.js'
import type { AnySchema, Client, TidingsEvent } from '../types.js'

/** What a run is given. */
export interface RunContext {
  /** Says what happens: an event of AG-UI but for `RUN_STARTED`, `RUN_FINISHED` and `RUN_ERROR`, which say themselves. */
  emit(event: { type: EventType | `${EventType}`; [name: string]: unknown }): Promise<void>
  /** Aborted when somebody aborts the run, or `signal` of the options is. */
  readonly signal: AbortSignal
}

/** Options of `serveRun`. */
export interface ServeRunOptions {
  /** Aborts the run. */
  signal?: AbortSignal
}

/**
 * Does the run of a command that a `TidingsAgent` has sent. What `run` gives is the result of the run, what it throws its
 * error. For use in `agent(client, id, { run })`. A run that an agent died with is ended with an error: nobody knows
 * what it would have said.
 */
export async function serveRun<S = AnySchema>(
  client: Client<S>,
  command: TidingsEvent,
  run: (input: RunAgentInput, context: RunContext) => unknown,
  options: ServeRunOptions = {},
): Promise<void> {
  const any = client as unknown as Client
  const input = command.data as RunAgentInput
  const { runId, threadId } = input ?? {}
  if (typeof runId !== 'string' || typeof threadId !== 'string')
    throw new TidingsError('invalid_argument', 'the command asks for no run')
  const topic = `runs.${runId}`
  const abort = new AbortController()
  const stop = () => abort.abort(new TidingsError('aborted', 'the run was aborted'))
  if (options.signal?.aborted) stop()
  else options.signal?.addEventListener('abort', stop, { once: true })
  // A client publishes in the order of the calls: no chunk overtakes another.
  const say = async (type: string, data: object): Promise<void> =>
    void (await any.publish(topic, data, { type, correlation: runId }))
  const control = any.subscribe(
    `operations.${runId}.control`,
    { after: command.offset, types: ['operation.cancel'] },
    stop,
  )
  try {
    if (command.attempts > 1) {
      if (await said(any, topic, ['RUN_FINISHED', 'RUN_ERROR'])) return
      if (await said(any, topic))
        return await say(EventType.RUN_ERROR, { message: 'the agent was interrupted', code: 'interrupted' })
    }
    await say(EventType.RUN_STARTED, { threadId, runId })
    const emit: RunContext['emit'] = ({ type, ...data }) => say(type, data)
    const result = await run(input, { emit, signal: abort.signal })
    await say(EventType.RUN_FINISHED, { threadId, runId, ...(result !== undefined && { result }) })
  } catch (error) {
    const aborted = abort.signal.aborted
    const message = aborted ? 'the run was aborted' : error instanceof Error ? error.message : String(error)
    await say(EventType.RUN_ERROR, { message, ...(aborted && { code: 'aborted' }) })
  } finally {
    options.signal?.removeEventListener('abort', stop)
    await control.unsubscribe()
  }
}

/** Whether something of these types is there, however much of others. */
async function said(client: Client, topic: string, types?: string[]): Promise<boolean> {
  for (let after = 0; ; ) {
    const { events, cursor, last } = await client.read(topic, { after, limit: 1, ...(types && { types }) })
    if (events.length > 0) return true
    if (cursor >= last || cursor <= after) return false
    after = cursor
  }
}
