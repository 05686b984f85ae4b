// A structure that several edit: its state, what changes it, and our own changes at once.
//
// - Every change is an event `structure.changed` with the path as key and `{value}` as data, or without where the part
//   is taken away. The newest of each path, in the order of the log, is the state.
// - `set` lets the last one win. `edit` is for changes that depend on what is there: it is published only where nobody
//   else has changed the topic meanwhile, else it is computed anew.

import { TidingsError } from '../errors.js'
import type { AnySchema, Client, Published, PublishRequest, Subscription, TidingsEvent } from '../types.js'
import { type AnyClient, anyClient, fields, topicOf } from './data.js'
import { namesOf, withValue } from './structure-tree.js'
import { Lifetime, Store, type Watched, type WatchOptions } from './watch.js'

export { pathOf, valueAt } from './structure-tree.js'

/** The type of a change. */
export const CHANGED = 'structure.changed'
/** Types of the other form of a structure, whose order matters: a topic has one of the two. */
const OTHER_FORM = ['state.snapshot', 'state.patch']

/** Parts by path; `undefined` takes one away. */
export type Changes = Readonly<Record<string, unknown>>

/** A structure as it stands. */
export interface StructureSnapshot<Value = unknown> {
  /** The whole, with our own changes that are not in the log yet; `undefined` where there is nothing. */
  readonly value: Value | undefined
  /** The offset of the last change in it; 0 where there is none. */
  readonly last: number
  /** How many changes of our own are on their way. */
  readonly pending: number
  /** Whether the state is whole. */
  readonly caughtUp: boolean
  /** Why nothing more will come; `undefined` while all is well. */
  readonly error: TidingsError | undefined
}

/** Options of `structure`. */
export interface StructureOptions extends WatchOptions {
  /** The most paths. More end it as `too_large`. Default 10,000. */
  maxPaths?: number
  /** How often `edit` is computed anew before it fails as `conflict`. Default 100. */
  retries?: number
  /** How many changes of our own may be on their way. Default 1,000. */
  maxPending?: number
}

/** A structure. */
export interface Structure<Value = unknown> extends Watched<StructureSnapshot<Value>> {
  /** Replaces a part: the last one wins. Shown at once, and taken back where it is refused. */
  set(path: string, value: unknown): Promise<Published>
  /** Takes a part away. */
  remove(path: string): Promise<Published>
  /**
   * Changes parts by what is there, all or none. Where somebody else was faster `change` is called again with what is
   * there then; `undefined` gives up. Rejected as `conflict` after `retries`. Waits until the state is whole.
   */
  edit(change: (value: Value | undefined) => Changes | undefined): Promise<readonly Published[]>
}

/**
 * The structure `id` on `structures.<id>`: parts that change by themselves, the last one wins. Not with a client that was
 * made with `echo: false`. Where the topic has snapshots and patches (the other form of docs/conventions.md) it ends as
 * `invalid_argument`.
 */
export function structure<Value = unknown, S = AnySchema>(
  client: Client<S>,
  id: string,
  options: StructureOptions = {},
): Structure<Value> {
  return new Shared<Value>(anyClient(client), topicOf('structures', id), options)
}

/** Changes of our own that are not known to be in the state. */
interface Pending {
  changes: Changes
  /** The offset behind which they are in the state; not known before the answer. */
  until: number | undefined
}

class Shared<Value> implements Structure<Value> {
  readonly close: () => Promise<void>
  readonly snapshot: () => StructureSnapshot<Value>
  readonly subscribe: (listener: () => void) => () => void
  readonly #client: AnyClient
  readonly #topic: string
  readonly #retries: number
  readonly #maxPaths: number
  readonly #maxPending: number
  readonly #store: Store<StructureSnapshot<Value>>
  readonly #life: Lifetime
  readonly #sub: Subscription
  readonly #paths = new Set<string>()
  readonly #pending = new Set<Pending>()
  #state: unknown
  /** Parts of it that nobody has seen. */
  readonly #fresh = new Set<unknown>()
  #last = 0
  #error: TidingsError | undefined
  /** Woken by whatever comes. */
  #wakers: (() => void)[] = []
  /** Edits go one after the other: each begins with what the one before has made. */
  #edits: Promise<unknown> = Promise.resolve()

  constructor(client: AnyClient, topic: string, options: StructureOptions) {
    this.#client = client
    this.#topic = topic
    this.#retries = options.retries ?? 100
    this.#maxPaths = options.maxPaths ?? 10_000
    this.#maxPending = options.maxPending ?? 1_000
    this.#life = new Lifetime(options.signal)
    this.#store = new Store(() => this.#show(), options.notifyMs)
    this.snapshot = this.#store.snapshot
    this.subscribe = this.#store.subscribe
    this.close = this.#life.close
    // All types: `expectLast` is about the topic, whatever is on it.
    this.#sub = client.subscribe(topic, { lastPerKey: true }, (event) => this.#take(event))
    this.#sub.on('caught_up', () => this.#woken())
    this.#sub.on('state', () => this.#woken())
    this.#sub.on('gap', (gap) => {
      if (gap.reason === 'log_changed') this.#reset()
      this.#woken()
    })
    this.#life.add(() => this.#sub.unsubscribe())
    this.#life.add(() => {
      this.#woken()
      this.#store.flush()
    })
  }

  async set(path: string, value: unknown): Promise<Published> {
    const [published] = await this.#publish({ [path]: value }, undefined)
    if (published === undefined) throw new TidingsError('internal', 'a change was published and not answered')
    return published
  }

  remove(path: string): Promise<Published> {
    return this.set(path, undefined)
  }

  edit(change: (value: Value | undefined) => Changes | undefined): Promise<readonly Published[]> {
    const editing = this.#edits.then(() => this.#edit(change))
    this.#edits = editing.catch(() => undefined)
    return editing
  }

  async #edit(change: (value: Value | undefined) => Changes | undefined): Promise<readonly Published[]> {
    for (let attempt = 0; ; attempt++) {
      // Our own that are on their way would make it a conflict with ourselves.
      await this.#until(() => this.#sub.caughtUp && this.#pending.size === 0)
      const last = this.#last
      this.#fresh.clear()
      const changes = change(this.#state as Value | undefined)
      if (changes === undefined || Object.keys(changes).length === 0) return []
      try {
        return await this.#publish(changes, last)
      } catch (error) {
        const again = error instanceof TidingsError && error.code === 'conflict' && attempt < this.#retries
        if (!again) throw error
      }
      // Whoever was faster comes by the subscription.
      await this.#until(() => this.#last !== last)
    }
  }

  async #publish(changes: Changes, expectLast: number | undefined): Promise<Published[]> {
    if (this.#error !== undefined) throw this.#error
    if (this.#pending.size >= this.#maxPending)
      throw new TidingsError('outbox_full', 'too many changes are on their way', { retryable: true })
    const events = Object.entries(changes).map(([path, value], at): PublishRequest => {
      namesOf(path)
      if (path === '/') throw new TidingsError('invalid_argument', 'a part has a name: "" is the whole')
      const data = value === undefined ? {} : { value }
      // An event has no empty key: the whole is the path "" in the program and "/" in the log.
      const one = { topic: this.#topic, type: CHANGED, key: path === '' ? '/' : path, data }
      return at === 0 && expectLast !== undefined ? { ...one, expectLast } : one
    })
    const pending: Pending = { changes, until: undefined }
    this.#pending.add(pending)
    this.#store.changed()
    try {
      const published = await this.#client.publishBatch(events)
      pending.until = Math.max(...published.map(({ offset }) => offset))
      this.#settle()
      return published
    } catch (error) {
      this.#pending.delete(pending)
      this.#woken()
      throw error
    }
  }

  #take(event: TidingsEvent): void {
    this.#last = event.offset
    if (event.type === CHANGED && event.key !== undefined) {
      try {
        const path = event.key === '/' ? '' : event.key
        this.#state = withValue(this.#state, path, fields(event.data).value, this.#fresh)
        this.#paths.add(path)
      } catch {
        // A key that is no path, or no place of the list there, changes nothing: for all readers alike.
      }
      if (this.#paths.size > this.#maxPaths)
        this.#fail(new TidingsError('too_large', `the structure has more than ${this.#maxPaths} paths`))
    } else if (OTHER_FORM.includes(event.type)) {
      // Nothing of it would be shown, and what is written here nobody of the others would see.
      this.#fail(new TidingsError('invalid_argument', 'the structure is one of snapshots and patches'))
    }
    this.#settle()
  }

  #fail(error: TidingsError): void {
    this.#error ??= error
    void this.close()
  }

  /** Our own changes that have come back are in the state. */
  #settle(): void {
    for (const pending of this.#pending)
      if (pending.until !== undefined && pending.until <= this.#last) this.#pending.delete(pending)
    this.#woken()
  }

  #reset(): void {
    this.#state = undefined
    this.#fresh.clear()
    this.#last = 0
    this.#paths.clear()
    for (const pending of this.#pending) if (pending.until !== undefined) this.#pending.delete(pending)
  }

  #woken(): void {
    this.#store.changed()
    for (const waker of this.#wakers.splice(0)) waker()
  }

  async #until(holds: () => boolean): Promise<void> {
    while (!holds()) {
      if (this.#life.closed) throw this.#error ?? new TidingsError('closed', 'the structure was closed')
      if (this.#sub.error !== undefined) throw this.#sub.error
      await new Promise<void>((resolve) => this.#wakers.push(resolve))
    }
  }

  #show(): StructureSnapshot<Value> {
    this.#fresh.clear()
    let value = this.#state
    for (const { changes } of this.#pending) {
      for (const [path, part] of Object.entries(changes)) value = tried(value, path, part)
    }
    return {
      value: value as Value | undefined,
      last: this.#last,
      pending: this.#pending.size,
      caughtUp: this.#sub?.caughtUp ?? false,
      error: this.#error ?? this.#sub?.error,
    }
  }
}

/** What does not fit any more, since somebody else has changed what it was meant for, is left out. */
function tried(value: unknown, path: string, part: unknown): unknown {
  try {
    return withValue(value, path, part)
  } catch {
    return value
  }
}
