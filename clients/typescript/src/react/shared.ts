// What hooks look at: sources, one for each client and key, however many components use it.
//
// - A source is opened when the first component is mounted, never while rendering: a render that React throws away
//   leaves nothing behind.
// - It is closed one macrotask after the last one is unmounted. Strict Mode unmounts and mounts again in the same task,
//   so does a component that moves: they find it still open, and the broker hears nothing of it.
// - One that cannot be opened (a name that is no part of a topic, a client that is closed) is what it is before it is
//   open, with the `error`: what is thrown when a component is mounted takes the whole page with it.
// - What components see changes only between frames. Reading it twice in one render gives the same object.

import { useCallback, useSyncExternalStore } from 'react'
import { toError } from '../errors.js'
import type { Client } from '../types.js'
import { useTidings } from './context.js'
import { inNextFrame } from './frame.js'

/** Something to look at: the helpers of this package, and what hooks make of a subscription. */
export interface Source<T> {
  /** What there is now; the same object until something changes. */
  snapshot(): T
  /** Calls whenever there is another snapshot; the function that is returned stops it. */
  subscribe(listener: () => void): () => void
  /** Lets go of it. */
  close(): unknown
}

class Entry<T, S extends Source<T>> {
  #holders = 0
  #listeners = new Set<() => void>()
  #stop: () => void
  current: T

  constructor(
    readonly source: S,
    private readonly closed: () => void,
  ) {
    this.current = source.snapshot()
    this.#stop = source.subscribe(() => inNextFrame(this.#refresh))
  }

  hold(listener?: () => void): () => void {
    this.#holders += 1
    if (listener) this.#listeners.add(listener)
    return () => {
      if (listener) this.#listeners.delete(listener)
      this.#holders -= 1
      if (this.#holders === 0) setTimeout(this.#closeUnlessHeld)
    }
  }

  #refresh = (): void => {
    const next = this.source.snapshot()
    if (Object.is(next, this.current)) return
    this.current = next
    for (const listener of [...this.#listeners]) listener()
  }

  #closeUnlessHeld = (): void => {
    if (this.#holders > 0) return
    this.#stop()
    this.closed()
    // A failing goodbye has nobody to be told to: the component is gone, and the client tells it as `error`.
    Promise.resolve(this.source.close()).catch(() => {})
  }
}

/** In the place of a source that could not be opened. */
class Failed<T> implements Source<T> {
  readonly #snapshot: T

  constructor(
    initial: T,
    readonly cause: unknown,
  ) {
    const error = toError(cause, 'internal', 'not opened')
    const says = initial instanceof Object && 'error' in initial
    this.#snapshot = says ? Object.assign(Array.isArray(initial) ? [] : {}, initial, { error }) : initial
  }

  readonly snapshot = (): T => this.#snapshot
  readonly subscribe = () => () => {}
  readonly close = (): void => {}
}

const registries = new WeakMap<Client, Map<string, Entry<unknown, Source<unknown>>>>()

function find<T, S extends Source<T>>(client: Client, key: string): Entry<T, S> | undefined {
  return registries.get(client)?.get(key) as Entry<T, S> | undefined
}

function findOrOpen<T, S extends Source<T>>(
  client: Client,
  key: string,
  open: (client: Client) => S,
  initial: T,
): Entry<T, S | Failed<T>> {
  const found = find<T, S | Failed<T>>(client, key)
  if (found) return found
  const registry = registries.get(client) ?? new Map<string, Entry<unknown, Source<unknown>>>()
  registries.set(client, registry)
  const source = (): S | Failed<T> => {
    try {
      return open(client)
    } catch (cause) {
      return new Failed(initial, cause)
    }
  }
  const entry = new Entry<T, S | Failed<T>>(source(), () => {
    if (registry.get(key) === (entry as unknown)) registry.delete(key)
  })
  registry.set(key, entry as unknown as Entry<unknown, Source<unknown>>)
  return entry
}

/** Acts on a source, also before the effect that opens it: those of children come before. */
export type Act<S> = <R>(action: (source: S) => R) => R
type ActIfAny<S> = <R>(action: (source: S) => R) => R | undefined

/**
 * Looks at the source of this key, which is opened by the first that does. `initial` is what is seen before that, and
 * on a server. With key `null` there is no source.
 */
export function useShared<T, S extends Source<T>>(key: string, open: (client: Client) => S, initial: T): [T, Act<S>]
export function useShared<T, S extends Source<T>>(
  key: string | null,
  open: (client: Client) => S,
  initial: T,
): [T, ActIfAny<S>]
export function useShared<T, S extends Source<T>>(
  key: string | null,
  open: (client: Client) => S,
  initial: T,
): [T, ActIfAny<S>] {
  const client = useTidings()
  // The key says all that `open` depends on, so that an `open` of an earlier render with the same key is as good.
  const subscribe = useCallback(
    (listener: () => void) => (key === null ? () => {} : findOrOpen<T, S>(client, key, open, initial).hold(listener)),
    [client, key],
  )
  const snapshot = (): T => {
    const entry = key === null ? undefined : find<T, S>(client, key)
    return entry ? entry.current : initial
  }
  const value = useSyncExternalStore(subscribe, snapshot, () => initial)
  const act = useCallback(
    <R>(action: (source: S) => R): R | undefined => {
      if (key === null) return undefined
      const entry = findOrOpen<T, S>(client, key, open, initial)
      const release = entry.hold()
      try {
        if (entry.source instanceof Failed) throw entry.source.cause
        return action(entry.source)
      } finally {
        release()
      }
    },
    [client, key],
  )
  return [value, act]
}

/** What tells that something has changed: half of a source. */
export class Listeners {
  #listeners = new Set<() => void>()

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  readonly tell = (): void => {
    for (const listener of this.#listeners) listener()
  }
}
