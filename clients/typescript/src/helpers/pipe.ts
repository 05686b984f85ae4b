// Text that is written piece by piece and published in order, in as many events as the line takes.
//
// One publish is on its way at a time; what is written meanwhile waits and goes together in the next one. So a fast line
// has many small events and a slow one few large ones, a crash leaves no hole, and the writer is told when to wait.

import { TidingsError } from '../errors.js'
import { failure } from './data.js'

/** Bounds of a pipe. */
export interface PipeOptions {
  /** How long a first piece waits for more, in milliseconds. */
  everyMs?: number
  /** The most characters of one event. Default 16,000. */
  maxChars?: number
  /** How many characters may wait before `write` does. Default 256,000. */
  maxWaitingChars?: number
}

/** Sends a piece; `last` with the end. */
export type Send = (piece: string, last: boolean) => Promise<unknown>

/** See above. */
export class TextPipe {
  readonly #send: Send
  readonly #everyMs: number
  readonly #maxChars: number
  readonly #maxWaiting: number
  #waiting = ''
  #ending = false
  /** Whether the end is sent. */
  #ended = false
  #timer: ReturnType<typeof setTimeout> | undefined
  #running: Promise<void> | undefined
  #failed: TidingsError | undefined
  #unheed = (): void => {}
  #room: { promise: Promise<void>; done: () => void } | undefined

  constructor(send: Send, { everyMs = 0, maxChars = 16_000, maxWaitingChars = 256_000 }: PipeOptions) {
    this.#send = send
    this.#everyMs = everyMs
    this.#maxChars = Math.max(2, maxChars)
    this.#maxWaiting = maxWaitingChars
  }

  /** Why nothing can be written any more. */
  get failed(): TidingsError | undefined {
    return this.#failed
  }

  /** Resolved when there is room for more, not when it is sent. Rejected when a piece could not be sent. */
  async write(piece: string): Promise<void> {
    if (this.#failed) throw this.#failed
    if (this.#ending) throw new TidingsError('closed', 'it was ended')
    this.#waiting += piece
    this.#wake()
    // A writer that does not wait is held to the bound all the same.
    if (this.#waiting.length > 2 * this.#maxWaiting)
      this.#fail(new TidingsError('too_large', 'too much waits to be sent: await write()'))
    while (this.#failed === undefined && this.#waiting.length > this.#maxWaiting) {
      this.#room ??= open()
      await this.#room.promise
    }
    if (this.#failed) throw this.#failed
  }

  /** Sends what is left, with the end. */
  async end(): Promise<void> {
    if (this.#failed) throw this.#failed
    if (!this.#ending) {
      this.#ending = true
      clearTimeout(this.#timer)
      this.#timer = undefined
      this.#running = (this.#running ?? Promise.resolve()).then(() => this.#run())
    }
    await this.#running
    if (this.#failed) throw this.#failed
  }

  /** Resolved when all that was written is sent. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#waiting !== '' || this.#running) this.#running ??= this.#start()
    await this.#running
    if (this.#failed) throw this.#failed
  }

  /** Drops what waits when the signal says so; nothing more is sent then. */
  heed(signal: AbortSignal | undefined): void {
    const stop = (): void => this.#fail(new TidingsError('aborted', 'the writer was stopped'))
    if (signal?.aborted) stop()
    else signal?.addEventListener('abort', stop, { once: true })
    this.#unheed = () => signal?.removeEventListener('abort', stop)
  }

  #wake(): void {
    if (this.#running !== undefined || this.#timer !== undefined || this.#waiting === '') return
    if (this.#everyMs > 0 && this.#waiting.length < this.#maxChars) {
      this.#timer = setTimeout(() => {
        this.#timer = undefined
        this.#running ??= this.#start()
      }, this.#everyMs)
    } else this.#running = this.#start()
  }

  #start(): Promise<void> {
    // A microtask later, so that pieces of one moment go together.
    return Promise.resolve().then(() => this.#run())
  }

  async #run(): Promise<void> {
    try {
      while (this.#failed === undefined && !this.#ended && (this.#waiting !== '' || this.#ending)) {
        const piece = this.#take()
        const last = this.#ending && this.#waiting === ''
        this.#room?.done()
        this.#room = undefined
        this.#ended = last
        await this.#send(piece, last)
        if (last) this.#unheed()
      }
    } catch (error) {
      this.#fail(failure(error))
    } finally {
      if (!this.#ending) this.#running = undefined
    }
  }

  #take(): string {
    let end = Math.min(this.#maxChars, this.#waiting.length)
    // Not within a pair of surrogates: half of one is no text.
    const code = this.#waiting.charCodeAt(end - 1)
    if (end < this.#waiting.length && code >= 0xd800 && code <= 0xdbff) end--
    const piece = this.#waiting.slice(0, end)
    this.#waiting = this.#waiting.slice(end)
    return piece
  }

  #fail(error: TidingsError): void {
    this.#failed ??= error
    this.#unheed()
    this.#waiting = ''
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#room?.done()
    this.#room = undefined
  }
}

function open(): { promise: Promise<void>; done: () => void } {
  let done = () => {}
  const promise = new Promise<void>((resolve) => {
    done = resolve
  })
  return { promise, done }
}
