// A value that is made of parts with paths (JSON Pointer, RFC 6901). Parts that nothing touches stay the same objects.

import { TidingsError } from '../errors.js'

/** The names on a path: `/cells/0` is `cells` and `0`, the empty path is the whole. */
export function namesOf(path: string): string[] {
  if (path === '') return []
  if (!path.startsWith('/')) throw new TidingsError('invalid_argument', `"${path}" is no path: it begins with /`)
  return path
    .slice(1)
    .split('/')
    .map((name) => name.replaceAll('~1', '/').replaceAll('~0', '~'))
}

/** The path of these names. */
export function pathOf(names: readonly (string | number)[]): string {
  return names.map((name) => `/${String(name).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')
}

/** What is at the path; `undefined` where there is nothing. */
export function valueAt(root: unknown, path: string): unknown {
  let value = root
  for (const name of namesOf(path)) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined
    value = (value as Record<string, unknown>)[name]
  }
  return value
}

/** The most places of a list: an index beyond it is no path. */
const LIST_MAX = 100_000

/**
 * The value with another part at the path; `undefined` takes it away. What is missing on the way is made: objects, and
 * `null` in places of a list before the one that is set.
 *
 * The same whole comes of all changes and of the newest of each path alone, in the order of the log. That is why what is
 * taken out of a list leaves `null` in its place and does not move the others: replace the list to make it shorter. The
 * order of names in an object is not part of the value.
 *
 * `fresh` has what was copied since somebody last saw the value: that is changed in its place, and a thousand changes
 * copy once.
 */
export function withValue(root: unknown, path: string, value: unknown, fresh: Set<unknown> = new Set()): unknown {
  return put(root, namesOf(path), 0, value, fresh)
}

function put(node: unknown, names: readonly string[], at: number, value: unknown, fresh: Set<unknown>): unknown {
  const name = names[at]
  if (name === undefined) return value
  const own = fresh.has(node)
  // The part is made first: where that fails, nothing has changed.
  if (Array.isArray(node)) {
    const index = Number(name)
    if (!/^(0|[1-9]\d*)$/.test(name) || index >= LIST_MAX)
      throw new TidingsError('invalid_argument', `"${name}" is no place of a list`)
    const child = put(node[index], names, at + 1, value, fresh) ?? null
    const list: unknown[] = own ? node : [...node]
    fresh.add(list)
    while (list.length < index) list.push(null)
    list[index] = child
    return list
  }
  const before = typeof node === 'object' && node !== null ? (node as Record<string, unknown>) : {}
  const child = put(Object.hasOwn(before, name) ? before[name] : undefined, names, at + 1, value, fresh)
  const object = own ? before : { ...before }
  fresh.add(object)
  if (child === undefined) delete object[name]
  // Names come from others, `__proto__` among them: it is a name like any other.
  else Object.defineProperty(object, name, { value: child, writable: true, enumerable: true, configurable: true })
  return object
}
