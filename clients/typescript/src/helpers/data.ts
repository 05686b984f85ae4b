// Data comes from others: it is looked at before it is believed.

import { TidingsError } from '../errors.js'
import type { AnySchema, Client } from '../types.js'

/** A client of any schema, as helpers need it that make their topics themselves. */
export type AnyClient = Client<AnySchema>

/** The schema does not matter to a helper that makes its topics itself. */
export function anyClient<S>(client: Client<S>): AnyClient {
  return client as unknown as AnyClient
}

/** An object, or an empty one in the place of anything else. */
export function fields(data: unknown): Readonly<Record<string, unknown>> {
  return typeof data === 'object' && data !== null && !Array.isArray(data) ? (data as Record<string, unknown>) : {}
}

export function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

export function finite(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined
}

/** Leaves out what is `undefined`: JSON has no such value. */
export function given<T extends object>(object: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as never
}

/** What failed, as the error of this package. */
export function failure(cause: unknown): TidingsError {
  return cause instanceof TidingsError ? cause : new TidingsError('internal', messageOf(cause), { cause })
}

/** What an error says. */
export function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause)
}

/** A name as one token of a topic: other bytes as `=HH`, as the broker writes subjects. */
export function token(name: string): string {
  let out = ''
  for (const byte of new TextEncoder().encode(name)) {
    const character = String.fromCharCode(byte)
    out += /[A-Za-z0-9_-]/.test(character) ? character : `=${byte.toString(16).toUpperCase().padStart(2, '0')}`
  }
  return out
}

/** A part of a topic that a caller gave: one token or more, none of them a wildcard. */
export function topicOf(begin: string, name: string): string {
  if (!/^[A-Za-z0-9_\-:@=]+(\.[A-Za-z0-9_\-:@=]+)*$/.test(name)) {
    throw new TidingsError('invalid_argument', `"${name}" is no part of a topic: use A–Z a–z 0–9 _ - : @ = and dots`)
  }
  return `${begin}.${name}`
}

/** The first entry goes until there are at most so many. */
export function trim(map: Map<unknown, unknown>, most: number): void {
  for (const key of map.keys()) {
    if (map.size <= most) return
    map.delete(key)
  }
}

/** A token of a filter that stands for the token of the topic: whether a topic is inside a filter. */
export function within(topic: string, filter: string): boolean {
  const [names, wanted] = [topic.split('.'), filter.split('.')]
  for (const [at, token] of wanted.entries()) {
    if (token === '>') return names.length > at && !(at === 0 && topic.startsWith('$'))
    if (names[at] === undefined || (token !== '*' && token !== names[at])) return false
    if (token === '*' && at === 0 && topic.startsWith('$')) return false
  }
  return names.length === wanted.length
}
