// Operations on `operations.<id>`: watched, cancelled, and done.

import type { TidingsError } from '../errors.js'
import type { AnySchema, CallOptions, Client, Published, Subscription, TidingsEvent } from '../types.js'
import { type AnyClient, anyClient, fields, finite, given, topicOf, trim } from './data.js'
import {
  isOverdue,
  newOperation,
  OPERATION_TYPES,
  type OperationSnapshot,
  type OperationState,
  reduceOperation,
  showOperation,
} from './operation-state.js'
import { type OperationWork, type StartOptions, startWork } from './operation-work.js'
import { Lifetime, Store, type Watched, type WatchOptions } from './watch.js'

export type { OperationSnapshot, OperationStatus } from './operation-state.js'
export type { CancelRequest, OperationWork, ProgressOptions, StartOptions } from './operation-work.js'

/** One operation, by its id. */
export interface Operation {
  /** The operation. */
  readonly id: string
  /** `operations.<id>`; asked of it is on `operations.<id>.control`. */
  readonly topic: string
  /** Follows it from its state as of now. Each call is a subscription of its own: close what you watch. */
  watch(options?: WatchOptions): Watched<OperationSnapshot>
  /** Asks whoever does it to stop. Resolved when the question is in the log; `watch` says what comes of it. */
  cancel(reason?: string, options?: Pick<CallOptions, 'signal'>): Promise<Published>
  /** Says that it has started, here. Resolved when that is in the log. */
  start(options?: StartOptions): Promise<OperationWork>
}

/**
 * The operation `id` (one token of a topic, or more): events `operation.started`, `.progress`, `.completed`, `.failed`,
 * `.cancelled` and `.timed_out` on `operations.<id>`.
 *
 * ```ts
 * const work = await operation(client, 'import-7').start({ title: 'Import', of: 200, deadlineMs: 60_000 })
 * work.progress(20)
 * await work.complete({ rows: 200 })
 * ```
 */
export function operation<S = AnySchema>(client: Client<S>, id: string): Operation {
  const any = anyClient(client)
  const topic = topicOf('operations', id)
  let attempts = 0
  let title: string | undefined
  return {
    id,
    topic,
    watch: (options = {}) => watchOne(any, id, topic, options),
    cancel: (reason, options) =>
      any.publish(`${topic}.control`, given({ reason }), { type: 'operation.cancel', ...options }),
    async start(options = {}) {
      // A retry is called what it was called before.
      title = options.title ?? title
      attempts = options.attempt ?? (attempts || (await lastAttempt(any, topic, options.signal))) + 1
      return startWork(any, topic, attempts, given({ ...options, title }))
    },
  }
}

/** The try that somebody else has begun, who may be gone; 0 where there is none, or where it cannot be read. */
async function lastAttempt(client: AnyClient, topic: string, signal: AbortSignal | undefined): Promise<number> {
  const wish = { lastPerKey: true, types: OPERATION_TYPES, ...(signal && { signal }) }
  const { events } = await client.read(topic, wish).catch(() => ({ events: [] }))
  return Math.max(0, ...events.map(({ data }) => finite(fields(data).attempt) ?? 0))
}

/** Options of `operations`. */
export interface OperationsOptions extends WatchOptions {
  /** The most that are kept; those first heard of go first. Default 1,000. */
  max?: number
}

/** Many operations. */
export interface OperationsSnapshot {
  /** In the order in which they were first heard of. */
  readonly operations: readonly OperationSnapshot[]
  /** Whether all that was there has been handed over. */
  readonly caughtUp: boolean
  /** Why nothing more will be heard, as where the filter was refused; `undefined` while all is well. */
  readonly error: TidingsError | undefined
}

/** Follows all operations whose topics match, `operations.*` unless said: a task board. */
export function operations<S = AnySchema>(
  client: Client<S>,
  filter = 'operations.*',
  options: OperationsOptions = {},
): Watched<OperationsSnapshot> {
  const found = new Map<string, OperationState>()
  const filters = [filter, ...(filter.endsWith('>') ? [] : [`${filter}.control`])]
  // Operations that have not changed are the same objects as before.
  const shown = new WeakMap<OperationState, OperationSnapshot>()
  const show = (state: OperationState, now: number, more: Pick<OperationSnapshot, 'caughtUp' | 'error'>) => {
    const before = shown.get(state)
    const same = before?.caughtUp === more.caughtUp && before.error === more.error
    if (before !== undefined && same && before.overdue === isOverdue(state, now)) return before
    const after = showOperation(state, now, more)
    shown.set(state, after)
    return after
  }
  const { watched, changed, sub } = follow(anyClient(client), filters, options, {
    build: (now, more): OperationsSnapshot => ({
      operations: [...found.values()].map((state) => show(state, now, more)),
      caughtUp: more.caughtUp,
      error: more.error,
    }),
    states: () => found.values(),
    reset: () => found.clear(),
  })
  sub((event) => {
    const id = event.topic.replace(/^operations\./, '').replace(/\.control$/, '')
    const before = found.get(id)
    const after = reduceOperation(before ?? newOperation(id), event)
    if (after === before) return
    found.set(id, after)
    trim(found, options.max ?? 1_000)
    changed(after)
  })
  return watched
}

function watchOne(client: AnyClient, id: string, topic: string, options: WatchOptions): Watched<OperationSnapshot> {
  let state = newOperation(id)
  const { watched, changed, sub } = follow(client, [topic, `${topic}.control`], options, {
    build: (now, more) => showOperation(state, now, more),
    states: () => [state],
    reset: () => {
      state = newOperation(id)
    },
  })
  sub((event) => {
    const after = reduceOperation(state, event)
    if (after === state) return
    state = after
    changed(state)
  })
  return watched
}

interface Following<Snapshot> {
  build(now: number, more: Pick<OperationSnapshot, 'caughtUp' | 'error'>): Snapshot
  states(): Iterable<OperationState>
  /** The log is another one: what was heard is not of it. */
  reset(): void
}

/** A subscription to states and what changes them, and a timer for the next deadline. */
function follow<Snapshot>(client: AnyClient, filters: string[], options: WatchOptions, its: Following<Snapshot>) {
  const life = new Lifetime(options.signal)
  let subscription: Subscription | undefined
  let timer: ReturnType<typeof setTimeout> | undefined
  const store = new Store(
    () => its.build(Date.now(), { caughtUp: subscription?.caughtUp ?? false, error: subscription?.error }),
    options.notifyMs,
  )
  let dueAt = Infinity
  const plan = ({ status, deadline }: OperationState) => {
    if (status !== 'running' || deadline === undefined || deadline >= dueAt || deadline <= Date.now()) return
    clearTimeout(timer)
    dueAt = deadline
    // A timer takes 24 days at most; a deadline behind that is looked for again then.
    timer = setTimeout(due, Math.min(deadline - Date.now(), 2 ** 31 - 1))
  }
  const due = () => {
    dueAt = Infinity
    for (const state of its.states()) plan(state)
    store.changed()
  }
  const changed = (state: OperationState) => {
    plan(state)
    store.changed()
  }
  const sub = (onEvent: (event: TidingsEvent) => void) => {
    const wish = { lastPerKey: true, types: OPERATION_TYPES }
    const made = client.subscribe(filters, wish, onEvent)
    subscription = made
    made.on('caught_up', () => store.changed())
    made.on('state', () => store.changed())
    made.on('gap', (gap) => {
      if (gap.reason === 'log_changed') its.reset()
      store.changed()
    })
    life.add(() => made.unsubscribe())
    life.add(() => {
      clearTimeout(timer)
      store.flush()
    })
  }
  const watched: Watched<Snapshot> = { snapshot: store.snapshot, subscribe: store.subscribe, close: life.close }
  return { watched, changed, sub }
}
