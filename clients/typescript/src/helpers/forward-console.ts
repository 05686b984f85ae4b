// What a page logs, as events: few, short, without secrets, and never because of themselves.
//
// - Nothing that is logged while an entry is made or published is forwarded, so that a logger of the client, or a hook
//   that logs, cannot feed itself. What it logs later is held by the rate.
// - Entries wait in a bounded list, of which the oldest go; while there is no connection they stay there and out of the
//   outbox, whose room is for what matters. How many were left out is said with the next entry.

import type { AnySchema, Client } from '../types.js'
import { type AnyClient, anyClient, given } from './data.js'
import { shortened, stackOf, textOfArguments } from './log-entry.js'
import { Lifetime } from './watch.js'

/** How bad it is. */
export type LogLevel = 'debug' | 'log' | 'info' | 'warn' | 'error'

/** What is forwarded: the data of an event of type `log.<level>`. */
export interface LogEntry {
  /** Which function of the console was called; `error` for what nobody has caught. */
  readonly level: LogLevel
  /** The arguments as one text, cut at `maxChars`. */
  readonly message: string
  /** The stack of the first error among the arguments. */
  readonly stack?: string
  /** When it was logged, RFC 3339, by this machine's clock. */
  readonly at: string
  /** How many entries before it were left out. */
  readonly left_out?: number
}

/** Options of `forwardConsole`. */
export interface ForwardConsoleOptions {
  /** Which levels. Default `['warn', 'error']`. */
  levels?: readonly LogLevel[]
  /** Forward errors and rejections that nobody has caught. Default `true`, where the platform tells of them. */
  uncaught?: boolean
  /** Which part is forwarded, 0 to 1, or what decides. Default 1. */
  sample?: number | ((entry: LogEntry) => boolean)
  /** Takes secrets out; `null` leaves the entry out. An entry for which it throws is left out. Default: as it is. */
  redact?: (entry: LogEntry) => LogEntry | null
  /** How many a second at most. Default 10. */
  maxPerSecond?: number
  /** How many wait to be sent. Default 200. */
  maxWaiting?: number
  /** How many characters a message has at most; a stack twice as many. Default 2,000. */
  maxChars?: number
  /** How long entries are gathered, in milliseconds. Default 1,000. */
  everyMs?: number
  /** Whose calls are forwarded. Default the platform's console. */
  console?: Pick<Console, LogLevel>
  /** Stops it. */
  signal?: AbortSignal
}

/** Forwards what is logged to a topic. `close` gives the console back and sends what waits. */
export function forwardConsole<S = AnySchema>(
  client: Client<S>,
  topic: string,
  options: ForwardConsoleOptions = {},
): {
  /** Gives the console back and sends what waits. */
  close(): Promise<void>
} {
  const forwarder = new Forwarder(anyClient(client), topic, options)
  const life = new Lifetime(options.signal)
  life.add(forwarder.listen(options.console ?? console, options.levels ?? ['warn', 'error'], options.uncaught ?? true))
  life.add(() => forwarder.end())
  return { close: life.close }
}

/** The most characters of one batch. */
const BATCH_CHARS = 100_000

class Forwarder {
  readonly #client: AnyClient
  readonly #topic: string
  readonly #options: ForwardConsoleOptions
  readonly #maxChars: number
  readonly #waiting: LogEntry[] = []
  #leftOut = 0
  #busy = false
  #timer: ReturnType<typeof setTimeout> | undefined
  #sending: Promise<void> | undefined
  /** A bucket of entries that fills with time. */
  #tokens: number
  #filledAt = Date.now()

  constructor(client: AnyClient, topic: string, options: ForwardConsoleOptions) {
    this.#client = client
    this.#topic = topic
    this.#options = options
    this.#maxChars = options.maxChars ?? 2_000
    this.#tokens = options.maxPerSecond ?? 10
  }

  /** Takes the place of the console's functions; what is returned gives them back. */
  listen(target: Pick<Console, LogLevel>, levels: readonly LogLevel[], uncaught: boolean): () => void {
    const undo: (() => void)[] = []
    for (const level of levels) {
      const original = target[level]
      const wrapped = (...args: unknown[]): void => {
        original.apply(target, args)
        if (!stopped) this.#take(level, args)
      }
      target[level] = wrapped
      // Where somebody has wrapped it once more, it stays and does nothing.
      undo.push(() => {
        if (target[level] === wrapped) target[level] = original
      })
    }
    let stopped = false
    if (uncaught && typeof globalThis.addEventListener === 'function') {
      const failed = (event: Event) => {
        const { error, reason, message } = event as Partial<ErrorEvent & PromiseRejectionEvent>
        this.#take('error', ['uncaught', error ?? reason ?? message])
      }
      for (const name of ['error', 'unhandledrejection']) {
        globalThis.addEventListener(name, failed)
        undo.push(() => globalThis.removeEventListener(name, failed))
      }
    }
    return () => {
      stopped = true
      for (const one of undo) one()
    }
  }

  /** Sends what waits, where there is a connection. */
  async end(): Promise<void> {
    clearTimeout(this.#timer)
    await this.#sending
    await this.#send()
  }

  #take(level: LogLevel, args: readonly unknown[]): void {
    if (this.#busy) return
    this.#guarded(() => {
      if (!this.#hasRoom()) return void this.#leftOut++
      const stack = stackOf(args, 2 * this.#maxChars)
      const message = textOfArguments(args, this.#maxChars)
      const entry = this.#wanted(given({ level, message, stack, at: new Date().toISOString() }))
      if (entry === undefined) return
      this.#tokens--
      this.#waiting.push(entry)
      if (this.#waiting.length > (this.#options.maxWaiting ?? 200)) {
        this.#waiting.shift()
        this.#leftOut++
      }
      this.#later()
    })
  }

  #wanted(entry: LogEntry): LogEntry | undefined {
    const { sample = 1, redact } = this.#options
    if (!(typeof sample === 'function' ? sample(entry) : Math.random() < sample)) return undefined
    if (redact === undefined) return entry
    try {
      const clean = redact(entry)
      // What the hook makes of it is held to the same bounds.
      return clean === null ? undefined : { ...clean, message: shortened(String(clean.message), this.#maxChars) }
    } catch {
      this.#leftOut++
      return undefined
    }
  }

  #hasRoom(): boolean {
    const rate = this.#options.maxPerSecond ?? 10
    const now = Date.now()
    this.#tokens = Math.min(rate, this.#tokens + (Math.max(0, now - this.#filledAt) / 1_000) * rate)
    this.#filledAt = now
    return this.#tokens >= 1
  }

  #later(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      this.#sending ??= this.#send().finally(() => {
        this.#sending = undefined
        if (this.#waiting.length > 0) this.#later()
      })
    }, this.#options.everyMs ?? 1_000)
  }

  async #send(): Promise<void> {
    if (this.#client.state !== 'connected' || this.#waiting.length === 0) return
    // As many as one message takes, however they are written; the others come behind.
    let chars = 0
    const more = this.#waiting.findIndex(({ message, stack = '' }, at) => {
      chars += message.length + stack.length + 200
      return at > 0 && chars > BATCH_CHARS
    })
    const entries = this.#waiting.splice(0, more < 0 ? Infinity : more)
    const first = entries[0]
    if (first !== undefined && this.#leftOut > 0) entries[0] = { ...first, left_out: this.#leftOut }
    this.#leftOut = 0
    const topic = this.#topic
    const events = entries.map((data) => ({ topic, type: `log.${data.level}`, priority: 'low' as const, data }))
    // What cannot be published is not logged: that would be forwarded.
    const sent = this.#guarded(() => this.#client.publishBatch(events))
    await sent?.catch(() => {
      this.#leftOut += entries.length
    })
    return this.#send()
  }

  #guarded<T>(work: () => T): T | undefined {
    this.#busy = true
    try {
      return work()
    } catch {
      return undefined
    } finally {
      this.#busy = false
    }
  }
}
