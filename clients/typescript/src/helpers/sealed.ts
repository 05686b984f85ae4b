// Sealed events: data that the broker carries and cannot read (docs/encryption.md).
//
// - AES-256-GCM with a random nonce. Sealed are the data and its content type; bound to them are the id of the key and the
//   event's topic, id, type, key and correlation.
// - An event is sealed once and sent again as it is: the client's retries do so.

import { uuidv7 } from '../core/uuid.js'
import { TidingsError } from '../errors.js'
import type { PublishRequest, TidingsEvent } from '../types.js'
import type { SealingKeys } from './sealed-keys.js'

export { type SealingKeys, sealingKeys } from './sealed-keys.js'

/** The header that names the key of a sealed event. */
export const KEY_HEADER = 'sealkey'
/** The content type of a sealed event. */
export const SEALED = 'application/x.tidings.sealed'

const VERSION = 1
const NONCE_BYTES = 12
const TAG_BYTES = 16
const LABEL = 'tidings.sealed.1'
const JSON_TYPE = 'application/json'

/** Why an event does not open. */
export type SealedReason = 'not_sealed' | 'unknown_key' | 'left_out' | 'tampered' | 'version' | 'form'

/** An event does not open; `reason` says why. Its code is `protocol`. */
export class SealedError extends TidingsError {
  /** Why. Take a `not_sealed` event for nothing that was sealed: whoever may publish can send one. */
  readonly reason: SealedReason

  /** For what opens sealed events by itself. */
  constructor(reason: SealedReason, message: string, cause?: unknown) {
    super('protocol', message, { cause })
    this.reason = reason
  }
}

/**
 * The event with its data and content type sealed by the newest key, to be published as it is. One without an id gets
 * one, which is bound. Rejected with `invalid_argument` where it is sealed already, or says what no event may.
 *
 * ```ts
 * const keys = await sealingKeys(text)
 * await client.publishBatch([await encrypt(keys, { topic: 'payments.42', data: { iban } })])
 * ```
 */
export function encrypt(keys: SealingKeys, request: PublishRequest): Promise<PublishRequest> {
  return encryptWith(keys, request, crypto.getRandomValues(new Uint8Array(NONCE_BYTES)))
}

/** With a nonce that was chosen: never the same one twice with one key. */
export async function encryptWith(
  keys: SealingKeys,
  request: PublishRequest,
  nonce: Uint8Array<ArrayBuffer>,
): Promise<PublishRequest> {
  if (request.headers?.[KEY_HEADER] !== undefined) {
    throw new TidingsError(
      'invalid_argument',
      `the event has the header ${KEY_HEADER}: seal it once, and send it again as it is`,
    )
  }
  const id = request.id ?? uuidv7()
  const key = keys.get(keys.newest)
  if (key === undefined) throw new TidingsError('invalid_argument', 'the newest sealing key is not there')
  const additionalData = boundBytes(keys.newest, { ...request, id, type: request.type ?? 'message' })
  const plain = plainBytes(request.data, request.datacontenttype)
  const sealed = new Uint8Array(await crypto.subtle.encrypt({ name: 'AES-GCM', iv: nonce, additionalData }, key, plain))
  const data = new Uint8Array(1 + NONCE_BYTES + sealed.length)
  data[0] = VERSION
  data.set(nonce, 1)
  data.set(sealed, 1 + NONCE_BYTES)
  return { ...request, id, data, datacontenttype: SEALED, headers: { ...request.headers, [KEY_HEADER]: keys.newest } }
}

/** The event as it was before it was sealed, with the key that it names. Rejected with a {@link SealedError}. */
export async function decrypt<Data = unknown>(keys: SealingKeys, event: TidingsEvent): Promise<TidingsEvent<Data>> {
  const { offset, headers } = event
  const id = headers?.[KEY_HEADER]
  if (id === undefined)
    throw new SealedError('not_sealed', `event ${offset} is not sealed: whoever publishes on its topic must seal`)
  const key = keys.get(id)
  if (key === undefined)
    throw new SealedError('unknown_key', `event ${offset} is sealed with a key that is not here: ${JSON.stringify(id)}`)
  const data = bytesOf(event)
  if (data === undefined)
    throw new SealedError('left_out', `event ${offset} came without its data: read it by its offset`)
  if (data.length > 0 && data[0] !== VERSION)
    throw new SealedError('version', `event ${offset} is sealed in a form that is not known here`)
  const plain = await open(key, id, event, data)
  const parts = readPlain(plain, offset)
  const { [KEY_HEADER]: _, ...others } = headers ?? {}
  const { data: __, datacontenttype: ___, headers: ____, ...rest } = event
  return { ...rest, ...parts, ...(Object.keys(others).length > 0 && { headers: others }) } as TidingsEvent<Data>
}

async function open(
  key: CryptoKey,
  id: string,
  event: TidingsEvent,
  data: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array> {
  const tampered = (cause?: unknown) =>
    new SealedError(
      'tampered',
      `event ${event.offset} does not open: it was changed or moved since it was sealed, or the key is another`,
      cause,
    )
  if (data.length < 1 + NONCE_BYTES + TAG_BYTES) throw tampered()
  const iv = data.subarray(1, 1 + NONCE_BYTES)
  const additionalData = boundBytes(id, event)
  try {
    return new Uint8Array(
      await crypto.subtle.decrypt({ name: 'AES-GCM', iv, additionalData }, key, data.subarray(1 + NONCE_BYTES)),
    )
  } catch (cause) {
    throw tampered(cause)
  }
}

/** Sealed data is bytes, of whatever content type somebody says that it is. */
function bytesOf({ data }: TidingsEvent): Uint8Array<ArrayBuffer> | undefined {
  if (data === undefined) return undefined
  // Anything but bytes was not sealed as it stands there.
  return data instanceof Uint8Array ? new Uint8Array(data) : new Uint8Array()
}

interface Bound {
  topic: string
  id: string
  type: string
  key?: string
  correlation?: string
}

/** What is bound: the label, then each text behind its length in two bytes. */
export function boundBytes(
  keyId: string,
  { topic, id, type, key = '', correlation = '' }: Bound,
): Uint8Array<ArrayBuffer> {
  const texts = [keyId, topic, id, type, key, correlation].map((text) => new TextEncoder().encode(text))
  const out = new Uint8Array(LABEL.length + texts.reduce((bytes, text) => bytes + 2 + text.length, 0))
  out.set(new TextEncoder().encode(LABEL))
  let at = LABEL.length
  for (const text of texts) at = putText(out, at, text)
  return out
}

/** The plain text: whether there is data, the content type behind its length, the data. */
export function plainBytes(data: unknown, contentType: string | undefined): Uint8Array<ArrayBuffer> {
  const [bytes, type] = dataBytes(data, contentType)
  const name = new TextEncoder().encode(type ?? '')
  const out = new Uint8Array(3 + name.length + (bytes?.length ?? 0))
  out[0] = bytes === undefined ? 0 : 1
  const at = putText(out, 1, name)
  if (bytes !== undefined) out.set(bytes, at)
  return out
}

function putText(out: Uint8Array, at: number, text: Uint8Array): number {
  if (text.length > 0xffff) throw new TidingsError('invalid_argument', 'a text of the event is longer than any may be')
  out[at] = text.length >> 8
  out[at + 1] = text.length & 0xff
  out.set(text, at + 2)
  return at + 2 + text.length
}

/** The bytes that would stand there unsealed, and their content type. */
function dataBytes(data: unknown, contentType: string | undefined): [Uint8Array | undefined, string | undefined] {
  if (data === undefined) return [undefined, contentType]
  if (data instanceof ArrayBuffer) return [new Uint8Array(data), contentType ?? 'application/octet-stream']
  if (ArrayBuffer.isView(data)) {
    return [new Uint8Array(data.buffer, data.byteOffset, data.byteLength), contentType ?? 'application/octet-stream']
  }
  if (contentType !== undefined && isText(contentType)) {
    if (typeof data !== 'string')
      throw new TidingsError('invalid_argument', `data of ${contentType} is a string or bytes`)
    return [new TextEncoder().encode(data), contentType]
  }
  const json = JSON.stringify(data)
  if (json === undefined) throw new TidingsError('invalid_argument', 'data cannot be written as JSON')
  return [new TextEncoder().encode(json), contentType ?? JSON_TYPE]
}

/** Content type and data of a plain text. Who sealed it may have written what no event may be. */
function readPlain(plain: Uint8Array, offset: number): { datacontenttype?: string; data?: unknown } {
  const form = (problem: string, cause?: unknown) =>
    new SealedError('form', `event ${offset} opens, but what is in it is no event's (${problem})`, cause)
  const [has, high, low] = plain
  if (has === undefined || high === undefined || low === undefined) throw form('it is too short')
  const end = 3 + high * 256 + low
  if (plain.length < end) throw form('it is too short')
  const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  const decode = (bytes: Uint8Array, what: string) => {
    try {
      return utf8.decode(bytes)
    } catch (cause) {
      throw form(`${what} is not UTF-8`, cause)
    }
  }
  const type = decode(plain.subarray(3, end), 'its content type')
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  if (/[\u0000-\u001f\u007f-\u009f]/.test(type) || end - 3 > 1_024) throw form('its content type is none')
  const named = type === '' ? {} : { datacontenttype: type }
  const data = plain.subarray(end)
  if (has === 0 && data.length === 0) return named
  if (has !== 1) throw form('it does not say whether there is data')
  if (isText(type)) return { ...named, data: decode(data, 'its text') }
  if (type !== '' && !isJson(type)) return { ...named, data: data.slice() }
  try {
    return { ...named, data: JSON.parse(decode(data, 'its JSON')) }
  } catch (cause) {
    throw cause instanceof SealedError ? cause : form('its JSON is none', cause)
  }
}

function isText(type: string): boolean {
  return /^text\//i.test(type.trim()) && !isJson(type)
}

function isJson(type: string): boolean {
  return /^(application\/json|text\/json|[^;]*\+json)\s*(;|$)/i.test(type.trim())
}
