// From the frames of a socket to messages, in their order.
//
// - A binary frame begins with 0 (a message of MessagePack or Protobuf) or 1 (a compressed batch of any encoding).
// - Inflating takes its time; what came behind waits for it.

import type { Codec, Compression, WireMessage } from '../wire.js'
import { unreadable } from './check.js'

/** Takes frames; tells messages in their order, and once that one cannot be read. */
export function frameReader(
  codec: Codec,
  compression: Compression | undefined,
  bytesMax: () => number,
  message: (message: WireMessage) => void,
  broken: (error: unknown) => void,
): (frame: string | ArrayBuffer) => void {
  /** The last that is being inflated or waits for one that is. */
  let last: Promise<void> | undefined
  const decode = (frame: string | Uint8Array): WireMessage | Promise<WireMessage> => {
    if (typeof frame === 'string') return codec.decode(frame)
    if (frame[0] === 1 && compression) return compression.decode(frame, codec, bytesMax())
    if (frame[0] !== 0) throw unreadable(`a frame that begins with ${frame[0]}`)
    return codec.decode(frame.subarray(1))
  }
  return (data) => {
    const frame = typeof data === 'string' ? data : new Uint8Array(data)
    try {
      if (!last && (typeof frame === 'string' || frame[0] !== 1)) return message(decode(frame) as WireMessage)
    } catch (error) {
      return broken(error)
    }
    const mine = (last ?? Promise.resolve())
      .then(() => decode(frame))
      .then(message)
      .catch(broken)
      .then(() => {
        if (last === mine) last = undefined
      })
    last = mine
  }
}
