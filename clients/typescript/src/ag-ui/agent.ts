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
  /** Whether the agent has been asked to do it: before that there is nothing to stop. */
  asked: boolean
  /** Whether it has ended here. */
  over: boolean
  /** Ends it here. */
  abort: () => void
  timer?: ReturnType<typeof setTimeout>
}

type Subscribe = (after: 'now' | SavedCursor) => Subscription

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
  /** Whether the run that is about to begin was aborted. */
  #early = false

  /** An agent that speaks through `client`; `agentId` is the name of the agent unless the config says another. */
  constructor({ client, agent, runs = memoryRuns(), abortMs = 5_000, ...config }: TidingsAgentConfig<never>) {
    super({ agentId: agent, ...config })
    this.#config = { client: client as unknown as Client, agent, runs, abortMs }
  }

  /** Asks for a run and gives its events. For the class above it: a program calls `runAgent`. */
  run(input: RunAgentInput): Run {
    return this.#follow(input.runId, (subscribe, followed) => this.#begin(input, subscribe, followed))
  }

  async #begin(input: RunAgentInput, subscribe: Subscribe, followed: Followed): Promise<void> {
    const { runs } = this.#config
    const { runId, threadId, messages, state } = input
    const run: StoredRun = { runId, log: '', cursor: 0, messageIds: messages.map(({ id }) => id), state }
    // A page that is loaded anew before there is a connection begins it once more.
    runs.set(threadId, { ...run, unsent: input })
    // The place before the first event is known before the run is asked for.
    const subscription = subscribe('now')
    await subscription.ready().catch((error: unknown) => {
      if (!followed.over) throw error
    })
    if (followed.over) return runs.set(threadId, run)
    const sent = { ...run, ...subscription.saved }
    runs.set(threadId, { ...sent, unsent: input })
    followed.asked = true
    await this.#ask(input)
    runs.set(threadId, sent)
  }

  protected override connect(input: RunAgentInput): Run {
    const run = this.#config.runs.get(input.threadId)
    // One that was aborted before it was asked for has no place.
    if (run === undefined || (run.log === '' && run.unsent === undefined))
      return new Observable((observer) => observer.complete()) as unknown as Run
    return this.#follow(run.runId, async (subscribe, followed) => {
      const { unsent, ...sent } = run
      if (unsent !== undefined && run.log === '') return this.#begin(unsent, subscribe, followed)
      subscribe({ log: run.log, cursor: run.cursor })
      followed.asked = true
      if (unsent === undefined) return
      await this.#ask(unsent)
      this.#config.runs.set(input.threadId, sent)
    })
  }

  /** Asks for a run as the class above it does; an `abortRun` that came before it counts for no more. */
  override runAgent(...args: Parameters<AbstractAgent['runAgent']>): ReturnType<AbstractAgent['runAgent']> {
    this.#early = false
    return super.runAgent(...args)
  }

  /** Finds the last run of the thread again and follows it; nothing comes where there was none. */
  override async connectAgent(
    ...args: Parameters<AbstractAgent['connectAgent']>
  ): ReturnType<AbstractAgent['connectAgent']> {
    const run = this.#config.runs.get(this.threadId)
    const { messages, state } = this
    this.#early = false
    if (run !== undefined) {
      const before = new Set(run.messageIds)
      this.messages = messages.filter(({ id }) => before.has(id))
      this.state = run.state as typeof this.state
    }
    try {
      return await super.connectAgent(...args)
    } catch (error) {
      // Nothing takes the place of what the program has kept.
      if (error instanceof TidingsError && error.code === 'offset_gone') Object.assign(this, { messages, state })
      throw error
    }
  }

  /** Asks the agent to stop. Where it does not say that it has, the run is over here after `abortMs`. */
  override abortRun(): void {
    const run = this.#run
    // It is said to run before it is asked for its events.
    if (run === undefined) {
      this.#early = this.isRunning
      return
    }
    if (!run.asked) return run.abort()
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

  #follow(runId: string, begin: (subscribe: Subscribe, followed: Followed) => Promise<void>): Run {
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
      const run: Followed = { id: runId, asked: false, over: false, abort }
      this.#run = run
      if (this.#early) abort()
      else begin(subscribe, run).catch(end)
      return () => {
        run.over = true
        clearTimeout(run.timer)
        if (this.#run === run) this.#run = undefined
        void subscription?.unsubscribe()
      }
    }) as unknown as Run
  }
}
