// Chunks into texts, in whatever order, as often and with whatever cuts they come. No subscription, no clock.

import { TidingsError } from '../errors.js'
import type { TidingsEvent } from '../types.js'
import { fields, finite, text, trim } from './data.js'

/** The type of the events that carry chunks. */
export const CHUNK = 'message.chunk'

/** A message that is put together. */
export interface AssembledMessage {
  /** What its chunks have in common. */
  readonly correlation: string
  /** Where its chunks are. */
  readonly topic: string
  /** Who writes it: the `source` of its events. */
  readonly source: string
  /** All that is there without a hole, from its beginning. */
  readonly text: string
  /** Whether that is all of it. */
  readonly complete: boolean
  /** Whether chunks before those that are here are missing: the reader came late, or they are gone. */
  readonly missing: boolean
  /**
   * Why it will not be complete: `aborted` by its writer, `offset_gone` where chunks are gone from the log, `too_large`
   * over the bounds here.
   */
  readonly error: TidingsError | undefined
  /** The offset of its first chunk, where it is known. */
  readonly start: number | undefined
  /** When the first chunk that is here was appended, RFC 3339. */
  readonly startedAt: string
  /** When the last chunk that is here was appended, RFC 3339. */
  readonly updatedAt: string
}

/** Bounds of what is put together. */
export interface AssemblyBounds {
  /** The most messages; those first heard of go first. Default 200. */
  maxMessages?: number
  /** The most characters of one message, with what waits for the chunks before it. Default 1,000,000. */
  maxChars?: number
  /** The most chunks of one message that may wait for the chunks before them. Default 4,096. */
  maxWaiting?: number
}

/** What a chunk says. */
interface Chunk {
  seq: number
  delta: string
  final: boolean
  error: string | undefined
  start: number | undefined
}

interface Draft {
  topic: string
  source: string
  text: string
  /** The number of the chunk that is to come. */
  next: number
  /** Chunks that came before those before them. */
  waiting: Map<number, Chunk>
  chars: number
  complete: boolean
  error: TidingsError | undefined
  start: number | undefined
  startedAt: string
  updatedAt: string
  /** The message as it was shown last; gone when it changes. */
  shown: AssembledMessage | undefined
}

/** Puts messages together. */
export class Assembly {
  readonly #drafts = new Map<string, Draft>()
  readonly #maxMessages: number
  readonly #maxChars: number
  readonly #maxWaiting: number

  constructor({ maxMessages = 200, maxChars = 1_000_000, maxWaiting = 4_096 }: AssemblyBounds = {}) {
    this.#maxMessages = maxMessages
    this.#maxChars = maxChars
    this.#maxWaiting = maxWaiting
  }

  /** Takes a chunk up. The correlation of the message that changed; `undefined` where none did. */
  take(event: TidingsEvent): string | undefined {
    const chunk = chunkOf(event)
    const { correlation } = event
    if (chunk === undefined || correlation === undefined) return undefined
    const draft = this.#drafts.get(correlation) ?? this.#begin(correlation, event)
    if (chunk.seq === 0) draft.start = event.offset
    else draft.start ??= chunk.start
    // It has come before, or nothing is wanted any more.
    if (draft.complete || draft.error !== undefined || chunk.seq < draft.next || draft.waiting.has(chunk.seq))
      return undefined
    draft.waiting.set(chunk.seq, chunk)
    draft.chars += chunk.delta.length
    if (event.time > draft.updatedAt) draft.updatedAt = event.time
    this.#join(draft)
    if (draft.error === undefined && (draft.chars > this.#maxChars || draft.waiting.size > this.#maxWaiting)) {
      this.#fail(
        draft,
        new TidingsError('too_large', `the message has more than ${this.#maxChars} characters, or too many holes`),
      )
    }
    draft.shown = undefined
    return correlation
  }

  /** The chunks that are missing do not come any more: ends the messages that wait for them. Those that it ended. */
  giveUp(why: TidingsError, correlations: Iterable<string> = this.#drafts.keys()): string[] {
    const ended: string[] = []
    for (const correlation of [...correlations]) {
      const draft = this.#drafts.get(correlation)
      if (draft === undefined || draft.waiting.size === 0) continue
      this.#fail(draft, why)
      draft.shown = undefined
      ended.push(correlation)
    }
    return ended
  }

  /** Forgets all. */
  clear(): void {
    this.#drafts.clear()
  }

  get(correlation: string): AssembledMessage | undefined {
    const draft = this.#drafts.get(correlation)
    if (draft === undefined) return undefined
    draft.shown ??= show(correlation, draft)
    return draft.shown
  }

  /** All, in the order in which they were first heard of. Those that have not changed are the same objects as before. */
  all(): AssembledMessage[] {
    return [...this.#drafts.keys()].flatMap((correlation) => this.get(correlation) ?? [])
  }

  #begin(correlation: string, { topic, source, time }: TidingsEvent): Draft {
    const draft: Draft = {
      topic,
      source,
      text: '',
      next: 0,
      waiting: new Map(),
      chars: 0,
      complete: false,
      error: undefined,
      start: undefined,
      startedAt: time,
      updatedAt: time,
      shown: undefined,
    }
    this.#drafts.set(correlation, draft)
    trim(this.#drafts, this.#maxMessages)
    return draft
  }

  #join(draft: Draft): void {
    for (;;) {
      const chunk = draft.waiting.get(draft.next)
      if (chunk === undefined) return
      draft.waiting.delete(draft.next)
      draft.next++
      draft.text += chunk.delta
      if (chunk.error !== undefined) return this.#fail(draft, new TidingsError('aborted', chunk.error))
      if (chunk.final) {
        draft.complete = true
        draft.waiting.clear()
        return
      }
    }
  }

  #fail(draft: Draft, error: TidingsError): void {
    draft.error = error
    draft.waiting.clear()
  }
}

function chunkOf(event: TidingsEvent): Chunk | undefined {
  if (event.type !== CHUNK) return undefined
  const data = fields(event.data)
  const seq = finite(data.seq)
  if (seq === undefined || !Number.isSafeInteger(seq) || seq < 0) return undefined
  const error = data.error === undefined ? undefined : (text(data.error) ?? 'the writer gave up')
  return { seq, delta: text(data.delta) ?? '', final: data.final === true, error, start: finite(data.start) }
}

function show(correlation: string, draft: Draft): AssembledMessage {
  const { topic, source, text: whole, complete, error, start, startedAt, updatedAt } = draft
  return {
    correlation,
    topic,
    source,
    text: whole,
    complete,
    missing: draft.waiting.size > 0,
    error,
    start,
    startedAt,
    updatedAt,
  }
}
