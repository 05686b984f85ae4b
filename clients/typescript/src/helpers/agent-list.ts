// What stands in the list of agents. The list has one entry of a session, so that the agents of one client are in it
// together: the first as if it were alone, and the `others` beside it.

import type { Member, Subscription } from '../types.js'
import { type AnyClient, fields, given, text } from './data.js'

/** Where agents are listed. */
export const AGENTS = 'agents'

/** An agent that is to be listed. */
export interface ListedAgent {
  readonly id: string
  readonly data: unknown
  /** Told where the list does not take it. */
  failed(error: unknown): void
}

/** The agents of these members by id, with what they say of themselves. */
export function listedAgents(members: readonly Member<unknown>[]): Map<string, { since: string; data: unknown }> {
  const found = new Map<string, { since: string; data: unknown }>()
  for (const { since, data: all } of members) {
    const { others } = fields(all)
    for (const one of [all, ...(Array.isArray(others) ? others : [])]) {
      const { agent, data } = fields(one)
      const id = text(agent)
      if (id !== undefined) found.set(id, { since, data })
    }
  }
  return found
}

const listings = new WeakMap<AnyClient, Listing>()

/** The entry of a client in the list. */
export class Listing {
  readonly #client: AnyClient
  readonly #agents = new Set<ListedAgent>()
  #listed: Subscription | undefined
  #shown: string | undefined
  #changing: Promise<void> = Promise.resolve()

  private constructor(client: AnyClient) {
    this.#client = client
  }

  static of(client: AnyClient): Listing {
    const listing = listings.get(client) ?? new Listing(client)
    listings.set(client, listing)
    return listing
  }

  add(agent: ListedAgent): void {
    this.#agents.add(agent)
    this.#change()
  }

  /** Resolved when it is out of the list. */
  async remove(agent: ListedAgent): Promise<void> {
    this.#agents.delete(agent)
    await this.#change()
  }

  /** Resolved when all of them are listed. */
  async ready(): Promise<void> {
    for (;;) {
      await this.#changing
      const listed = this.#listed
      try {
        return await listed?.ready()
      } catch (error) {
        // It was given up for another, which is waited for.
        if (listed === this.#listed) throw error
      }
    }
  }

  /** One change after the other; those that are made in one go are one. */
  #change(): Promise<void> {
    this.#changing = this.#changing.then(() => this.#list()).catch((error) => this.#failed(error))
    return this.#changing
  }

  async #list(): Promise<void> {
    const [first, ...others] = [...this.#agents].map(({ id, data }) => given({ agent: id, data }))
    const data = first && given({ ...first, others: others.length > 0 ? others : undefined })
    const shown = JSON.stringify(data)
    if (shown === this.#shown) return
    this.#shown = shown
    const before = this.#listed
    this.#listed = undefined
    // A session is listed with one data at a time.
    await before?.unsubscribe()
    if (data === undefined) return
    // Its events are for others: a type that nobody uses keeps them away.
    const listed = this.#client.subscribe(AGENTS, { presence: { data }, types: ['presence.none'] }, () => undefined)
    listed.on('error', (error) => this.#failed(error))
    this.#listed = listed
  }

  #failed(error: unknown): void {
    for (const agent of this.#agents) agent.failed(error)
  }
}
