// Protobuf by tables: fields in the order of their tables, whole numbers up to 2^53 − 1.
//
// - What is unknown is passed over, as the format wants it; what is broken is refused.

import type { Words } from '../wire.js'
import { type Field, KEPT_EMPTY, tableOf } from './proto-schema.js'

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true })
const WIRE = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const

class Writer {
  readonly #parts: Uint8Array[] = []
  #small: number[] = []

  varint(value: number): void {
    if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${value} is no whole number`)
    let rest = value
    while (rest > 0x7f) {
      this.#small.push((rest % 0x80) | 0x80)
      rest = Math.floor(rest / 0x80)
    }
    this.#small.push(rest)
  }

  bytes(bytes: Uint8Array): void {
    this.varint(bytes.length)
    if (bytes.length < 64) this.#small.push(...bytes)
    else {
      this.#parts.push(Uint8Array.from(this.#small), bytes)
      this.#small = []
    }
  }

  finish(): Uint8Array {
    this.#parts.push(Uint8Array.from(this.#small))
    const whole = new Uint8Array(this.#parts.reduce((sum, part) => sum + part.length, 0))
    let at = 0
    for (const part of this.#parts) {
      whole.set(part, at)
      at += part.length
    }
    return whole
  }
}

/** A message of this name. */
export function encodeMessage(name: string, words: Words): Uint8Array {
  const out = new Writer()
  const said = name === 'Subscribe' ? withStart(words) : words
  for (const field of tableOf(name).fields) {
    const value = said[field.name]
    if (value === undefined) continue
    const { kind, number, presence } = field
    const one = (item: Uint8Array): void => {
      out.varint(number * 8 + WIRE.bytes)
      out.bytes(item)
    }
    if (presence === '*' && kind === 'u') {
      if ((value as number[]).length > 0) one(packed(value as number[]))
    } else if (presence === '*') for (const item of value as unknown[]) one(lengthDelimited(field, item))
    else if (kind === 'h') for (const entry of sorted(value as Record<string, string>)) one(mapEntry(entry))
    else if (kind === 'a') {
      for (const [offset, deliveries] of Object.entries(value as Record<string, number>)) {
        one(encodeMessage('Attempt', { offset: Number(offset), deliveries }))
      }
    } else {
      const whole = wholeNumber(field, value)
      if (whole === undefined) {
        const item = lengthDelimited(field, value)
        if (presence === '?' || item.length > 0) one(item)
      } else if (presence === '?' || whole > 0) {
        out.varint(number * 8 + WIRE.varint)
        out.varint(whole)
      }
    }
  }
  return out.finish()
}

/** Where a durable begins: a word, a place, or a moment. */
function withStart({ start, ...words }: Words): Words {
  if (start === undefined || start === 'now') return words
  if (start === 'first') return { ...words, start_at: start }
  const isPlace = typeof start === 'number' || /^\d+(@|$)/.test(`${start}`)
  return isPlace ? { ...words, start_after: start } : { ...words, start_since: start }
}

/** What a varint says; `undefined` where the field is none. */
function wholeNumber({ kind, names }: Field, value: unknown): number | undefined {
  if (kind === 'u') return value as number
  if (kind === 'b') return value ? 1 : 0
  if (kind === 't') return Date.parse(value as string)
  return names && Math.max(0, names.indexOf(value as string))
}

function lengthDelimited({ kind }: Field, value: unknown): Uint8Array {
  if (kind === 's') return encoder.encode(value as string)
  if (kind === 'd') return value as Uint8Array
  if (kind === 'j') return encoder.encode(JSON.stringify(value))
  if (kind === 'o') return encodeMessage('Offsets', { offsets: value })
  if (kind !== 'p') return encodeMessage(kind, value as Words)
  const [cursor, log] = `${value}`.split('@')
  return encodeMessage('Place', { cursor: Number(cursor), log })
}

function packed(values: readonly number[]): Uint8Array {
  const out = new Writer()
  for (const value of values) out.varint(value)
  return out.finish()
}

function sorted(headers: Record<string, string>): [string, string][] {
  return Object.entries(headers).sort(([a], [b]) => (a < b ? -1 : 1))
}

function mapEntry([key, value]: [string, string]): Uint8Array {
  const out = new Writer()
  for (const [number, text] of [
    [1, key],
    [2, value],
  ] as const) {
    if (text === '') continue
    out.varint(number * 8 + WIRE.bytes)
    out.bytes(encoder.encode(text))
  }
  return out.finish()
}

class Reader {
  readonly #bytes: Uint8Array
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get more(): boolean {
    return this.#at < this.#bytes.length
  }

  varint(): number {
    let value = 0
    for (let scale = 1; scale < 2 ** 64; scale *= 0x80) {
      const byte = this.#bytes[this.#at++]
      if (byte === undefined) throw new RangeError('an end too early')
      value += (byte & 0x7f) * scale
      if (byte < 0x80) return value
    }
    throw new RangeError('a number of more than ten bytes')
  }

  bytes(length = this.varint()): Uint8Array {
    const end = this.#at + length
    if (end > this.#bytes.length) throw new RangeError('an end too early')
    const bytes = this.#bytes.subarray(this.#at, end)
    this.#at = end
    return bytes
  }

  skip(wire: number): void {
    if (wire === WIRE.varint) this.varint()
    else if (wire === WIRE.bytes) this.bytes()
    else if (wire === WIRE.fixed64 || wire === WIRE.fixed32) this.bytes(wire === WIRE.fixed64 ? 8 : 4)
    else throw new RangeError(`wire type ${wire}`)
  }
}

/** A message of this name, as JSON would have it. */
export function decodeMessage(name: string, bytes: Uint8Array): Words {
  const { fields, byNumber } = tableOf(name)
  const words: Words = {}
  const reader = new Reader(bytes)
  while (reader.more) {
    const tag = reader.varint()
    const [number, wire] = [Math.floor(tag / 8), tag % 8]
    const field = byNumber.get(number)
    if (!field) reader.skip(wire)
    else take(words, field, wire, reader)
  }
  for (const field of fields) {
    if (words[field.name] !== undefined) continue
    if (field.presence === '!') words[field.name] = defaultOf(field)
    else if (field.presence === '*' && KEPT_EMPTY.has(field.name)) words[field.name] = []
  }
  return words
}

function defaultOf({ kind, names }: Field): unknown {
  if (names) return names[0]
  return kind === 'u' ? 0 : kind === 'b' ? false : kind === 't' ? timeOf(0) : ''
}

function take(words: Words, field: Field, wire: number, reader: Reader): void {
  const { name, kind, presence, names } = field
  if (wire === WIRE.varint) {
    const number = reader.varint()
    const value = names
      ? (names[number] ?? `${number}`)
      : kind === 'b'
        ? number !== 0
        : kind === 't'
          ? timeOf(number)
          : number
    if (presence === '*') words[name] = [...((words[name] as unknown[] | undefined) ?? []), value]
    // A default that was said all the same is left out, as where it was not.
    else if (presence !== '-' || (number !== 0 && value !== names?.[0])) words[name] = value
    return
  }
  if (wire !== WIRE.bytes) return reader.skip(wire)
  const bytes = reader.bytes()
  if (presence === '*') {
    const list = (words[name] as unknown[] | undefined) ?? []
    words[name] = list
    if (kind === 'u') {
      const inner = new Reader(bytes)
      while (inner.more) list.push(inner.varint())
    } else list.push(itemOf(kind, bytes))
  } else if (kind === 'h') {
    const headers = (words[name] as Record<string, string> | undefined) ?? {}
    words[name] = headers
    const { key, value } = entryOf(bytes)
    Object.defineProperty(headers, key, { value, enumerable: true, configurable: true, writable: true })
  } else if (kind === 'a') {
    const { offset, deliveries } = decodeMessage('Attempt', bytes)
    words[name] = { ...(words[name] as object | undefined), [offset as number]: deliveries }
  } else words[name] = itemOf(kind, bytes)
}

function itemOf(kind: string, bytes: Uint8Array): unknown {
  if (kind === 's') return decoder.decode(bytes)
  if (kind === 'd') return bytes
  if (kind === 'j') return JSON.parse(decoder.decode(bytes))
  return decodeMessage(kind, bytes)
}

function entryOf(bytes: Uint8Array): { key: string; value: string } {
  const entry = { key: '', value: '' }
  const reader = new Reader(bytes)
  while (reader.more) {
    const tag = reader.varint()
    if (tag === 8 + WIRE.bytes) entry.key = decoder.decode(reader.bytes())
    else if (tag === 16 + WIRE.bytes) entry.value = decoder.decode(reader.bytes())
    else reader.skip(tag % 8)
  }
  return entry
}

function timeOf(ms: number): string {
  return new Date(ms).toISOString()
}
