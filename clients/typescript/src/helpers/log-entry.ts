// Whatever a program logs, as a short text.

import { messageOf } from './data.js'

/** How long a part of a text may be, and how deep and wide an object is shown. */
const DEPTH = 4
const WIDTH = 50

/** The arguments of a call of the console as one text of at most so many characters. Never throws. */
export function textOfArguments(args: readonly unknown[], maxChars: number): string {
  let out = ''
  for (const argument of args) {
    if (out.length >= maxChars) break
    out += (out === '' ? '' : ' ') + shortened(shown(argument, maxChars), maxChars)
  }
  return shortened(out, maxChars)
}

/** The stack of the first error among the arguments. */
export function stackOf(args: readonly unknown[], maxChars: number): string | undefined {
  for (const argument of args) {
    if (argument instanceof Error && typeof argument.stack === 'string') return shortened(argument.stack, maxChars)
  }
  return undefined
}

export function shortened(text: string, maxChars: number): string {
  return text.length <= maxChars ? text : `${text.slice(0, Math.max(0, maxChars - 1))}…`
}

function shown(value: unknown, maxChars: number): string {
  if (typeof value === 'string') return value
  try {
    return show(value, 0, new Set(), { left: maxChars })
  } catch (error) {
    // A getter or a proxy that throws is the program's own affair.
    return `[unreadable: ${shortened(
      attempt(() => messageOf(error)),
      100,
    )}]`
  }
}

function show(value: unknown, depth: number, above: Set<object>, room: { left: number }): string {
  const text = one(value, depth, above, room)
  room.left -= text.length
  return text
}

function one(value: unknown, depth: number, above: Set<object>, room: { left: number }): string {
  if (typeof value === 'string') return JSON.stringify(shortened(value, 1_000))
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'function') return `[function ${value.name || 'without a name'}]`
  if (typeof value !== 'object' || value === null) return String(value)
  if (value instanceof Error) return `${value.name}: ${value.message}`
  if (value instanceof Date) return attempt(() => value.toISOString())
  if (above.has(value)) return '[circular]'
  if (depth >= DEPTH || room.left <= 0) return Array.isArray(value) ? '[…]' : '{…}'
  above.add(value)
  const parts: string[] = []
  const names = Array.isArray(value) ? value.slice(0, WIDTH).keys() : Object.keys(value).slice(0, WIDTH)
  for (const name of names) {
    if (room.left <= 0) break
    const part = show((value as Record<string | number, unknown>)[name], depth + 1, above, room)
    parts.push(Array.isArray(value) ? part : `${name}: ${part}`)
  }
  above.delete(value)
  return Array.isArray(value) ? `[${parts.join(', ')}]` : `{${parts.join(', ')}}`
}

function attempt(make: () => string): string {
  try {
    return make()
  } catch {
    return 'unknown'
  }
}
