// Compressed batches: their frames hold a head in the socket's encoding, and the events behind it as deflate-raw.

import { isWords, unreadable } from './core/check.js'
import type { Codec, Compression, WireMessage } from './wire.js'

/**
 * Asks for batches compressed by `deflate-raw`, for lines that are slow or cost money:
 * `createClient(url, { compress: deflateRaw })`. Where the platform has no `DecompressionStream` nothing is asked for.
 */
export const deflateRaw: Compression = {
  name: 'deflate-raw',
  get available() {
    return typeof DecompressionStream === 'function'
  },
  reader(codec, bytesMax, decode, message, broken) {
    /** The last that is being inflated or waits for one that is. */
    let last: Promise<void> | undefined
    return (frame) => {
      const compressed = typeof frame !== 'string' && frame[0] === 1
      if (!last && !compressed) return false
      // Inflating takes its time; what came behind waits for it.
      const mine = (last ?? Promise.resolve())
        .then(() => (compressed ? decompress(frame, codec, bytesMax()) : decode(frame)))
        .then(message)
        .catch(broken)
        .then(() => {
          if (last === mine) last = undefined
        })
      last = mine
      return true
    }
  },
}

/** A compressed frame, whose events have `bytesMax` bytes at most. */
async function decompress(frame: Uint8Array, codec: Codec, bytesMax: number): Promise<WireMessage> {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
  const end = frame.length < 5 ? Infinity : 5 + view.getUint32(1, true)
  if (end > frame.length) throw unreadable('a compressed batch without its head')
  const message = codec.decode(frame.subarray(5, end))
  if (!isWords(message.events)) throw unreadable('a compressed message that is no batch')
  const events = codec.decodeEvents(await inflate(frame.subarray(end), bytesMax))
  return { ...message, events: { ...message.events, events } }
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
