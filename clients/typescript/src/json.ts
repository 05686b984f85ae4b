import { fromBase64, toBase64 } from './core/base64.js'
import { checkEvents, checked, isWords, unreadable } from './core/check.js'
import type { Codec, WireRequest, Words } from './wire.js'

const text = new TextDecoder('utf-8', { fatal: true })

/** JSON, one message a text frame. It is built in; the others are `tidings/msgpack` and `tidings/protobuf`. */
export const json: Codec = {
  subprotocol: 'tidings.v1.json',
  encode: (request) => JSON.stringify(withJsonData(request)),
  decode(frame) {
    const message = checked(parse(typeof frame === 'string' ? frame : text.decode(frame)))
    const batch = message.events
    if (isWords(batch)) batch.events = fromJsonEvents(batch.events)
    return message
  },
  decodeEvents: (bytes) => fromJsonEvents(parse(text.decode(bytes))),
}

/** What a text says. */
export function parse(frame: string): unknown {
  try {
    return JSON.parse(frame)
  } catch (error) {
    throw unreadable('no JSON', error)
  }
}

function withJsonData(request: WireRequest): Words {
  const { publish, publish_batch: batch } = request
  if (publish) return { ...request, publish: toJsonEvent(publish as Words) }
  if (!batch) return request
  return { ...request, publish_batch: { events: (batch as { events: Words[] }).events.map(toJsonEvent) } }
}

/** A publish as JSON says it: bytes as `data_base64`; so is `null`, which JSON refuses as a value of its own. */
export function toJsonEvent(event: Words): Words {
  const { data, ...rest } = event
  if (!(data instanceof Uint8Array) && data !== null) return event
  if (data) return { ...rest, data_base64: toBase64(data) }
  return { ...rest, datacontenttype: rest.datacontenttype ?? 'application/json', data_base64: 'bnVsbA==' }
}

/** Events as JSON says them, with bytes as bytes. Changes and returns them. */
export function fromJsonEvents(events: unknown): Words[] {
  checkEvents(events)
  for (const event of events) {
    if (typeof event.data_base64 === 'string') {
      event.data = fromBase64(event.data_base64)
      delete event.data_base64
    }
  }
  return events
}
