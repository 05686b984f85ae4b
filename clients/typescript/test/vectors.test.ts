// The golden vectors of proto/vectors: what the broker reads and writes, byte for byte.
//
// - A client writes requests and reads what the broker says, so that is what is held to the vectors. Requests are written
//   in all three encodings from the words that JSON has; messages are read from all three to the same words.
// - What JavaScript cannot keep is named below: JSON data whose bytes are not those that JSON.stringify writes.

import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { withDataValues } from '../src/core/data.js'
import { json } from '../src/index.js'
import { fromJsonEvents } from '../src/json.js'
import { msgpack } from '../src/msgpack.js'
import { protobuf } from '../src/protobuf.js'
import type { Codec, Words } from '../src/wire.js'

interface Vector {
  name: string
  json: string
  reencoded?: string
  msgpack?: string
  protobuf?: string
}

const FOLDER = new URL('../../../proto/vectors/', import.meta.url)
const load = (file: string): Vector[] => JSON.parse(readFileSync(new URL(file, FOLDER), 'utf8'))
const files = readdirSync(FOLDER)
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const unhex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'))

/** JSON data that other bytes stand for in JavaScript: blanks, escapes, numbers and names that JSON.stringify writes otherwise. */
const OTHER_BYTES = new Set([
  'json data is kept byte for byte',
  'json data that is a number',
  'json data with a line break',
  'blanks around everything',
])

/** The words a client has for a publish that JSON says like this. */
function publishOf(event: Words): Words {
  const { data_base64: base64, datacontenttype: type, ...rest } = event
  if (typeof base64 !== 'string') return event
  const bytes = new Uint8Array(Buffer.from(base64, 'base64'))
  const out: Words = {}
  for (const name of Object.keys(event)) {
    if (name === 'data_base64') {
      const [made] = withDataValues([{ data: bytes, datacontenttype: type ?? 'application/octet-stream' }])
      out.data = made?.data
    } else if (!(name === 'datacontenttype' && type === 'application/json')) out[name] = rest[name] ?? type
  }
  return out
}

function requestOf(text: string): Words {
  const words = JSON.parse(text)
  if (words.publish) words.publish = publishOf(words.publish)
  return words
}

describe.each(files.filter((file) => file.startsWith('request_')))('%s', (file) => {
  test.each(load(file))('$name', (vector) => {
    const text = vector.reencoded ?? vector.json
    const words = requestOf(text)
    if (OTHER_BYTES.has(vector.name)) {
      expect(JSON.parse(json.encode(words) as string)).toEqual(JSON.parse(JSON.stringify(JSON.parse(text))))
      return
    }
    expect(json.encode(words)).toBe(text)
    expect(hex(msgpack.encode(words) as Uint8Array)).toBe(vector.msgpack)
    expect(hex(protobuf.encode(words) as Uint8Array)).toBe(vector.protobuf)
  })
})

const messages = files.filter((file) => /^(reply_|push_|events\.)/.test(file))

describe.each(messages)('%s', (file) => {
  test.each(load(file))('$name', (vector) => {
    // What is of a later version stands in JSON and is nowhere else.
    const expected = JSON.parse(vector.reencoded ?? vector.json)
    if (expected.events) expected.events.events = fromJsonEvents(expected.events.events)
    expect(withoutLater(json.decode(vector.json))).toEqual(expected)
    expect(vector.msgpack, 'a vector of MessagePack').toBeDefined()
    expect(vector.protobuf, 'a vector of Protobuf').toBeDefined()
    expect(withoutLater(msgpack.decode(unhex(vector.msgpack ?? '')))).toEqual(expected)
    expect(protobuf.decode(unhex(vector.protobuf ?? ''))).toEqual(expected)
  })
})

describe('event.json', () => {
  test.each(load('event.json'))('$name', (vector) => {
    const [expected] = fromJsonEvents([JSON.parse(vector.reencoded ?? vector.json)])
    const batch = `{"events":{"subscription":1,"events":[${vector.json}]}}`
    const first = (codec: Codec, frame: string | Uint8Array): unknown =>
      (codec.decode(frame).events as { events: Words[] }).events[0]
    const got = withoutLater(first(json, batch)) as Words
    expect({ ...got, time: expected?.time }).toEqual(expected)
    const [packed] = msgpack.decodeEvents(unhex(`91${vector.msgpack}`))
    expect({ ...(withoutLater(packed) as Words), time: expected?.time }).toEqual(expected)
    const bytes = unhex(vector.protobuf ?? '')
    const length = bytes.length < 128 ? [bytes.length] : [(bytes.length & 127) | 128, bytes.length >> 7]
    expect(protobuf.decodeEvents(new Uint8Array([0x22, ...length, ...bytes]))).toEqual([expected])
  })
})

test.each(load('bad_server_message.json'))('refused: $name', (vector) => {
  expect(() => json.decode(vector.json)).toThrowError(expect.objectContaining({ code: 'protocol' }))
})

test('broken bytes are refused and nothing else is thrown', () => {
  const whole = unhex(load('events.json')[0]?.msgpack ?? '')
  for (let end = 0; end < whole.length; end++) {
    expect(() => msgpack.decode(whole.subarray(0, end))).toThrowError(expect.objectContaining({ code: 'protocol' }))
  }
  let refused = 0
  const message = unhex(load('events.json')[0]?.protobuf ?? '')
  for (let end = 0; end < message.length; end++) {
    try {
      protobuf.decode(message.subarray(0, end))
    } catch (error) {
      expect(error).toMatchObject({ code: 'protocol' })
      refused++
    }
  }
  expect(refused).toBe(message.length)
})

function withoutLater(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutLater)
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value
  return Object.fromEntries(
    Object.entries(value).flatMap(([name, inner]) => (name === 'later' ? [] : [[name, withoutLater(inner)]])),
  )
}
