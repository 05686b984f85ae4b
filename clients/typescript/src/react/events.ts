// `useEvents` and `useLatest`: the newest events as a list, bounded, rendered at most once a frame.

import type { TidingsError } from '../errors.js'
import type { Client, EphemeralOptions, TidingsEvent } from '../types.js'
import { Listeners, type Source, useShared } from './shared.js'
import { SubscriptionSource } from './subscription.js'

/** Options of `useEvents` and `useLatest`. */
export interface EventsOptions extends Omit<EphemeralOptions, 'signal'> {
  /** The most events that are kept; the oldest go. Default 200 for `useEvents`, 1,000 for `useLatest`. */
  limit?: number
}

/** A list of events, which says too what has become of it. */
export interface EventList<Data = unknown> extends ReadonlyArray<TidingsEvent<Data>> {
  /** Why nothing more comes, as where the filter was refused; `undefined` while all is well. */
  readonly error: TidingsError | undefined
}

const listOf = <Data>(events: TidingsEvent<Data>[], error: TidingsError | undefined): EventList<Data> =>
  Object.assign(events, { error })
const empty = listOf<never>([], undefined)

/** Keeps events and lists them. */
interface Keeper<Data> {
  add(event: TidingsEvent<Data>): void
  /** A new list of them. */
  list(): TidingsEvent<Data>[]
  clear(): void
}

class EventsSource<Data> implements Source<EventList<Data>> {
  #list: EventList<Data> | undefined
  #error: TidingsError | undefined
  #listeners = new Listeners()
  #subscription: SubscriptionSource<Data>
  readonly subscribe = this.#listeners.subscribe

  constructor(
    client: Client,
    filter: string | readonly string[],
    options: EphemeralOptions,
    private readonly keeper: Keeper<Data>,
  ) {
    this.#subscription = new SubscriptionSource<Data>(client, filter, options, (event) => {
      keeper.add(event)
      this.#changed()
    })
    this.#subscription.subscription.on('gap', (gap) => {
      if (gap.reason !== 'log_changed') return
      // Another log: its offsets begin anew, and what was here is not part of it.
      keeper.clear()
      this.#changed()
    })
    this.#subscription.subscription.on('error', (error) => {
      this.#error = error
      this.#changed()
    })
  }

  snapshot(): EventList<Data> {
    this.#list ??= listOf(this.keeper.list(), this.#error)
    return this.#list
  }

  close(): Promise<void> {
    return this.#subscription.close()
  }

  #changed(): void {
    this.#list = undefined
    this.#listeners.tell()
  }
}

/** The newest `limit` events, oldest first. Cut at twice the limit, so that an event costs the same at any length. */
function newest<Data>(limit: number): Keeper<Data> {
  let events: TidingsEvent<Data>[] = []
  return {
    add(event) {
      events.push(event)
      if (events.length >= 2 * limit) events = events.slice(-limit)
    },
    list: () => events.slice(-limit),
    clear() {
      events = []
    },
  }
}

/** The newest event of every topic and key, in the order in which they were first seen. */
function lastPerKey<Data>(limit: number): Keeper<Data> {
  const events = new Map<string, TidingsEvent<Data>>()
  return {
    add(event) {
      events.set(`${event.topic} ${event.key ?? ''}`, event)
      if (events.size <= limit) return
      for (const first of events.keys()) {
        events.delete(first)
        break
      }
    },
    list: () => [...events.values()],
    clear: () => events.clear(),
  }
}

function useList<Data>(
  kind: string,
  filter: string | readonly string[] | null,
  { limit, ...options }: EventsOptions & { limit: number },
  keep: (limit: number) => Keeper<Data>,
): EventList<Data> {
  const most = Math.max(1, Math.floor(limit))
  const [list] = useShared<EventList<Data>, EventsSource<Data>>(
    filter === null ? null : JSON.stringify([kind, most, filter, options]),
    (client) => new EventsSource<Data>(client, filter ?? [], options, keep(most)),
    empty,
  )
  return list
}

/**
 * The newest events that match, oldest first, of those that come from now on, or from `after` on: 200 unless `limit` says
 * otherwise. Components with the same filter and options have one subscription, and with others there is another: an
 * `after` that is computed (a `Date`) is computed once, by `useState`. `filter` `null` gives none. Where the
 * filter is refused, `error` of the list says why.
 */
export function useEvents<Data = unknown>(
  filter: string | readonly string[] | null,
  options: EventsOptions = {},
): EventList<Data> {
  return useList<Data>('events', filter, { ...options, limit: options.limit ?? 200 }, newest)
}

/**
 * The newest event of every topic and key that match, in the order in which they were first seen: first what the log
 * has, then what comes. Where there are more than `limit` (1,000), those seen first go.
 */
export function useLatest<Data = unknown>(
  filter: string | readonly string[] | null,
  options: EventsOptions = {},
): EventList<Data> {
  const { limit = 1_000, lastPerKey: newestOnly = true } = options
  return useList<Data>('latest', filter, { ...options, limit, lastPerKey: newestOnly }, lastPerKey)
}
