// The messages in Protobuf, by the tables in `core/proto-schema.ts`; they say what proto/tidings/v1 says.

import { checkEvents, checked, isWords, unreadable } from './core/check.js'
import { withDataValues, withRequestBytes } from './core/data.js'
import { decodeMessage, encodeMessage } from './core/proto.js'
import { BATCH, REQUEST, SERVER_MESSAGE } from './core/proto-schema.js'
import type { Codec, Words } from './wire.js'

/** Protobuf on sockets: `createClient(url, { codec: protobuf })`. The smallest on the line. */
export const protobuf: Codec = {
  subprotocol: 'tidings.v1.protobuf',
  encode: (request) => encodeMessage(REQUEST, withRequestBytes(request)),
  decode(frame) {
    if (typeof frame === 'string') throw unreadable('text on a socket of Protobuf')
    const message = checked(read(() => decodeMessage(SERVER_MESSAGE, frame)))
    const batch = message.events
    if (isWords(batch)) batch.events = withDataValues(batch.events as Words[])
    return message
  },
  decodeEvents(bytes) {
    const { events } = read(() => decodeMessage(BATCH, bytes))
    checkEvents(events)
    return withDataValues(events)
  },
}

function read<T>(decode: () => T): T {
  try {
    return decode()
  } catch (error) {
    throw unreadable('no Protobuf', error)
  }
}
