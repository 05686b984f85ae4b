// Sealed events against the vectors that clients of every language read.

import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { fromBase64 } from '../../src/core/base64.js'
import { decrypt, encrypt, SealedError, sealingKeys } from '../../src/helpers/index.js'
import { boundBytes, encryptWith, plainBytes } from '../../src/helpers/sealed.js'
import { TidingsError } from '../../src/index.js'
import type { PublishRequest, TidingsEvent } from '../../src/types.js'
import { world } from './world.js'

interface Case {
  name: string
  keys: string[]
  nonce?: string
  publish?: string
  sealed?: string
  bound?: string
  plain?: string
  event: string
  opened?: string
  error?: string
}

const cases = JSON.parse(
  readFileSync(new URL('../../../../proto/vectors/sealed.json', import.meta.url), 'utf8'),
) as Case[]

const unhex = (text: string) => Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

/** The bytes of the member `data`, which is the last one or stands before others, as they are in the text. */
function rawData(text: string): Uint8Array | undefined {
  const found = /"data":/.exec(text)
  if (found === null) return undefined
  const from = found.index + found[0].length
  for (let end = text.length - 1; end > from; end--) {
    if (text[end] !== '}' && text[end] !== ',') continue
    try {
      JSON.parse(text.slice(from, end))
      return new TextEncoder().encode(text.slice(from, end))
    } catch {
      // It goes on behind it, or ends before.
    }
  }
  throw new Error(`no data in ${text}`)
}

/** A publish as the program says it: data as the bytes that stand there. */
function requestOf(text: string): PublishRequest {
  const { data, data_base64, ...rest } = JSON.parse(text)
  if (data_base64 !== undefined) return { ...rest, data: fromBase64(data_base64) }
  if (data === undefined) return rest
  return { ...rest, data: typeof data === 'string' ? data : rawData(text) }
}

/** An event as the client hands it over. */
function eventOf(text: string): TidingsEvent {
  const { data_base64, ...rest } = JSON.parse(text)
  const data = data_base64 === undefined ? {} : { data: fromBase64(data_base64) }
  return { priority: 'normal', attempts: 1, own: false, ...rest, ...data }
}

test('there are vectors', () => {
  expect(cases).toHaveLength(45)
  expect(cases.filter(({ nonce }) => nonce !== undefined).length).toBeGreaterThanOrEqual(11)
})

test.each(cases.filter(({ nonce }) => nonce !== undefined))(
  '$name: seals to equal bytes',
  async ({ keys, nonce, publish, sealed, bound, plain }) => {
    const key = await sealingKeys(keys.join('\n'))
    const request = requestOf(publish ?? '')
    expect(await encryptWith(key, request, unhex(nonce ?? ''))).toEqual(requestOf(sealed ?? ''))
    expect(hex(boundBytes(key.newest, { type: 'message', ...request, id: request.id ?? '' }))).toBe(bound)
    expect(hex(plainBytes(request.data, request.datacontenttype))).toBe(plain)
  },
)

test.each(cases.filter(({ opened }) => opened !== undefined))('$name: opens', async ({ keys, event, opened }) => {
  expect(await decrypt(await sealingKeys(keys.join('\n')), eventOf(event))).toEqual(eventOf(opened ?? ''))
})

test.each(cases.filter(({ error }) => error !== undefined))('$name: does not open', async ({ keys, event, error }) => {
  const opening = decrypt(await sealingKeys(keys.join('\n')), eventOf(event))
  const failed: unknown = await opening.catch((cause: unknown) => cause)
  expect(failed).toBeInstanceOf(SealedError)
  expect(failed).toMatchObject({ code: 'protocol', reason: error })
  expect(String(failed)).toContain('event 57 ')
})

test('keys that are none are refused, and nothing of them is repeated', async () => {
  const digits = 'ab'.repeat(32)
  for (const text of [
    '',
    '# none',
    'tds_',
    `tds_a_${digits}0`,
    `tds_a b_${digits}`,
    `tdx_a_${digits}`,
    `tds_a_${digits}\ntds_a_${digits}`,
    `tds_${'a'.repeat(65)}_${digits}`,
  ]) {
    const failed: unknown = await sealingKeys(text).catch((cause: unknown) => cause)
    expect(failed).toBeInstanceOf(TidingsError)
    expect(failed).toMatchObject({ code: 'invalid_argument' })
    expect(String(failed)).not.toContain(digits)
  }
  const keys = await sealingKeys(`# old\ntds_a_${digits}\n\n  tds_b_2_${digits.toUpperCase()}  \r\n`)
  expect(keys.newest).toBe('b_2')
  expect(JSON.stringify(keys)).not.toContain(digits)
})

test('what says neither that there is data nor that there is none is no event, whoever has sealed it', async () => {
  const digits = '07'.repeat(32)
  const keys = await sealingKeys(`tds_k_${digits}`)
  const key = await crypto.subtle.importKey('raw', unhex(digits), 'AES-GCM', false, ['encrypt'])
  const event = eventOf('{"offset":57,"topic":"a","id":"1","type":"message","headers":{"sealkey":"k"}}')
  const iv = new Uint8Array(12)
  for (const has of [0, 2, 255]) {
    const plain = new Uint8Array([has, 0, 0, 0x37])
    const additionalData = boundBytes('k', event)
    const sealed = await crypto.subtle.encrypt({ name: 'AES-GCM', iv, additionalData }, key, plain)
    const data = new Uint8Array([1, ...iv, ...new Uint8Array(sealed)])
    await expect(decrypt(keys, { ...event, data })).rejects.toMatchObject({ reason: 'form' })
  }
})

test('no two sealings are alike, and what is sealed is not sealed again', async () => {
  const keys = await sealingKeys(`tds_k_${'07'.repeat(32)}`)
  const one = await encrypt(keys, { topic: 'a', data: { secret: 1 } })
  const two = await encrypt(keys, { topic: 'a', data: { secret: 1 } })
  expect(one.id).not.toBe(two.id)
  expect(one.data).not.toEqual(two.data)
  await expect(encrypt(keys, one)).rejects.toMatchObject({ code: 'invalid_argument' })
  await expect(encrypt(keys, { topic: 'a', data: () => 1 })).rejects.toMatchObject({ code: 'invalid_argument' })
})

const here = world()

test('a sealed event goes through the broker, which has nothing of it, and opens on the other side', async () => {
  const keys = await sealingKeys(`tds_k_${'07'.repeat(32)}`)
  const client = here.connect()
  const topic = here.fresh()
  const subscription = client.subscribe(topic)
  await subscription.ready()
  for (const request of [
    { topic, data: { canary: 'a-canary' }, key: 'k', correlation: 'c', headers: { tenant: '7' } },
    { topic, data: 'a-canary', datacontenttype: 'text/plain', type: 'note' },
    { topic, data: new Uint8Array([1, 2, 3]) },
    { topic },
  ]) {
    await client.publishBatch([await encrypt(keys, request)])
    const next = await subscription[Symbol.asyncIterator]().next()
    if (next.done) throw new Error('the subscription has ended')
    const event = next.value
    expect(JSON.stringify({ ...event, data: Buffer.from(event.data as Uint8Array).toString('latin1') })).not.toContain(
      'a-canary',
    )
    const opened = await decrypt(keys, event)
    expect(opened.data).toEqual(request.data)
    expect(opened.headers).toEqual(request.headers)
  }
})
