// Terminals on `terminals.<id>`: watched from their scrollback on, and written.

import type { TidingsError } from '../errors.js'
import { anyClient, fields, finite, topicOf } from '../helpers/data.js'
import { type PipeOptions, TextPipe } from '../helpers/pipe.js'
import { Lifetime, Store, type Watched, type WatchOptions } from '../helpers/watch.js'
import type { AnySchema, Client, EphemeralOptions, TidingsEvent } from '../types.js'
import { type ScrollbackOptions, TerminalBuffer, type TerminalOutput } from './buffer.js'

export { type ScrollbackOptions, TerminalBuffer, type TerminalOutput } from './buffer.js'

/** The type of what a terminal shows: `text/plain`, with control sequences. */
export const OUTPUT = 'terminal.output'
/** The type of its end: `{exit}`. */
export const CLOSED = 'terminal.closed'

/** A terminal as it stands. */
export interface TerminalSnapshot {
  /** The terminal: what is on `terminals.<id>`. */
  readonly id: string
  /** The lines that are kept, without their ends; the last one is what is being written. */
  readonly lines: readonly string[]
  /** How many lines went before them. */
  readonly dropped: number
  /** Behind the last character; `read` goes on from there. */
  readonly position: number
  /** Whether its program has ended. */
  readonly closed: boolean
  /** The code it ended with; `undefined` while it runs, and where nobody said. */
  readonly exit: number | undefined
  /** Whether all that was there has been handed over. */
  readonly caughtUp: boolean
  /** Why nothing more will come; `undefined` while all is well. */
  readonly error: TidingsError | undefined
}

/** Options of `terminal`. */
export interface TerminalOptions extends WatchOptions, ScrollbackOptions {
  /** Where to begin. Default `first`. */
  after?: EphemeralOptions['after']
  /** How long the broker gathers output, 10,000 at most. Default 30. */
  lingerMs?: number
}

/** A terminal that is watched. */
export interface Terminal extends Watched<TerminalSnapshot> {
  /** What was written behind a position, for a screen that draws by itself; 0 for all that is kept. */
  read(position: number): TerminalOutput
}

/** Watches the terminal `id`. Listeners are told every 30 ms at most unless `notifyMs` says otherwise. */
export function terminal<S = AnySchema>(client: Client<S>, id: string, options: TerminalOptions = {}): Terminal {
  const life = new Lifetime(options.signal)
  const buffer = new TerminalBuffer(options)
  const bytes = new TextDecoder()
  let closed = false
  let exit: number | undefined
  const take = (event: TidingsEvent) => {
    // A character may lie across two events of bytes; what is none is ended by what follows.
    const rest = event.data instanceof Uint8Array ? '' : bytes.decode()
    if (rest !== '') buffer.write(rest)
    if (event.type === CLOSED) {
      closed = true
      exit = finite(fields(event.data).exit)
    } else {
      // It goes on: somebody has begun anew.
      closed = false
      if (typeof event.data === 'string') buffer.write(event.data)
      else if (event.data instanceof Uint8Array) buffer.write(bytes.decode(event.data, { stream: true }))
    }
    store.changed()
  }
  const wish = { after: options.after ?? ('first' as const), lingerMs: options.lingerMs ?? 30, types: ['terminal.*'] }
  const sub = anyClient(client).subscribe(topicOf('terminals', id), wish, take)
  const store = new Store<TerminalSnapshot>(
    () => ({
      id,
      lines: buffer.lines(),
      dropped: buffer.dropped,
      position: buffer.end,
      closed,
      exit,
      caughtUp: sub.caughtUp,
      error: sub.error,
    }),
    options.notifyMs ?? 30,
  )
  sub.on('caught_up', () => store.changed())
  sub.on('state', () => store.changed())
  sub.on('gap', (gap) => {
    if (gap.reason === 'log_changed') buffer.clear()
    store.changed()
  })
  life.add(() => sub.unsubscribe())
  life.add(() => store.flush())
  return {
    read: (position) => buffer.read(position),
    snapshot: store.snapshot,
    subscribe: store.subscribe,
    close: life.close,
  }
}

/** Options of `terminalWriter`. */
export interface TerminalWriterOptions extends PipeOptions {
  /** Drops what waits. */
  signal?: AbortSignal
}

/** Writes a terminal. */
export interface TerminalWriter {
  /** Adds output. Resolved when there is room for more; a writer that never waits is stopped as `too_large`. */
  write(output: string | Uint8Array): Promise<void>
  /** Resolved when all that was written is in the log. */
  flush(): Promise<void>
  /** Its program has ended. Resolved when that is in the log. */
  end(exit?: number): Promise<void>
}

/**
 * Writes the terminal `id`: what is written within 10 ms, or while the line is busy, goes together, in order, and none
 * of it is lost or doubled when the connection breaks.
 */
export function terminalWriter<S = AnySchema>(
  client: Client<S>,
  id: string,
  options: TerminalWriterOptions = {},
): TerminalWriter {
  const any = anyClient(client)
  const topic = topicOf('terminals', id)
  const bytes = new TextDecoder()
  let code: number | undefined
  const pipe = new TextPipe(
    async (piece, last) => {
      if (piece !== '') await any.publish(topic, piece, { type: OUTPUT, datacontenttype: 'text/plain' })
      if (last) await any.publish(topic, { exit: code ?? null }, { type: CLOSED })
    },
    { everyMs: 10, ...options },
  )
  pipe.heed(options.signal)
  return {
    write: (output) =>
      pipe.write(typeof output === 'string' ? bytes.decode() + output : bytes.decode(output, { stream: true })),
    flush: () => pipe.flush(),
    async end(exit) {
      code = exit
      // A character that was begun and will not be whole.
      const rest = bytes.decode()
      if (rest !== '') await pipe.write(rest)
      await pipe.end()
    },
  }
}
