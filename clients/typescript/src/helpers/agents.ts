// The dashboard's side of agents: who is there, what they do, and what they are told to do.

import type { TidingsError } from '../errors.js'
import type { AnySchema, Client, Published, PublishOptions, RequestOptions, TidingsEvent } from '../types.js'
import { AGENTS, listedAgents } from './agent-list.js'
import { anyClient, fields, given, text, topicOf } from './data.js'
import { members } from './members.js'
import { Lifetime, Store, type Watched, type WatchOptions } from './watch.js'

/** The types of what an agent is told. */
export const RUN = 'command.run'
export const INTERRUPT = 'command.interrupt'
/** The type of what an agent says of itself, on `agents.<id>` with the key `status`. */
export const STATUS = 'agent.status'

/** An agent as a dashboard sees it. */
export interface AgentInfo<Data = unknown> {
  /** The agent: commands for it go to `agents.<id>.commands`. */
  readonly id: string
  /** Whether it is listed: connected, or away for so short that it is expected back. */
  readonly online: boolean
  /** Since when, RFC 3339; `undefined` while it is not. */
  readonly since: string | undefined
  /** What it says of itself in the list. */
  readonly data: Data | undefined
  /** What it does: `idle`, `busy`, or what the program says. */
  readonly status: string | undefined
  /** What it said with its status. */
  readonly message: string | undefined
  /** The id of the command it works at. */
  readonly command: string | undefined
  /** When it said so, RFC 3339. */
  readonly statusAt: string | undefined
}

/** Agents as they stand. */
export interface AgentsSnapshot<Data = unknown> {
  /** By id. */
  readonly agents: readonly AgentInfo<Data>[]
  /** Whether the list is whole. */
  readonly ready: boolean
  /** Why nothing more will come; `undefined` while all is well. */
  readonly error: TidingsError | undefined
}

/** Options of `agents`. */
export interface AgentsOptions extends WatchOptions {
  /** The most agents that are kept. Default 1,000; those that are not there go first. */
  max?: number
}

/** What an interrupt stops. */
export interface InterruptOptions {
  /** Why. */
  reason?: string
  /** Only this command, by the id of its event. Default: the one that the agent works at. */
  command?: string
  /** All commands that were sent before too, which the agent has not begun. Default `false`. */
  all?: boolean
}

/** Follows agents and tells them what to do. */
export interface Agents<Data = unknown> extends Watched<AgentsSnapshot<Data>> {
  /** Sends a command, which waits until the agent takes it, also while it is away. Its id names the command. */
  command(agent: string, data?: unknown, options?: PublishOptions): Promise<Published>
  /** Sends a command and waits for what comes of it. `no_reply` where nothing did in time. */
  ask<Answer = unknown>(agent: string, data?: unknown, options?: RequestOptions): Promise<TidingsEvent<Answer>>
  /** Stops what the agent works at. It overtakes all commands that wait. */
  interrupt(agent: string, options?: InterruptOptions): Promise<Published>
}

interface Said {
  status: string | undefined
  message: string | undefined
  command: string | undefined
  at: string
}

/** Follows all agents that this client may see: their presence on `agents`, their `agent.status` on `agents.<id>`. */
export function agents<Data = unknown, S = AnySchema>(client: Client<S>, options: AgentsOptions = {}): Agents<Data> {
  const any = anyClient(client)
  const life = new Lifetime(options.signal)
  const max = options.max ?? 1_000
  const list = members(any, AGENTS, { max, notifyMs: 0 })
  const said = new Map<string, Said>()
  const sub = any.subscribe('agents.*', { types: [STATUS], lastPerKey: true }, (event) => {
    const id = event.topic.slice(AGENTS.length + 1)
    const { status, message, command } = fields(event.data)
    said.delete(id)
    said.set(id, { status: text(status), message: text(message), command: text(command), at: event.time })
    // Not for each of them: to find out who is not there costs a look at all.
    if (said.size > max + 100) forget()
    store.changed()
  })
  const forget = () => {
    const here = listedAgents(list.snapshot().members)
    for (const id of said.keys()) {
      if (said.size <= max) return
      if (!here.has(id)) said.delete(id)
    }
    for (const id of said.keys()) {
      if (said.size <= max) return
      said.delete(id)
    }
  }
  const build = (): AgentsSnapshot<Data> => {
    const { members: present, ready, error } = list.snapshot()
    const here = listedAgents(present)
    // Where there is no room those go that are not there, and of them who has been silent for longest.
    const known = new Set([...here.keys(), ...[...said.keys()].reverse()])
    const ids = [...known].slice(0, max)
    return {
      agents: ids.sort().map((id) => infoOf<Data>(id, here.get(id), said.get(id))),
      ready,
      error: error ?? sub.error,
    }
  }
  const store = new Store(build, options.notifyMs)
  sub.on('gap', (gap) => {
    if (gap.reason === 'log_changed') said.clear()
    store.changed()
  })
  sub.on('state', () => store.changed())
  life.add(list.subscribe(() => store.changed()))
  life.add(() => list.close())
  life.add(() => sub.unsubscribe())
  life.add(() => store.flush())
  return {
    snapshot: store.snapshot,
    subscribe: store.subscribe,
    close: life.close,
    command: (agent, data, more) => any.publish(commandsOf(agent), data, { type: RUN, ...more }),
    ask: (agent, data, more) => any.request(commandsOf(agent), data, { type: RUN, ...more }),
    interrupt: (agent, { reason, command, all } = {}) =>
      any.publish(commandsOf(agent), given({ reason, command, all }), { type: INTERRUPT, priority: 'urgent' }),
  }
}

/** Where an agent is told what to do. */
export function commandsOf(agent: string): string {
  return topicOf(AGENTS, `${agent}.commands`)
}

function infoOf<Data>(
  id: string,
  listed: { since: string; data: unknown } | undefined,
  said: Said | undefined,
): AgentInfo<Data> {
  return {
    id,
    online: listed !== undefined,
    since: listed?.since,
    data: listed?.data as Data | undefined,
    status: said?.status,
    message: said?.message,
    command: said?.command,
    statusAt: said?.at,
  }
}
