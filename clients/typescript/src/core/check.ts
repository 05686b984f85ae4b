import { TidingsError } from '../errors.js'
import type { WireMessage, Words } from '../wire.js'

/** What answers a request, by `reply`, and what comes unasked. Some are both. */
const REPLIES =
  'connected published published_batch scheduled subscribed acked nacked unsubscribed refreshed presence receipts cancelled pong error'.split(
    ' ',
  )
const PUSHES = 'events caught_up gap superseded acked pong token_expiring goodbye error'.split(' ')

export function isWords(value: unknown): value is Words {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function isOffset(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0
}

/** What came is not what a broker of this version says. */
export function unreadable(what: string, cause?: unknown): TidingsError {
  return new TidingsError('protocol', `the broker's message cannot be read: ${what}`, { cause })
}

/** The cause of the error where a whole message is a push of a kind that only a later version knows. */
export const LATER = Symbol('later')

/** What a message says: the one word that is known beside `reply`. */
export function kindOf(message: WireMessage): string | undefined {
  const kinds = (message.reply === undefined ? PUSHES : REPLIES).filter((kind) => isWords(message[kind]))
  return kinds.length === 1 ? kinds[0] : undefined
}

/**
 * The message, if it says one thing that is known, and its events are events. What is unknown beside it is of a later
 * version and passed over.
 */
export function checked(message: unknown): WireMessage {
  const kind = isWords(message) && kindOf(message)
  if (kind === undefined && isLater(message as WireMessage)) throw unreadable('a push of a later version', LATER)
  if (!kind) throw unreadable('it says nothing known, or two things')
  const body = message[kind] as Words
  if (kind === 'events') checkEvents(body.events)
  if ((kind === 'published' || kind === 'scheduled') && !isOffset(body.offset)) throw unreadable(`${kind}.offset`)
  return message
}

/** Whether a message comes unasked and says one thing, and that is not known here. */
function isLater(message: WireMessage): boolean {
  if (message.reply !== undefined) return false
  const said = Object.keys(message).filter((kind) => isWords(message[kind]))
  return said.length === 1 && !REPLIES.includes(said[0] ?? '') && !PUSHES.includes(said[0] ?? '')
}

/** Throws where these are not events. */
export function checkEvents(events: unknown): asserts events is Words[] {
  if (!Array.isArray(events)) throw unreadable('events.events')
  for (const event of events) {
    if (!isWords(event) || !isOffset(event.offset) || typeof event.topic !== 'string') throw unreadable('an event')
  }
}
