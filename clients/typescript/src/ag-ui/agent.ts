// An agent of AG-UI behind tidings: its runs are in the log, so that they outlive connections, tabs and reloads.

import { AbstractAgent, type AgentConfig, type BaseEvent, EventType, type RunAgentInput } from '@ag-ui/client'
import { Observable } from 'rxjs'
import { TidingsError } from '../errors.js'
import type { AnySchema, Client, SavedCursor, Subscription, TidingsEvent } from '../types.js'
import { memoryRuns, type RunStore, type StoredRun } from './runs.js'

/** The client of AG-UI brings an rxjs of its own, whose types are others than those of the same class here. */
type Run = ReturnType<AbstractAgent['run']>

/** A run that is followed here. */
interface Followed {
  id: string
  /** Ends it here. */
  abort: () => void
  timer?: ReturnType<typeof setTimeout>
}

/** Options of `TidingsAgent`. */
export interface TidingsAgentConfig<S = AnySchema> extends AgentConfig {
  /** What it speaks through. The program closes it. */
  client: Client<S>
  /** The agent that does the runs: `agents.<agent>.commands` is where they are asked for. */
  agent: string
  /** Where the last run of each thread is kept. Default in memory; `localRuns()` survives a reload. */
  runs?: RunStore
  /** How long after `abortRun` the agent may take to end the run itself. Default 5,000. */
  abortMs?: number
}

/**
 * An agent whose runs survive reloads: `runAgent` asks for a run by a command, and gives its events from `runs.<runId>`.
 * After a reload `connectAgent` finds the last run of the thread and gives it from its beginning; where it goes on, it
 * ends when the run does. Messages and state that the program has kept meanwhile are set back to before it first.
 */
export class TidingsAgent extends AbstractAgent {
  #config: { client: Client; agent: string; runs: RunStore; abortMs: number }
  #run: Followed | undefined

  /** An agent that speaks through `client`; `agentId` is the name of the agent unless the config says another. */
  constructor({ client, agent, runs = memoryRuns(), abortMs = 5_000, ...config }: TidingsAgentConfig<never>) {
    super({ agentId: agent, ...config })
    this.#config = { client: client as unknown as Client, agent, runs, abortMs }
  }

  /** Asks for a run and gives its events. For the class above it: a program calls `runAgent`. */
  run(input: RunAgentInput): Run {
    return this.#follow(input.runId, async (subscribe) => {
      // The place before the first event is known before the run is asked for.
      const subscription = subscribe('now')
      await subscription.ready()
      const { log, cursor } = subscription.saved ?? { log: '', cursor: 0 }
      const { runId, messages, state } = input
      const run: StoredRun = { runId, log, cursor, messageIds: messages.map(({ id }) => id), state }
      this.#config.runs.set(input.threadId, { ...run, unsent: input })
      await this.#ask(input)
      this.#config.runs.set(input.threadId, run)
    })
  }

  protected override connect(input: RunAgentInput): Run {
    const run = this.#config.runs.get(input.threadId)
    if (run === undefined) return new Observable((observer) => observer.complete()) as unknown as Run
    return this.#follow(run.runId, async (subscribe) => {
      subscribe({ log: run.log, cursor: run.cursor })
      if (run.unsent === undefined) return
      await this.#ask(run.unsent)
      const { unsent: _, ...sent } = run
      this.#config.runs.set(input.threadId, sent)
    })
  }

  /** Finds the last run of the thread again and follows it; nothing comes where there was none. */
  override connectAgent(...args: Parameters<AbstractAgent['connectAgent']>): ReturnType<AbstractAgent['connectAgent']> {
    const run = this.#config.runs.get(this.threadId)
    if (run !== undefined) {
      const before = new Set(run.messageIds)
      this.messages = this.messages.filter(({ id }) => before.has(id))
      this.state = run.state as typeof this.state
    }
    return super.connectAgent(...args)
  }

  /** Asks the agent to stop. Where it does not say that it has, the run is over here after `abortMs`. */
  override abortRun(): void {
    const run = this.#run
    if (run === undefined) return
    const control = `operations.${run.id}.control`
    // The agent may be beyond hearing: the run ends here all the same.
    this.#config.client.publish(control, {}, { type: 'operation.cancel' }).catch(() => undefined)
    run.timer ??= setTimeout(run.abort, this.#config.abortMs)
  }

  /** Another agent of the same thread, with the same client and store of runs. */
  override clone(): TidingsAgent {
    const clone = super.clone() as TidingsAgent
    // What the other one needs and `Object.create` does not give it.
    return Object.assign(new TidingsAgent({ ...this.#config, client: this.#config.client as Client<never> }), clone)
  }

  #ask(input: RunAgentInput): Promise<unknown> {
    const { client, agent } = this.#config
    const { runId } = input
    return client.publish(`agents.${agent}.commands`, input, {
      id: `run:${runId}`,
      type: 'command.run',
      correlation: runId,
    })
  }

  #follow(runId: string, begin: (subscribe: (after: 'now' | SavedCursor) => Subscription) => Promise<void>): Run {
    return new Observable<BaseEvent>((observer) => {
      let subscription: Subscription | undefined
      const end = (error?: unknown) => (error === undefined ? observer.complete() : observer.error(error))
      const abort = () => {
        observer.next({ type: EventType.RUN_ERROR, message: 'the run was aborted', code: 'aborted' } as BaseEvent)
        end()
      }
      const take = (event: TidingsEvent) => {
        const base = { ...(event.data as object | undefined), type: event.type } as BaseEvent
        // Two runs cannot be mixed: what is not of AG-UI on the topic is somebody else's.
        if (!Object.hasOwn(EventType, event.type)) return
        observer.next(base)
        if (base.type === EventType.RUN_FINISHED || base.type === EventType.RUN_ERROR) end()
      }
      const subscribe = (after: 'now' | SavedCursor) => {
        const made = this.#config.client.subscribe(`runs.${runId}`, { after }, take)
        made.on('gap', (gap) => end(new TidingsError('offset_gone', `events of the run are gone: ${gap.reason}`)))
        made.on('state', () => made.state === 'closed' && made.error !== undefined && end(made.error))
        subscription = made
        return made
      }
      const run: Followed = { id: runId, abort }
      this.#run = run
      begin(subscribe).catch(end)
      return () => {
        clearTimeout(run.timer)
        if (this.#run === run) this.#run = undefined
        void subscription?.unsubscribe()
      }
    }) as unknown as Run
  }
}
