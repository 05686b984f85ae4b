// A subscription as a store of zustand: a state, and a function of the state and the next event.

import { createStore, type StoreApi } from 'zustand/vanilla'
import type { After, AnySchema, Client, DataOf, EphemeralOptions, Gap, TidingsEvent } from '../types.js'

/** Options of `tidingsStore`. */
export interface TidingsStoreOptions<State> extends Omit<EphemeralOptions, 'durable' | 'after'> {
  /**
   * Where it begins. Default `first`; with `lastPerKey` at the newest of every key; with `key` at the saved place, and at
   * what is to come where there is none.
   */
  after?: After
  /** The state before the first event. */
  initial: State
  /**
   * The state is set at once for a first event, and once for those that follow within so many milliseconds. Default 16;
   * 0 sets it for each.
   */
  notifyMs?: number
  /**
   * Events are gone: the state to go on with. Default: `initial` where the broker has another log (`log_changed`), else the
   * state as it is.
   */
  afterGap?: (state: State, gap: Gap) => State
}

/** A store of zustand over a subscription. Fit for `useStore`. */
export interface TidingsStore<State> extends StoreApi<State> {
  /** Whether all that was there when it was made is in the state. */
  readonly caughtUp: () => boolean
  /** Ends the subscription; the state stays. */
  readonly close: () => Promise<void>
}

/**
 * A store whose state is made of events: of what is there and of what comes, over lost connections. It begins at the first
 * event there is unless `after` says otherwise; with `lastPerKey` at the newest of every topic and key.
 *
 * ```ts
 * const tasks = tidingsStore(client, 'tasks.*', (state, event) => ({ ...state, [event.topic]: event.data }), { initial: {} })
 * const count = useStore(tasks, (state) => Object.keys(state).length)
 * ```
 *
 * What the state keeps is the reducer's affair, and so is its bound. A reducer that throws leaves the state as it is; the
 * client tells it as `error`. Set the state only by events: what `setState` sets goes with the next gap at the latest.
 */
export function tidingsStore<State, S = AnySchema, F extends string = string>(
  client: Client<S>,
  filter: F | readonly F[],
  reducer: (state: State, event: TidingsEvent<DataOf<S, F>>) => State,
  options: TidingsStoreOptions<State>,
): TidingsStore<State> {
  const { initial, notifyMs = 16, afterGap, ...wish } = options
  const store = createStore<State>(() => initial)
  let next = initial
  let timer: ReturnType<typeof setTimeout> | undefined
  const show = () => {
    // The whole is replaced: it need not be an object.
    if (!Object.is(store.getState(), next)) store.setState(next, true)
  }
  const later = () => {
    if (timer !== undefined || Object.is(store.getState(), next)) return
    if (notifyMs > 0) {
      timer = setTimeout(() => {
        timer = undefined
        show()
      }, notifyMs)
    }
    show()
  }
  const { after = wish.lastPerKey || wish.key !== undefined ? undefined : 'first' } = wish
  const subscription = client.subscribe<F>(filter, { ...wish, ...(after !== undefined && { after }) }, (event) => {
    // Behind a `setState` of the program, if there was one.
    if (timer === undefined) next = store.getState()
    next = reducer(next, event)
    later()
  })
  subscription.on('gap', (gap) => {
    next = afterGap ? afterGap(next, gap) : gap.reason === 'log_changed' ? initial : next
    later()
  })
  return Object.assign(store, {
    caughtUp: () => subscription.caughtUp,
    close: async () => {
      clearTimeout(timer)
      timer = undefined
      show()
      await subscription.unsubscribe()
    },
  })
}
