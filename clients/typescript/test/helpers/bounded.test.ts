// Scrollback and structures: what any sequence makes of them.

import fc from 'fast-check'
import { expect, test } from 'vitest'
import { pathOf, TerminalBuffer, valueAt } from '../../src/helpers/index.js'
import { withValue } from '../../src/helpers/structure-tree.js'

const pieces = fc.array(fc.stringMatching(/^[ab\r\n]{0,8}$/), { maxLength: 60 })

test('a reader that keeps up has drawn every character; one that does not begins anew with what is left', () => {
  fc.assert(
    fc.property(
      pieces,
      fc.integer({ min: 1, max: 6 }),
      fc.integer({ min: 4, max: 30 }),
      (texts, maxLines, maxChars) => {
        const buffer = new TerminalBuffer({ maxLines, maxChars })
        let position = 0
        let screen = ''
        let all = ''
        for (const [n, text] of texts.entries()) {
          buffer.write(text)
          all += text
          if (n % 3 !== 0) continue
          const output = buffer.read(position)
          if (output.reset) screen = ''
          screen += output.text
          position = output.position
          expect(all.endsWith(screen)).toBe(true)
        }
        expect(buffer.end).toBe(all.length)
        expect(buffer.chars).toBeLessThanOrEqual(maxChars)
        expect(buffer.lines().length).toBeLessThanOrEqual(maxLines)
        expect(all.endsWith(buffer.read(0).text)).toBe(true)
        expect(buffer.read(buffer.end)).toEqual({ text: '', position: buffer.end, reset: false })
      },
    ),
    { numRuns: 500 },
  )
})

test('lines are what was written between line ends, and the list stays the same until something is', () => {
  const buffer = new TerminalBuffer({ maxLines: 3 })
  for (const text of ['one\r\ntw', 'o\nthree\n', '\nfive']) buffer.write(text)
  expect(buffer.lines()).toEqual(['three', '', 'five'])
  expect(buffer.dropped).toBe(2)
  expect(buffer.lines()).toBe(buffer.lines())
  const { position } = buffer.read(0)
  buffer.clear()
  expect(buffer.read(position)).toMatchObject({ text: '', reset: true })
  buffer.write('new')
  expect(buffer.read(position)).toMatchObject({ text: 'new', reset: true })
  // A position of another terminal.
  expect(buffer.read(buffer.end + 5)).toMatchObject({ text: 'new', position: buffer.end, reset: true })
})

test('a line that is written without an end for long is one line, and costs no more the longer it is', () => {
  const buffer = new TerminalBuffer({ maxChars: 100_000 })
  buffer.write('first\n')
  let all = 'first\n'
  for (let n = 0; n < 5_000; n++) {
    const step = `\r${n} %`
    buffer.write(step)
    all += step
  }
  expect(buffer.lines()).toEqual(all.split('\n'))
  buffer.write('\nlast')
  expect(buffer.lines()).toEqual(`${all}\nlast`.split('\n'))
  for (let n = 0; n < 50_000; n++) buffer.write(`\r${n} %`)
  expect(buffer.chars).toBeLessThanOrEqual(100_000)
  expect(buffer.chars).toBeGreaterThan(90_000)
  expect(buffer.lines()).toHaveLength(1)
  expect(buffer.lines()[0]?.endsWith('\r49999 %')).toBe(true)
  expect(buffer.dropped).toBe(2)
})

test('a million lines cost as much as five thousand', () => {
  const buffer = new TerminalBuffer({ maxChars: 1e9 })
  for (let n = 0; n < 200_000; n++) buffer.write(`line ${n}\n`)
  expect(buffer.lines()).toHaveLength(5_000)
  expect(buffer.dropped).toBe(195_000)
  expect(buffer.lines().at(-1)).toBe('line 199999')
})

const names = fc.constantFrom('a', 'b', '0', '1', '2', '__proto__')
const change = fc.record({
  path: fc.array(names, { maxLength: 3 }).map(pathOf),
  value: fc.constantFrom<unknown>(undefined, 1, 'x', null, {}, [], ['l', 'm'], { a: 1 }),
})

function applied(changes: readonly { path: string; value: unknown }[]): unknown {
  let value: unknown
  for (const { path, value: part } of changes) {
    try {
      value = withValue(value, path, part)
    } catch {
      // As readers do: what does not fit changes nothing.
    }
  }
  return value
}

/** Without names that lead nowhere: their order and their emptiness are not part of the value. */
const seen = (value: unknown) => JSON.parse(JSON.stringify(value ?? null))

test('parts are set, read and taken away by their paths, and nothing reaches a prototype', () => {
  const one = withValue(undefined, '/cells/a~1b', 1)
  expect(one).toEqual({ cells: { 'a/b': 1 } })
  expect(valueAt(one, pathOf(['cells', 'a/b']))).toBe(1)
  expect(valueAt(one, '/cells/toString')).toBeUndefined()
  const list = withValue({ list: ['a', 'b', 'c'] }, '/list/1', undefined)
  expect(list).toEqual({ list: ['a', null, 'c'] })
  expect(() => withValue(list, '/list/100000', 1)).toThrow('no place of a list')
  expect(withValue(list, '', 7)).toBe(7)
  expect(withValue([], '/2', 1)).toStrictEqual([null, null, 1])
  const evil = withValue({}, '/__proto__/polluted', true)
  expect(({} as { polluted?: boolean }).polluted).toBeUndefined()
  expect(JSON.stringify(evil)).toBe('{"__proto__":{"polluted":true}}')
  expect(() => withValue({}, 'no/slash', 1)).toThrow('is no path')
})

test('parts that nothing touches stay the same objects', () => {
  const before = { left: { deep: {} }, right: { n: 1 } }
  const after = withValue(before, '/right/n', 2) as typeof before
  expect(after.left).toBe(before.left)
  expect(before.right.n).toBe(1)
})

test('the newest of each path makes what all changes make', () => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 12 }), (changes) => {
      const newest = changes.filter(({ path }, at) => !changes.slice(at + 1).some((later) => later.path === path))
      expect(seen(applied(newest))).toEqual(seen(applied(changes)))
    }),
    { numRuns: 2_000 },
  )
})

test('what somebody has seen does not change, however much is changed in its place meanwhile', () => {
  const looks = fc.array(fc.tuple(change, fc.boolean()), { maxLength: 20 })
  fc.assert(
    fc.property(looks, (changes) => {
      const fresh = new Set<unknown>()
      const seenThen: [unknown, string][] = []
      let value: unknown
      for (const [{ path, value: part }, look] of changes) {
        try {
          value = withValue(value, path, structuredClone(part), fresh)
        } catch {
          // As readers do.
        }
        if (!look) continue
        fresh.clear()
        seenThen.push([value, JSON.stringify(value) ?? ''])
      }
      for (const [then, text] of seenThen) expect(JSON.stringify(then) ?? '').toBe(text)
      expect(seen(value)).toEqual(seen(applied(changes.map(([one]) => one))))
    }),
    { numRuns: 2_000 },
  )
})
