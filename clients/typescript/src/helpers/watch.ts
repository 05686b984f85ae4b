// What all helpers have in common: a state that is watched, and a life that ends once.

/** A state that changes. Its functions need no `this`, so that they fit `useSyncExternalStore` as they are. */
export interface Watched<S> {
  /** The state as it is now: the same object until something in it changes. */
  readonly snapshot: () => S
  /** Calls `listener` when the snapshot is another; the function that is returned stops it. */
  readonly subscribe: (listener: () => void) => () => void
  /** Ends it, with its subscriptions and timers. The last snapshot can still be read. */
  readonly close: () => Promise<void>
}

/** What every helper that watches takes. */
export interface WatchOptions {
  /** Closes it. */
  signal?: AbortSignal
  /**
   * Listeners are told at once of a first change, and of what follows within so many milliseconds once, at their end:
   * 10,000 events a second are 60 renders. Default 16; 0 tells of each.
   */
  notifyMs?: number
}

const NOTIFY_MS = 16

/** A state that is built when somebody looks at it, and listeners who are told that it is another. */
export class Store<S> {
  readonly #build: () => S
  readonly #everyMs: number
  readonly #listeners = new Set<() => void>()
  #value: S
  #stale = false
  #timer: ReturnType<typeof setTimeout> | undefined
  /** Whether something has changed since listeners were told. */
  #owed = false

  constructor(build: () => S, everyMs: number = NOTIFY_MS) {
    this.#build = build
    this.#everyMs = everyMs
    this.#value = build()
  }

  readonly snapshot = (): S => {
    if (this.#stale) {
      this.#stale = false
      this.#value = this.#build()
    }
    return this.#value
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    // A wrapper of its own, so that a function that is registered twice is told twice and removed once.
    const own = () => listener()
    this.#listeners.add(own)
    return () => void this.#listeners.delete(own)
  }

  /** The state is another. */
  changed(): void {
    this.#stale = true
    this.#owed = true
    if (this.#timer === undefined) this.#tell()
  }

  /** Tells at once what is owed, and no more by a timer. */
  flush(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#owed) this.#tell()
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #tell(): void {
    this.#owed = false
    if (this.#listeners.size === 0) return
    if (this.#everyMs > 0) {
      this.#timer = setTimeout(() => {
        this.#timer = undefined
        if (this.#owed) this.#tell()
      }, this.#everyMs)
    }
    const failed: unknown[] = []
    for (const listener of [...this.#listeners]) {
      try {
        listener()
      } catch (error) {
        failed.push(error)
      }
    }
    // All have been told; now the program hears of the one that is broken.
    if (failed.length > 0) throw failed[0]
  }
}

/** Ends what was begun, once, when it is closed or a signal says so. */
export class Lifetime {
  readonly #ends: (() => unknown)[] = []
  readonly #outer: AbortSignal | undefined
  #closing: Promise<void> | undefined

  constructor(outer: AbortSignal | undefined) {
    this.#outer = outer
    if (outer?.aborted) queueMicrotask(this.#abort)
    else outer?.addEventListener('abort', this.#abort, { once: true })
  }

  get closed(): boolean {
    return this.#closing !== undefined
  }

  /** Carries this out at the end; at once where that was. */
  add(end: () => unknown): void {
    if (this.#closing === undefined) this.#ends.push(end)
    else void Promise.resolve(end()).catch(() => undefined)
  }

  readonly close = (): Promise<void> => {
    this.#outer?.removeEventListener('abort', this.#abort)
    this.#closing ??= Promise.allSettled(this.#ends.splice(0).map(async (end) => end())).then(() => undefined)
    return this.#closing
  }

  readonly #abort = () => void this.close()
}
