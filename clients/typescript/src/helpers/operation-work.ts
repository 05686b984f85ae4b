// The producer's side of an operation: says what it does, and hears when somebody wants it to stop.

import { TidingsError } from '../errors.js'
import type { Published } from '../types.js'
import { type AnyClient, failure, fields, given, messageOf, text } from './data.js'

/** What may be said when an operation starts. */
export interface StartOptions {
  /** What it is called. */
  title?: string
  /** A first word of what it does. */
  message?: string
  /** How much there is to do; `done` is counted in the same unit. */
  of?: number
  /** The number of the try. Default: one more than the last one that was started here, 1 for the first. */
  attempt?: number
  /** After so many milliseconds it is `timed_out`, and `signal` says so. Default: never. */
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
  /** What it does at the moment. */
  message?: string
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
  /** So much is done. Never waits: of what comes faster than `progressEveryMs` the newest is published. */
  progress(done: number, options?: ProgressOptions): void
  /** It is done. The first end is the end: what is said after it changes nothing and gives its answer. */
  complete(result?: unknown, options?: { message?: string }): Promise<Published>
  /** It failed. */
  fail(error: unknown): Promise<Published>
  /** It was stopped. Said by itself when the handlers of `onCancel` have ended and nobody has said otherwise. */
  cancelled(reason?: string): Promise<Published>
  /** Called when somebody wants it to stop, once; the function that is returned takes it back. */
  onCancel(handler: (request: CancelRequest) => unknown): () => void
}

/** Says that it has started, and listens. */
export async function startWork(
  client: AnyClient,
  topic: string,
  attempt: number,
  options: StartOptions,
): Promise<OperationWork> {
  const { title, message, of, deadlineMs: deadline_ms } = options
  const started = await client.publish(topic, given({ attempt, title, message, of, deadline_ms }), {
    type: 'operation.started',
    ...(options.signal && { signal: options.signal }),
  })
  return new Work(client, topic, attempt, started.offset, options)
}

class Work implements OperationWork {
  readonly attempt: number
  readonly #client: AnyClient
  readonly #topic: string
  readonly #options: StartOptions
  readonly #abort = new AbortController()
  readonly #handlers = new Set<(request: CancelRequest) => unknown>()
  readonly #control: { unsubscribe(): Promise<void> }
  #deadline: ReturnType<typeof setTimeout> | undefined
  #pause: ReturnType<typeof setTimeout> | undefined
  /** Progress that waits for its turn. */
  #waiting: { done: number; of?: number; message?: string } | undefined
  #sending = false
  #end: Promise<Published> | undefined
  #last: { done?: number; of?: number } = {}

  constructor(client: AnyClient, topic: string, attempt: number, since: number, options: StartOptions) {
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
    if (options.deadlineMs !== undefined) this.#deadline = setTimeout(this.#tooLate, options.deadlineMs)
  }

  get signal(): AbortSignal {
    return this.#abort.signal
  }

  progress(done: number, more: ProgressOptions = {}): void {
    if (this.#end !== undefined) return
    this.#waiting = { ...this.#last, done, ...more }
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
    this.#handlers.add(handler)
    return () => void this.#handlers.delete(handler)
  }

  #send(): void {
    if (this.#sending || this.#pause !== undefined || this.#waiting === undefined || this.#end !== undefined) return
    const now = this.#waiting
    this.#waiting = undefined
    this.#last = given({ done: now.done, of: now.of })
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
    this.#abort.abort(new TidingsError('aborted', request.reason ?? 'the operation was cancelled'))
    const handlers = [...this.#handlers]
    this.#handlers.clear()
    await Promise.allSettled(handlers.map(async (handler) => handler(request)))
    await this.cancelled(request.reason).catch((error: unknown) => this.#options.onError?.(failure(error)))
  }

  readonly #tooLate = (): void => {
    if (this.#end !== undefined) return
    this.#abort.abort(new TidingsError('timeout', 'the operation has passed its deadline'))
    this.#ended('operation.timed_out', {}).catch((error: unknown) => this.#options.onError?.(failure(error)))
  }

  #ended(type: string, said: Record<string, unknown>): Promise<Published> {
    if (this.#end !== undefined) return this.#end
    const progress = this.#waiting ?? this.#last
    this.#waiting = undefined
    const { done, of } = progress
    clearTimeout(this.#deadline)
    clearTimeout(this.#pause)
    this.#handlers.clear()
    void this.#control.unsubscribe().catch(() => undefined)
    this.#end = this.#client.publish(this.#topic, given({ attempt: this.attempt, done, of, ...said }), { type })
    return this.#end
  }
}
