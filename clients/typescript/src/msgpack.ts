// The messages in MessagePack: maps, lists, texts and whole numbers as JSON has them; data of events is bin.

import { checkEvents, checked, isWords, unreadable } from './core/check.js'
import { withDataValues, withRequestBytes } from './core/data.js'
import type { Codec, Words } from './wire.js'

/** How deep a message may be: JSON data of presence has 31 levels at most, and stands in four more. */
const DEPTH_MAX = 64

/** MessagePack on sockets: `createClient(url, { codec: msgpack })`. Bytes travel as they are; JSON is no smaller. */
export const msgpack: Codec = {
  subprotocol: 'tidings.v1.msgpack',
  encode(request) {
    const out = new Writer()
    out.value(withRequestBytes(request))
    return out.bytes()
  },
  decode(frame) {
    if (typeof frame === 'string') throw unreadable('text on a socket of MessagePack')
    const message = checked(new Reader(frame).whole())
    const batch = message.events
    if (isWords(batch)) batch.events = withDataValues(batch.events as Words[])
    return message
  },
  decodeEvents(bytes) {
    const events = new Reader(bytes).whole()
    checkEvents(events)
    return withDataValues(events)
  },
}

class Writer {
  #buffer = new Uint8Array(256)
  #view = new DataView(this.#buffer.buffer)
  #at = 0

  bytes(): Uint8Array {
    return this.#buffer.slice(0, this.#at)
  }

  value(value: unknown, name = ''): void {
    if (value === null) this.#byte(0xc0)
    else if (typeof value === 'boolean') this.#byte(value ? 0xc3 : 0xc2)
    else if (typeof value === 'number') this.#number(value)
    else if (typeof value === 'string') this.#raw(new TextEncoder().encode(value), 0xa0, 0xd9)
    else if (value instanceof Uint8Array) this.#raw(value, undefined, 0xc4)
    else if (Array.isArray(value)) {
      // A list of events always says its length in four bytes.
      this.#head(value.length, name === 'events' ? undefined : 0x90, 0xdc)
      for (const item of value) this.value(item)
    } else {
      const entries = Object.entries(value as object).filter(([, item]) => item !== undefined)
      this.#head(entries.length, 0x80, 0xde)
      for (const [key, item] of entries) {
        this.value(key)
        this.value(item, key)
      }
    }
  }

  /** The length of a list or a map: up to 15 in its first byte, where there is one for it. */
  #head(length: number, short: number | undefined, long: number): void {
    if (short !== undefined && length < 16) return this.#byte(short | length)
    const wide = short === undefined || length > 0xffff
    this.#byte(long + (wide ? 1 : 0))
    this.#uint(length, wide ? 4 : 2)
  }

  #raw(bytes: Uint8Array, short: number | undefined, long: number): void {
    const { length } = bytes
    if (short !== undefined && length < 32) this.#byte(short | length)
    else {
      const step = length > 0xffff ? 2 : length > 0xff ? 1 : 0
      this.#byte(long + step)
      this.#uint(length, 2 ** step)
    }
    this.#room(length)
    this.#buffer.set(bytes, this.#at)
    this.#at += length
  }

  #number(value: number): void {
    if (!Number.isSafeInteger(value) || Object.is(value, -0)) {
      this.#byte(0xcb)
      this.#room(8)
      this.#view.setFloat64(this.#at, value)
      this.#at += 8
    } else if (value >= 0) {
      if (value < 0x80) return this.#byte(value)
      const step = value > 0xffff_ffff ? 3 : value > 0xffff ? 2 : value > 0xff ? 1 : 0
      this.#byte(0xcc + step)
      this.#uint(value, 2 ** step)
    } else {
      if (value >= -32) return this.#byte(value & 0xff)
      const step = value < -0x8000_0000 ? 3 : value < -0x8000 ? 2 : value < -0x80 ? 1 : 0
      this.#byte(0xd0 + step)
      this.#uint(value, 2 ** step)
    }
  }

  #byte(byte: number): void {
    this.#room(1)
    this.#buffer[this.#at++] = byte
  }

  #uint(value: number, bytes: number): void {
    this.#room(bytes)
    if (bytes === 8) this.#view.setBigInt64(this.#at, BigInt(value))
    else if (bytes === 4) this.#view.setUint32(this.#at, value)
    else if (bytes === 2) this.#view.setUint16(this.#at, value)
    else this.#view.setUint8(this.#at, value)
    this.#at += bytes
  }

  #room(bytes: number): void {
    if (this.#at + bytes <= this.#buffer.length) return
    const buffer = new Uint8Array(Math.max(this.#buffer.length * 2, this.#at + bytes))
    buffer.set(this.#buffer)
    this.#buffer = buffer
    this.#view = new DataView(buffer.buffer)
  }
}

class Reader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #text = new TextDecoder('utf-8', { fatal: true })
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  whole(): unknown {
    try {
      const value = this.#value(0)
      if (this.#at === this.#bytes.length) return value
    } catch (error) {
      throw unreadable('no MessagePack', error)
    }
    throw unreadable('bytes behind the message')
  }

  #value(depth: number): unknown {
    if (depth > DEPTH_MAX) throw new RangeError('too deep')
    const head = this.#uint(1)
    if (head < 0x80) return head
    if (head < 0x90) return this.#map(head & 15, depth)
    if (head < 0xa0) return this.#list(head & 15, depth)
    if (head < 0xc0) return this.#string(head & 31)
    if (head >= 0xe0) return head - 256
    switch (head) {
      case 0xc0:
        return null
      case 0xc2:
        return false
      case 0xc3:
        return true
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.#raw(this.#uint(2 ** (head - 0xc4)))
      case 0xca:
        return this.#skip(4, (at) => this.#view.getFloat32(at))
      case 0xcb:
        return this.#skip(8, (at) => this.#view.getFloat64(at))
      case 0xcc:
      case 0xcd:
      case 0xce:
      case 0xcf:
        return this.#uint(2 ** (head - 0xcc))
      case 0xd0:
        return this.#skip(1, (at) => this.#view.getInt8(at))
      case 0xd1:
        return this.#skip(2, (at) => this.#view.getInt16(at))
      case 0xd2:
        return this.#skip(4, (at) => this.#view.getInt32(at))
      case 0xd3:
        return this.#skip(8, (at) => Number(this.#view.getBigInt64(at)))
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.#string(this.#uint(2 ** (head - 0xd9)))
      case 0xdc:
      case 0xdd:
        return this.#list(this.#uint(head === 0xdc ? 2 : 4), depth)
      case 0xde:
      case 0xdf:
        return this.#map(this.#uint(head === 0xde ? 2 : 4), depth)
      default:
        throw new RangeError(`a value of type ${head}`)
    }
  }

  #map(length: number, depth: number): Words {
    // No prototype: a name such as `__proto__` is a name like all others.
    const map: Words = Object.create(null)
    for (let n = 0; n < length; n++) {
      const key = this.#value(depth + 1)
      if (typeof key !== 'string') throw new RangeError('a name that is no text')
      map[key] = this.#value(depth + 1)
    }
    return { ...map }
  }

  #list(length: number, depth: number): unknown[] {
    const list: unknown[] = []
    // What is said to be there may not be: it is not believed before it is read.
    for (let n = 0; n < length; n++) list.push(this.#value(depth + 1))
    return list
  }

  #string(length: number): string {
    return this.#text.decode(this.#raw(length))
  }

  #raw(length: number): Uint8Array {
    return this.#skip(length, (at) => this.#bytes.subarray(at, at + length))
  }

  #uint(bytes: number): number {
    return this.#skip(bytes, (at) => {
      if (bytes === 8) return Number(this.#view.getBigUint64(at))
      return bytes === 4 ? this.#view.getUint32(at) : bytes === 2 ? this.#view.getUint16(at) : this.#view.getUint8(at)
    })
  }

  #skip<T>(bytes: number, read: (at: number) => T): T {
    const at = this.#at
    if (at + bytes > this.#bytes.length) throw new RangeError('an end too early')
    this.#at += bytes
    return read(at)
  }
}
