// `useSubscription`: a subscription as long as a component is mounted.

import { useInsertionEffect, useRef, useState } from 'react'
import type { TidingsError } from '../errors.js'
import type {
  Client,
  DurableOptions,
  EphemeralOptions,
  EventHandler,
  Gap,
  SubscribeOptions,
  Subscription,
  SubscriptionState,
} from '../types.js'
import { Listeners, type Source, useShared } from './shared.js'

/** How a subscription stands. */
export interface SubscriptionView {
  /** Where the subscription stands. */
  readonly state: SubscriptionState
  /** Everything up to and including this offset has been handed over and is done. */
  readonly cursor: number
  /** Whether all that was there has been handed over once. */
  readonly caughtUp: boolean
  /** The last gap; `undefined` where no event was missed. */
  readonly gap: Gap | undefined
  /** Why it is closed, or what the handler threw last. */
  readonly error: TidingsError | undefined
}

const before: SubscriptionView = { state: 'subscribing', cursor: 0, caughtUp: false, gap: undefined, error: undefined }
const none: SubscriptionView = { ...before, state: 'closed' }

/** A subscription as a source of how it stands. */
export class SubscriptionSource<Data> implements Source<SubscriptionView> {
  #gap: Gap | undefined
  #error: TidingsError | undefined
  #view: SubscriptionView | undefined
  #listeners = new Listeners()
  readonly subscription: Subscription<Data>
  readonly subscribe = this.#listeners.subscribe

  constructor(
    client: Client,
    filter: string | readonly string[],
    options: SubscribeOptions,
    handler: EventHandler<Data>,
  ) {
    this.subscription = client.subscribe(filter, options, (event, subscription) => {
      const result = handler(event as Parameters<EventHandler<Data>>[0], subscription as Subscription<Data>)
      // The cursor moves when the handler is done.
      if (result instanceof Promise) return result.finally(this.#changed)
      this.#changed()
      return result
    }) as Subscription<Data>
    this.subscription.on('state', this.#changed)
    this.subscription.on('caught_up', this.#changed)
    this.subscription.on('acked', this.#changed)
    this.subscription.on('superseded', this.#changed)
    this.subscription.on('gap', (gap) => {
      this.#gap = gap
      this.#changed()
    })
    this.subscription.on('error', (error) => {
      this.#error = error
      this.#changed()
    })
  }

  snapshot(): SubscriptionView {
    const { state, cursor, caughtUp, error } = this.subscription
    this.#view ??= { state, cursor, caughtUp, gap: this.#gap, error: error ?? this.#error }
    return this.#view
  }

  close(): Promise<void> {
    return this.subscription.unsubscribe()
  }

  readonly #changed = (): void => {
    this.#view = undefined
    this.#listeners.tell()
  }
}

let components = 0

/**
 * Subscribes as long as the component is mounted, and hands every event to `handler`: always the handler of the last
 * render. What it gives says how the subscription stands, at most once a frame. With other filters or options it
 * subscribes anew; `filter` `null` is no subscription.
 */
export function useSubscription<Data = unknown>(
  filter: string | readonly string[] | null,
  options: Omit<EphemeralOptions, 'signal'> | Omit<DurableOptions, 'signal'> = {},
  handler?: EventHandler<Data>,
): SubscriptionView {
  // Its handler is its own, so the subscription is not shared with other components.
  const [component] = useState(() => ++components)
  const latest = useRef(handler)
  useInsertionEffect(() => {
    latest.current = handler
  })
  const [view] = useShared(
    filter === null ? null : JSON.stringify(['subscription', component, filter, options]),
    (client) =>
      new SubscriptionSource<Data>(client, filter ?? [], options, (event, subscription) =>
        latest.current?.(event, subscription),
      ),
    filter === null ? none : before,
  )
  return view
}
