// Writes a message in chunks, while it comes into being, and goes on where a writer before it was cut off.

import { uuidv7 } from '../core/uuid.js'
import { TidingsError } from '../errors.js'
import type { Client, ReadResult } from '../types.js'
import { Assembly, CHUNK } from './assembly.js'
import { type AnyClient, anyClient, given } from './data.js'
import { type PipeOptions, TextPipe } from './pipe.js'

/** Options of `streamWriter`. */
export interface StreamWriterOptions extends PipeOptions {
  /** Names the message: all its chunks have it. Default a new UUIDv7. With `resume` it must be given. */
  correlation?: string
  /** Look in the log how far a writer before this one got, and go on there. Default `false`. */
  resume?: boolean
  /** Nobody else writes to this topic: whoever does so meanwhile makes the write fail as `conflict`. Default `false`. */
  exclusive?: boolean
  /** Headers of every chunk. */
  headers?: Record<string, string>
  /** Drops what waits; `abort` is what tells readers. */
  signal?: AbortSignal
}

/** Writes one message. */
export interface StreamWriter {
  /** Names the message: all its chunks have it. */
  readonly correlation: string
  /** What a writer before this one has written; empty without `resume`. Resolved when that is known. */
  resumed(): Promise<string>
  /**
   * Adds to the message. Resolved when there is room for more, so that awaiting it keeps the writer to the speed of the
   * line; a writer that never waits is stopped as `too_large`. Rejected when a chunk could not be published: `conflict`
   * where another writer goes on with the same message.
   */
  write(delta: string): Promise<void>
  /** Resolved when all that was written is in the log. */
  flush(): Promise<void>
  /** That was all. Resolved when it is in the log. */
  end(): Promise<void>
  /**
   * There will be no end, and no chunk that is `final`: readers see the error `aborted` with this reason. What was written
   * before is sent first. Behind `end` it changes nothing: the message is whole.
   */
  abort(reason?: string): Promise<void>
}

/**
 * Writes a message to a topic in chunks `{seq, delta, final}` of one correlation, which `assemble` puts together.
 *
 * ```ts
 * const answer = streamWriter(client, 'chat.7')
 * for await (const token of model) await answer.write(token)
 * await answer.end()
 * ```
 */
export function streamWriter<S>(client: Client<S>, topic: string, options: StreamWriterOptions = {}): StreamWriter {
  return new Writer(anyClient(client), topic, options)
}

class Writer implements StreamWriter {
  readonly correlation: string
  readonly #client: AnyClient
  readonly #topic: string
  readonly #options: StreamWriterOptions
  readonly #pipe: TextPipe
  #seq = 0
  #start: number | undefined
  #last: number | undefined
  /** How it ends, whichever was said first. */
  #over = false
  #reason: string | undefined
  #found: Promise<string> | undefined

  constructor(client: AnyClient, topic: string, options: StreamWriterOptions) {
    if (options.resume && options.correlation === undefined) {
      throw new TidingsError('invalid_argument', 'resume goes on with a message: give its correlation')
    }
    this.correlation = options.correlation ?? uuidv7()
    this.#client = client
    this.#topic = topic
    this.#options = options
    this.#pipe = new TextPipe((delta, last) => this.#chunk(delta, last), options)
    this.#pipe.heed(options.signal)
  }

  resumed(): Promise<string> {
    this.#found ??= this.#options.resume ? this.#find() : Promise.resolve('')
    return this.#found
  }

  write(delta: string): Promise<void> {
    return this.#pipe.write(delta)
  }

  flush(): Promise<void> {
    return this.#pipe.flush()
  }

  end(): Promise<void> {
    this.#over = true
    return this.#pipe.end()
  }

  abort(reason = 'the writer gave up'): Promise<void> {
    if (!this.#over) this.#reason = reason
    return this.end()
  }

  async #chunk(delta: string, last: boolean): Promise<void> {
    await this.resumed()
    const seq = this.#seq
    const error = last ? this.#reason : undefined
    // Not final where it was given up: who looks only there must not take it for whole.
    const data = given({ seq, delta, final: last && error === undefined, start: this.#start, error })
    // The same chunk of two writers has the same id: who comes second with another text is told `conflict`.
    const id = this.correlation.length <= 160 ? `${this.correlation}:${seq}` : uuidv7()
    const { headers, exclusive } = this.#options
    const published = await this.#client.publish(this.#topic, data, {
      type: CHUNK,
      correlation: this.correlation,
      id,
      ...(headers && { headers }),
      ...(exclusive && this.#last !== undefined && { expectLast: this.#last }),
    })
    this.#seq++
    this.#start ??= published.offset
    this.#last = published.offset
  }

  /** Reads what there is of it. */
  async #find(): Promise<string> {
    const assembly = new Assembly({ maxMessages: 1, maxChars: Infinity, maxWaiting: Infinity })
    for (let after: number | 'first' = 'first'; ; ) {
      // Without a selection of types: `exclusive` needs the last offset of the topic, whatever is there.
      const page: ReadResult = await this.#client.read(this.#topic, {
        after,
        limit: 1_000,
        ...(this.#options.signal && { signal: this.#options.signal }),
      })
      for (const event of page.events) {
        this.#last = event.offset
        if (event.correlation !== this.correlation || assembly.take(event) === undefined) continue
        this.#seq++
        if (this.#seq === 1) this.#start = event.offset
      }
      if (page.cursor >= page.last || page.cursor === after) break
      after = page.cursor
    }
    const message = assembly.get(this.correlation)
    if (message?.missing)
      throw new TidingsError('offset_gone', 'chunks of the message are not in the log: begin a new one')
    if (message?.complete || message?.error) throw new TidingsError('conflict', 'the message has its end')
    return message?.text ?? ''
  }
}
