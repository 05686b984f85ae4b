import { failure, type TidingsError } from '../errors.js'
import type { WireMessage, Words } from '../wire.js'

/** What the broker says: at first what only answers a request, by `reply`, at the end what only comes unasked. */
const KINDS =
  'connected published published_batch scheduled subscribed nacked unsubscribed refreshed presence receipts cancelled acked pong error events caught_up gap superseded token_expiring goodbye'.split(
    ' ',
  )

export function isWords(value: unknown): value is Words {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function isOffset(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0
}

/** What came is not what a broker of this version says. */
export function unreadable(what: string, cause?: unknown): TidingsError {
  return failure('protocol', `it cannot be read: ${what}`, cause)
}

/** The cause of the error where a whole message is a push of a kind that only a later version knows. */
export const LATER = Symbol('later')

/** What a message says: the one word that is known beside `reply`. */
export function kindOf(message: WireMessage): string | undefined {
  const kinds = message.reply === undefined ? KINDS.slice(11) : KINDS.slice(0, 14)
  const [kind, more] = kinds.filter((name) => isWords(message[name]))
  return more ? undefined : kind
}

/**
 * The message, if it says one thing that is known, and its events are events. What is unknown beside it is of a later
 * version and passed over.
 */
export function checked(message: unknown): WireMessage {
  const kind = isWords(message) && kindOf(message)
  if (!kind) {
    const isLater = isWords(message) && !message.reply && !KINDS.some((name) => isWords(message[name]))
    throw unreadable('nothing known', isLater ? LATER : undefined)
  }
  const { events, offset } = message[kind] as Words
  if (kind === 'events') checkEvents(events)
  if ((kind === 'published' || kind === 'scheduled') && !isOffset(offset)) throw unreadable(`${kind}.offset`)
  return message
}

/** Throws where these are not events. */
export function checkEvents(events: unknown): asserts events is Words[] {
  if (!Array.isArray(events)) throw unreadable('an event')
  for (const event of events) {
    if (!isWords(event) || !isOffset(event.offset) || typeof event.topic !== 'string') throw unreadable('an event')
  }
}
