// What codecs have in common: messages in the words of docs/protocol.md.
//
// - Inside the client a message is the object that JSON has, with one difference: `data` of an event is what the
//   program sees (a JSON value, a string for `text/*`, else a `Uint8Array`) in every encoding.

/** An object in the words of the protocol. */
export type Words = Record<string, unknown>

/** A request: an `id`, and one more key that says what is wanted. */
export interface WireRequest extends Words {
  /** Names the request; its answer carries it as `reply`. */
  id?: number
}

/** What the broker says: one key that says what it is, beside `reply` where it answers. */
export interface WireMessage extends Words {
  /** The `id` of the request that it answers. */
  reply?: number
}

/** An encoding of the messages on a socket. */
export interface Codec {
  /** The subprotocol that names it. */
  readonly subprotocol: string
  /**
   * A request: text for text frames, bytes for binary ones (without the 0 that stands before them). Throws a
   * `TidingsError` for what cannot be said in it.
   */
  encode(request: WireRequest): string | Uint8Array
  /** A message of the broker. Throws a `TidingsError` of code `protocol` for what is none. */
  decode(frame: string | Uint8Array): WireMessage
  /** The events behind the head of a compressed batch, inflated. */
  decodeEvents(bytes: Uint8Array): Words[]
}

/** A compression of batches on a socket. */
export interface Compression {
  /** What the protocol calls it. */
  readonly name: string
  /** Whether this platform can do it. */
  readonly available: boolean
  /**
   * Takes frames as they come; false for one that is `decode`d at once, by the caller. All else is told to `message` in
   * the order of the frames, with `bytesMax` bytes of events at most, and to `broken` where it cannot be read.
   */
  reader(
    codec: Codec,
    bytesMax: () => number,
    decode: (frame: string | Uint8Array) => WireMessage,
    message: (message: WireMessage) => void,
    broken: (error: unknown) => void,
  ): (frame: string | Uint8Array) => boolean
}
