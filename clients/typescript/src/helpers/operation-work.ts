// The producer's side of an operation: says what it does, and hears when somebody wants it to stop.

import { TidingsError } from '../errors.js'
import type { Published, Subscription } from '../types.js'
import { type AnyClient, failure, fields, given, messageOf, text } from './data.js'

/** What may be said when an operation starts. */
export interface StartOptions {
  /** What it is called. */
  title?: string
  /** A first word of what it does. */
  message?: string
  /** How much there is to do; `done` is counted in the same unit. */
  of?: number
  /** The number of the try. Default: one more than the last one, here or of whoever did it before; 1 for the first. */
  attempt?: number
  /** So many milliseconds from now on, by this machine's clock, it is `timed_out`, and `signal` says so. Default: never. */
  deadlineMs?: number
  /** How often progress is published at most; the newest is. Default 100. */
  progressEveryMs?: number
  /** Told of progress that could not be published, which nobody waits for. */
  onError?: (error: TidingsError) => void
  /** Gives up the publish of the start. */
  signal?: AbortSignal
}

/** What may be said with progress. */
export interface ProgressOptions {
  /** How much there is to do, where that has changed or was not known. */
  of?: number
  /** How sure it is of what it has so far, 0 to 1. */
  confidence?: number
  /** What it does at the moment. */
  message?: string
}

interface Progress extends ProgressOptions {
  done: number
}

/** That somebody wants it to stop. */
export interface CancelRequest {
  /** Why, where they said so. */
  readonly reason: string | undefined
  /** Who asked: the `source` of the event. */
  readonly source: string
}

/** An operation that goes on here. */
export interface OperationWork {
  /** The number of the try. */
  readonly attempt: number
  /** Aborted when somebody cancels, with the code `aborted`, and when the deadline has passed, with `timeout`. */
  readonly signal: AbortSignal
  /**
   * So much is done. Never waits: of what comes faster than `progressEveryMs` the newest is published. What is said with
   * it holds until something else is, and is said again: who comes late is given the newest progress only.
   */
  progress(done: number, options?: ProgressOptions): void
  /** It is done. The first end is the end: what is said after it changes nothing and gives its answer. */
  complete(result?: unknown, options?: { message?: string }): Promise<Published>
  /** It failed. */
  fail(error: unknown): Promise<Published>
  /** It was stopped. Said by itself when the handlers of `onCancel` have ended and nobody has said otherwise. */
  cancelled(reason?: string): Promise<Published>
  /** Called when somebody wants it to stop, or has, once; the function that is returned takes it back. */
  onCancel(handler: (request: CancelRequest) => unknown): () => void
}

/** Says that it has started, and listens. */
export async function startWork(
  client: AnyClient,
  topic: string,
  attempt: number,
  options: StartOptions,
): Promise<OperationWork> {
  const { title, message, of } = options
  const due = dueAt(options.deadlineMs)
  const deadline = due === undefined ? undefined : new Date(due).toISOString()
  const started = await client.publish(topic, given({ attempt, title, message, of, deadline }), {
    type: 'operation.started',
    ...(options.signal && { signal: options.signal }),
  })
  return new Work(client, topic, attempt, started.offset, due, options)
}

/** The last moment that the broker's own times can be, too. */
const LATEST = Date.UTC(9999, 11, 30, 22)

/** The moment after so many milliseconds; refused where readers would not take it for one. */
function dueAt(ms: number | undefined): number | undefined {
  if (ms === undefined) return undefined
  const due = Date.now() + ms
  if (due >= 0 && due <= LATEST) return due
  throw new TidingsError('invalid_argument', `deadlineMs ${ms}: no moment from 1970 to 9999`)
}

class Work implements OperationWork {
  readonly attempt: number
  readonly #client: AnyClient
  readonly #topic: string
  readonly #options: StartOptions
  readonly #abort = new AbortController()
  readonly #handlers = new Set<(request: CancelRequest) => unknown>()
  readonly #control: Subscription
  /** That it is to stop, once somebody has said so. */
  #request: CancelRequest | undefined
  #deadline: ReturnType<typeof setTimeout> | undefined
  #pause: ReturnType<typeof setTimeout> | undefined
  /** Progress that waits for its turn. */
  #waiting: Progress | undefined
  #sending = false
  #end: Promise<Published> | undefined
  #last: Partial<Progress> = {}

  constructor(
    client: AnyClient,
    topic: string,
    attempt: number,
    since: number,
    due: number | undefined,
    options: StartOptions,
  ) {
    this.attempt = attempt
    this.#client = client
    this.#topic = topic
    this.#options = options
    if (options.of !== undefined) this.#last = { of: options.of }
    // After the start: what was asked before is of an earlier try, and nothing that is asked of this one is missed.
    const wish = { after: since, types: ['operation.cancel'] }
    this.#control = client.subscribe(`${topic}.control`, wish, (event) => {
      void this.#cancel({ reason: text(fields(event.data).reason), source: event.source })
    })
    // Its client is closed: nothing can be said any more. Where the broker refused it there is still a deadline.
    this.#control.on('state', (state) => {
      if (state === 'closed' && this.#control.error === undefined) this.#still()
    })
    if (due !== undefined) this.#wait(due)
  }

  get signal(): AbortSignal {
    return this.#abort.signal
  }

  progress(done: number, more: ProgressOptions = {}): void {
    if (this.#end !== undefined) return
    this.#waiting = { ...this.#last, ...this.#waiting, done, ...more }
    this.#send()
  }

  complete(result?: unknown, { message }: { message?: string } = {}): Promise<Published> {
    return this.#ended('operation.completed', { result, message })
  }

  fail(error: unknown): Promise<Published> {
    return this.#ended('operation.failed', { message: messageOf(error) })
  }

  cancelled(reason?: string): Promise<Published> {
    return this.#ended('operation.cancelled', { reason })
  }

  onCancel(handler: (request: CancelRequest) => unknown): () => void {
    if (this.#request === undefined) this.#handlers.add(handler)
    else
      void Promise.resolve(this.#request)
        .then(handler)
        .catch(() => undefined)
    return () => void this.#handlers.delete(handler)
  }

  #send(): void {
    if (this.#sending || this.#pause !== undefined || this.#waiting === undefined || this.#end !== undefined) return
    const now = this.#waiting
    this.#waiting = undefined
    this.#last = now
    this.#sending = true
    this.#pause = setTimeout(() => {
      this.#pause = undefined
      this.#send()
    }, this.#options.progressEveryMs ?? 100)
    const data = given({ attempt: this.attempt, ...now })
    this.#client.publish(this.#topic, data, { type: 'operation.progress', key: 'progress' }).then(
      () => this.#sent(),
      (error) => {
        this.#options.onError?.(failure(error))
        this.#sent()
      },
    )
  }

  #sent(): void {
    this.#sending = false
    this.#send()
  }

  async #cancel(request: CancelRequest): Promise<void> {
    if (this.#end !== undefined || this.#abort.signal.aborted) return
    this.#request = request
    this.#abort.abort(new TidingsError('aborted', request.reason ?? 'the operation was cancelled'))
    const handlers = [...this.#handlers]
    this.#handlers.clear()
    await Promise.allSettled(handlers.map(async (handler) => handler(request)))
    await this.cancelled(request.reason).catch((error: unknown) => this.#options.onError?.(failure(error)))
  }

  /** Until then. A timer takes 24 days at most, and may be early: it is looked again. */
  #wait(due: number): void {
    const left = Math.max(0, due - Date.now())
    const look = () => (Date.now() < due ? this.#wait(due) : this.#tooLate())
    this.#deadline = setTimeout(look, Math.min(left, 2 ** 31 - 1))
  }

  #still(): void {
    clearTimeout(this.#deadline)
    clearTimeout(this.#pause)
  }

  #tooLate(): void {
    if (this.#end !== undefined) return
    this.#abort.abort(new TidingsError('timeout', 'the operation has passed its deadline'))
    this.#ended('operation.timed_out', {}).catch((error: unknown) => this.#options.onError?.(failure(error)))
  }

  #ended(type: string, said: Record<string, unknown>): Promise<Published> {
    if (this.#end !== undefined) return this.#end
    const progress = this.#waiting ?? this.#last
    this.#waiting = undefined
    const { done, of } = progress
    // Whoever comes late is given the end in the place of the start.
    const { title } = this.#options
    this.#still()
    this.#handlers.clear()
    void this.#control.unsubscribe().catch(() => undefined)
    this.#end = this.#client.publish(this.#topic, given({ attempt: this.attempt, title, done, of, ...said }), { type })
    return this.#end
  }
}
