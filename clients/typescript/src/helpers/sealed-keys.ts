// Keys that seal and open events, as `tidings key make` writes them: one a line, the newest last.

import { TidingsError } from '../errors.js'

/** The most keys. */
const KEYS_MAX = 1_024
const LINE = /^tds_([A-Za-z0-9_.-]{1,64})_([0-9a-fA-F]{64})$/

/** Keys by their ids, at least one: the newest seals, all open. Their bytes cannot be read again. */
export interface SealingKeys {
  /** The id of the key that seals. */
  readonly newest: string
  /** The key of an id. */
  get(id: string): CryptoKey | undefined
}

/**
 * The keys of a file's text: lines of `tds_`, the id, `_` and 64 hexadecimal digits; empty lines and those that begin with
 * `#` are passed over. Throws `invalid_argument`, which repeats nothing of a secret.
 */
export async function sealingKeys(text: string): Promise<SealingKeys> {
  const keys = new Map<string, CryptoKey>()
  let newest: string | undefined
  for (const [at, line] of text.split('\n').entries()) {
    const trimmed = line.trim()
    if (trimmed === '' || trimmed.startsWith('#')) continue
    const [, id, digits] = LINE.exec(trimmed) ?? []
    if (id === undefined || digits === undefined) {
      throw wrong(`line ${at + 1} is no sealing key: tds_, an id, _ and 64 hexadecimal digits`)
    }
    if (keys.has(id)) throw wrong(`two sealing keys have the id ${id}: an id is for one key, for ever`)
    if (keys.size === KEYS_MAX) throw wrong(`there are more than ${KEYS_MAX} sealing keys`)
    keys.set(id, await importKey(digits))
    newest = id
  }
  if (newest === undefined) throw wrong('there is no sealing key in it')
  return { newest, get: (id) => keys.get(id) }
}

async function importKey(digits: string): Promise<CryptoKey> {
  const bytes = Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))
  try {
    return await crypto.subtle.importKey('raw', bytes, 'AES-GCM', false, ['encrypt', 'decrypt'])
  } finally {
    bytes.fill(0)
  }
}

function wrong(message: string): TidingsError {
  return new TidingsError('invalid_argument', message)
}
