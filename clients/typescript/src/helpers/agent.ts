// The agent's side: it is listed, takes one command after the other, and stops when it is interrupted.
//
// - Commands wait in the durable `agent-<id>`, whatever happens to the agent; the one it died with comes again.
// - That queue has one place, which the running command has. So interrupts are also heard beside it, at once.
// - An interrupt of what waits is looked for when its turn comes: whoever was this agent then may be gone since.

import { TidingsError } from '../errors.js'
import type { AnySchema, Client, DurableOptions, Subscription, TidingsEvent } from '../types.js'
import { AGENTS, type ListedAgent, Listing } from './agent-list.js'
import { commandsOf, INTERRUPT, STATUS } from './agents.js'
import { type AnyClient, anyClient, failure, fields, given, messageOf, text, topicOf } from './data.js'
import { answerWith } from './reply.js'
import { Lifetime } from './watch.js'

/** What an agent is given with a command. */
export interface CommandContext {
  /** Aborted, with the reason, when the command is interrupted or the agent ends. */
  readonly signal: AbortSignal
  /** Says how far it is, for all to see. */
  status(message: string): void
}

/** Options of `agent`. */
export interface AgentOptions {
  /**
   * Does what a command says. What it gives is the answer, an event of type `command.done`; what it throws is one of
   * type `command.failed`, or `command.interrupted` where `signal` was aborted. It may be called twice for one command,
   * where the agent died in between: `event.attempts` says so.
   */
  run: (command: TidingsEvent, context: CommandContext) => unknown
  /**
   * What is shown of it in the list, with its id within 1 KiB of JSON. Agents of one client are listed together and share
   * that; while one is added or goes the others are out of the list for a moment.
   */
  data?: unknown
  /** Where answers may go: filters. Default `['replies.>']`. */
  replyTopics?: readonly string[]
  /**
   * How its queue is made; see `subscribe`. Default `order: 'priority'`, from the first. What an agent died with
   * comes again at once where it had a socket or a stream, and after `ackWaitMs` where it polled; to one that lives and
   * takes longer than that it is not given twice.
   */
  queue?: Omit<DurableOptions, 'ack' | 'durable' | 'maxInFlight' | 'signal'> & {
    /** The name of the queue. Default `agent-<id>`. */
    durable?: string
  }
  /** Told of what fails beside the commands: answers and statuses that could not be published, a list that refuses. */
  onError?: (error: TidingsError) => void
  /** Ends it. */
  signal?: AbortSignal
}

/** An agent that is at work. */
export interface Agent {
  /** The agent: it hears on `agents.<id>.commands`. */
  readonly id: string
  /** The command it works at. */
  readonly running: TidingsEvent | undefined
  /** Resolved when it is listed and its queue is open. */
  ready(): Promise<void>
  /** Says what it does, for all to see. */
  status(status: string, message?: string): void
  /** Takes no more, aborts what runs and waits for it. The command is not acknowledged and comes again. */
  close(): Promise<void>
}

/**
 * Makes this client the agent `id`. It is listed over sockets only.
 *
 * ```ts
 * agent(client, '7', { run: async (command, { signal }) => build(command.data, signal) })
 * ```
 */
export function agent<S = AnySchema>(client: Client<S>, id: string, options: AgentOptions): Agent {
  return new Worker(anyClient(client), id, options)
}

class Worker implements Agent {
  readonly id: string
  readonly #client: AnyClient
  readonly #topic: string
  readonly #options: AgentOptions
  readonly #life: Lifetime
  readonly #queue: Subscription
  readonly #listing: Listing
  readonly #interrupts: Subscription
  #now: { event: TidingsEvent; abort: AbortController } | undefined
  #working: Promise<unknown> | undefined
  #toSay: object | undefined
  #saying = false
  /** Commands up to here are not wanted any more. */
  #cleared = 0

  constructor(client: AnyClient, id: string, options: AgentOptions) {
    this.id = id
    this.#client = client
    this.#topic = topicOf(AGENTS, id)
    this.#options = options
    this.#life = new Lifetime(options.signal)
    const commands = commandsOf(id)
    const listed: ListedAgent = { id, data: options.data, failed: (error) => this.#failed(error) }
    this.#listing = Listing.of(client)
    this.#listing.add(listed)
    this.#interrupts = client.subscribe(commands, { types: [INTERRUPT] }, (event) => this.#interrupt(event))
    const wish = {
      order: 'priority',
      start: 'first',
      durable: `agent-${id}`,
      ...options.queue,
    } as const
    this.#queue = client.subscribe(commands, { ...wish, maxInFlight: 1, ack: 'manual' }, (event) => {
      return this.#take(event).catch((error: unknown) => this.#failed(error))
    })
    this.#life.add(async () => {
      this.#now?.abort.abort(new TidingsError('closed', 'the agent ends'))
      await this.#working
      await Promise.all([this.#queue.unsubscribe(), this.#interrupts.unsubscribe(), this.#listing.remove(listed)])
    })
  }

  get running(): TidingsEvent | undefined {
    return this.#now?.event
  }

  async ready(): Promise<void> {
    await Promise.all([this.#listing.ready(), this.#interrupts.ready(), this.#queue.ready()])
  }

  status(status: string, message?: string): void {
    this.#toSay = given({ status, message, command: this.#now?.event.id })
    if (!this.#saying) void this.#say()
  }

  close(): Promise<void> {
    return this.#life.close()
  }

  /** One status is on its way at a time, and behind it the newest: on a slow line, or without one, those between go. */
  async #say(): Promise<void> {
    this.#saying = true
    while (this.#toSay !== undefined) {
      const data = this.#toSay
      this.#toSay = undefined
      const said = this.#client.publish(this.#topic, data, { type: STATUS, key: 'status' })
      await said.catch((error: unknown) => this.#failed(error))
    }
    this.#saying = false
  }

  async #take(event: TidingsEvent): Promise<void> {
    if (this.#life.closed) return
    if (event.type === INTERRUPT) {
      this.#interrupt(event)
      return this.#queue.ack(event)
    }
    const abort = new AbortController()
    this.#now = { event, abort }
    if (await this.#wasInterrupted(event)) abort.abort(interrupted(undefined))
    const working = this.#run(event, abort.signal)
    this.#working = working
    const outcome = await working
    this.#now = undefined
    // It is not done: whoever is this agent next does it.
    if (this.#life.closed) return
    await answerWith(this.#client, event, outcome, this.#options.replyTopics).catch((error: unknown) =>
      this.#failed(error),
    )
    this.status('idle')
    await this.#queue.ack(event)
  }

  async #run(event: TidingsEvent, signal: AbortSignal): Promise<{ type: string; data: unknown }> {
    const stopped = () => ({ type: 'command.interrupted', data: { message: messageOf(signal.reason) } })
    if (signal.aborted) return stopped()
    this.status('busy')
    try {
      const data = await this.#options.run(event, { signal, status: (message) => this.status('busy', message) })
      return { type: 'command.done', data }
    } catch (cause) {
      if (signal.aborted) return stopped()
      const code = cause instanceof TidingsError ? cause.code : 'internal'
      return { type: 'command.failed', data: { code, message: messageOf(cause) } }
    }
  }

  /** Stops what runs, if it was sent before. */
  #interrupt(event: TidingsEvent): void {
    const { command, all, reason } = fields(event.data)
    if (all === true) this.#cleared = Math.max(this.#cleared, event.offset)
    const now = this.#now
    if (now === undefined || now.event.offset > event.offset) return
    if (text(command) !== undefined && command !== now.event.id) return
    now.abort.abort(interrupted(text(reason)))
  }

  /** Whether somebody has interrupted it while it waited: by its id, or with all; or as what ran, when the agent died. */
  async #wasInterrupted(event: TidingsEvent): Promise<boolean> {
    if (event.offset < this.#cleared) return true
    try {
      const { events } = await this.#client.read(event.topic, { after: event.offset, types: [INTERRUPT], limit: 1_000 })
      return events.some(({ data }) => {
        const { command, all } = fields(data)
        return text(command) === event.id || all === true || (command === undefined && event.attempts > 1)
      })
    } catch (error) {
      this.#failed(error)
      return false
    }
  }

  #failed(error: unknown): void {
    if (!this.#life.closed) this.#options.onError?.(failure(error))
  }
}

function interrupted(reason: string | undefined): TidingsError {
  return new TidingsError('aborted', reason ?? 'the command was interrupted')
}
