// Compressed batches: their frames hold a head in the socket's encoding, and the events behind it as deflate-raw.

import { isWords, unreadable } from './core/check.js'
import type { Compression } from './wire.js'

/**
 * Asks for batches compressed by `deflate-raw`, for lines that are slow or cost money:
 * `createClient(url, { compress: deflateRaw })`. Where the platform has no `DecompressionStream` nothing is asked for.
 */
export const deflateRaw: Compression = {
  name: 'deflate-raw',
  get available() {
    return typeof DecompressionStream === 'function'
  },
  async decode(frame, codec, bytesMax) {
    const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
    const end = frame.length < 5 ? Infinity : 5 + view.getUint32(1, true)
    if (end > frame.length) throw unreadable('a compressed batch without its head')
    const message = codec.decode(frame.subarray(5, end))
    if (!isWords(message.events)) throw unreadable('a compressed message that is no batch')
    const events = codec.decodeEvents(await inflate(frame.subarray(end), bytesMax))
    return { ...message, events: { ...message.events, events } }
  },
}

/** Inflates; more than so many bytes are refused before they are kept. */
async function inflate(bytes: Uint8Array, bytesMax: number): Promise<Uint8Array> {
  const stream = new Blob([bytes as Uint8Array<ArrayBuffer>])
    .stream()
    .pipeThrough(new DecompressionStream('deflate-raw'))
  const reader = stream.getReader()
  const parts: Uint8Array<ArrayBuffer>[] = []
  for (let left = bytesMax; ; ) {
    const { value } = await reader.read().catch((error: unknown) => {
      throw unreadable('a batch that cannot be inflated', error)
    })
    if (!value) return new Uint8Array(await new Blob(parts).arrayBuffer())
    left -= value.length
    if (left < 0) {
      await reader.cancel()
      throw unreadable(`a batch of more than ${bytesMax} bytes`)
    }
    parts.push(value as Uint8Array<ArrayBuffer>)
  }
}
