// From what a program says to the words of the protocol, and back.

import { failure } from '../errors.js'
import type { OutboxEvent } from '../options.js'
import type { After, PublishRequest, SubscribeOptions, TidingsEvent } from '../types.js'
import type { Words } from '../wire.js'
import { uuidv7 } from './uuid.js'

/** Options under the names of the protocol: `ttlMs` is `ttl_ms`. What is `undefined` is left out; a date is RFC 3339. */
export function wordsOf(options: object): Words {
  const words: Words = {}
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined) continue
    words[name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)] =
      value instanceof Date ? value.toISOString() : value
  }
  return words
}

/**
 * A publish, with an id of its own where it was given none. The data is what it is now: what the program does to the
 * object later changes nothing, and every retry has the same bytes.
 */
export function publishWords(request: PublishRequest): OutboxEvent {
  const data = snapshot(request.data, request.datacontenttype)
  return wordsOf({ ...request, id: request.id ?? uuidv7(), data }) as OutboxEvent
}

function snapshot(data: unknown, contentType = ''): unknown {
  if (data instanceof ArrayBuffer || ArrayBuffer.isView(data)) {
    const { buffer, byteOffset, byteLength } = data as ArrayBufferView
    return new Uint8Array(buffer ?? data, byteOffset, byteLength).slice()
  }
  if (/^text\//i.test(contentType) && typeof data !== 'string' && data !== undefined) {
    throw failure('invalid_argument', `${contentType} is a string or bytes`)
  }
  try {
    return data === undefined ? data : JSON.parse(JSON.stringify(data))
  } catch (cause) {
    throw failure('invalid_argument', 'no JSON', cause)
  }
}

/** An event of the broker as the program sees it. */
export function toEvent(words: Words, attempts: number, own: boolean): TidingsEvent {
  return { priority: 'normal', ...words, attempts, own } as unknown as TidingsEvent
}

/** Where to begin: `after`, `log` and `since`, as a subscribe and a read have them. `now` is nothing at all. */
export function placeWords(after: After | undefined): object {
  if (after === 'now') return {}
  if (after instanceof Date) return { since: after }
  if (typeof after === 'object') return { after: after.cursor, log: after.log }
  return { after: after === 'first' ? 0 : after }
}

/** A subscribe, from its beginning. */
export function subscribeWords(filters: readonly string[], options: SubscribeOptions): Words {
  // What is for this side only stays here.
  const { after, key, start, ack, onGap, bufferEvents, bufferBytes, signal, ...rest } = options as SubscribeOptions & {
    after?: After
    key?: string
    start?: After
    ack?: string
  }
  const begin = typeof start === 'object' && 'cursor' in start ? positionOf(start.cursor, start.log) : start
  const onError = onGap === 'error' ? onGap : undefined
  return wordsOf({ filters, ...rest, ...placeWords(after), start: begin, onGap: onError })
}

/** A cursor with its log, in one word. */
function positionOf(cursor: unknown, log: unknown): string {
  return `${cursor}@${`${log}`.slice(0, 8)}`
}

/** The parameters of a read, a stream of filters, or a list; of options or of words. */
export function queryOf(options: object): URLSearchParams {
  const query = new URLSearchParams()
  const words = wordsOf(options)
  for (const [name, value] of Object.entries(words)) {
    if (name === 'headers')
      for (const [header, text] of Object.entries(value as object)) query.append('header', `${header}:${text}`)
    else if (Array.isArray(value)) for (const one of value) query.append(name === 'filters' ? 'topic' : name, one)
    else if (name === 'after' && words.log !== undefined) query.set(name, positionOf(value, words.log))
    else if (name !== 'log') query.set(name, name === 'presence' ? JSON.stringify(value) : `${value}`)
  }
  return query
}
