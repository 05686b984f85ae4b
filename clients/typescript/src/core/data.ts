// Data of events as bytes, as MessagePack and Protobuf have it. Not part of the core.

import type { Words } from '../wire.js'

const decoder = new TextDecoder('utf-8', { fatal: true })
const encoder = new TextEncoder()
const BYTES = 'application/octet-stream'

/** A publish with its data as bytes. JSON is the content type that needs no saying. */
export function withDataBytes(event: Words): Words {
  const { data, datacontenttype: type } = event
  if (data === undefined) return event
  const out: Words = {}
  for (const [name, value] of Object.entries(event)) {
    if (name !== 'data') out[name] = value
    else {
      if (data instanceof Uint8Array) out.datacontenttype ??= BYTES
      const text = typeof data === 'string' && typeof type === 'string' && /^text\//i.test(type) ? data : undefined
      out.data = data instanceof Uint8Array ? data : encoder.encode(text ?? JSON.stringify(data))
    }
  }
  return out
}

/** What bytes are by their content type: JSON as a value, `text/*` as a string, else the bytes. */
export function dataOf(bytes: Uint8Array, type: unknown): unknown {
  const kind = typeof type === 'string' ? (type.split(';')[0]?.trim().toLowerCase() ?? '') : 'application/json'
  try {
    if (kind === 'application/json' || kind.endsWith('+json')) return JSON.parse(decoder.decode(bytes))
    if (kind.startsWith('text/')) return decoder.decode(bytes)
  } catch {
    // It is not what its type says: then it is bytes.
  }
  return bytes
}

/** Makes the data of these events what the program sees. Changes and returns them. */
export function withDataValues(events: Words[]): Words[] {
  for (const event of events) {
    // A copy: the frame would stay in memory as long as the event does.
    if (event.data instanceof Uint8Array) event.data = dataOf(event.data.slice(), event.datacontenttype)
  }
  return events
}

/** A request with the data of its publishes as bytes. */
export function withRequestBytes(request: Words): Words {
  const { publish, publish_batch: batch } = request
  if (publish) return { ...request, publish: withDataBytes(publish as Words) }
  if (!batch) return request
  return { ...request, publish_batch: { events: (batch as { events: Words[] }).events.map(withDataBytes) } }
}
