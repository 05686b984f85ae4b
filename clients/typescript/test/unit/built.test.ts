// What is built is what was written, but for the names of what only the package itself uses.

import { spawnSync } from 'node:child_process'
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { transform } from 'esbuild'
import { expect, test } from 'vitest'
// @ts-expect-error: a script, which has no types.
import { shortNames } from '../../scripts/build.mjs'
import * as client from '../../src/index.js'

const ROOT = join(import.meta.dirname, '../..')
const PRIVATE = /(?<![\w$])_(?!jsx)[a-z]\w*/g

const read = (folder: string, pattern: string): Map<string, string> =>
  new Map(globSync(pattern, { cwd: folder }).map((path) => [path, readFileSync(join(folder, path), 'utf8')]))
const code = (text: string): string => text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '')
/** The names of members in declarations: behind every one stands a colon, a bracket or a question mark. */
const members = (text: string): string[] =>
  [...code(text).matchAll(/(?<![\w$.])([A-Za-z_$][\w$]*)\??\s*[:(<]/g)].map(([, name = '']) => name)
const types = [...read(join(ROOT, 'dist'), '**/*.d.ts').values()]
const reachable = new Set(types.flatMap(members))

/** The names of properties in a schema. */
function properties(schema: unknown): string[] {
  if (typeof schema !== 'object' || schema === null) return []
  return Object.entries(schema).flatMap(([key, inner]) => [
    ...(key === 'properties' ? Object.keys(inner) : []),
    ...properties(inner),
  ])
}

test('nothing that a program can reach has a private name', async () => {
  expect(reachable).toContain('publishBatch')
  expect(types.flatMap((text) => code(text).match(PRIVATE) ?? [])).toEqual([])
  const made = client.createClient('http://127.0.0.1:9', { autoConnect: false })
  const error = new client.TidingsError('internal', 'a')
  for (const shown of [made, made.status, made.subscribe('a'), error, client.json, client.memoryCursors()]) {
    for (const name of Object.keys(shown)) expect(reachable).toContain(name)
  }
  await made.close()
})

test('what is built differs from what was written by private names alone, each of one short name everywhere', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tidings-built-'))
  try {
    const { status } = spawnSync(join(ROOT, 'node_modules/.bin/tsc'), ['--outDir', folder], { cwd: ROOT })
    expect(status).toBe(0)
    const written = read(folder, '**/*.js')
    const built = read(join(ROOT, 'dist'), '**/*.js')
    const short: Record<string, string> = shortNames([...written.values()], types)
    expect([...built.keys()].sort()).toEqual([...written.keys()].sort())
    expect(new Set(Object.values(short)).size).toBe(Object.keys(short).length)
    const settings = { format: 'esm', target: 'es2022' } as const
    for (const [path, text] of written) {
      const { code: plain } = await transform(text, settings)
      const { code: found } = await transform(built.get(path) ?? '', settings)
      expect(found, path).toBe(plain.replace(PRIVATE, (name) => short[name] ?? name))
    }
    // A short name is nothing public, and no word of the protocol.
    const api = ['openapi', 'asyncapi'].map((name) => readFileSync(join(ROOT, `../../proto/${name}.json`), 'utf8'))
    const words = new Set([...reachable, ...api.flatMap((text) => properties(JSON.parse(text)))])
    expect(words).toContain('ping_interval_ms')
    expect(Object.values(short).filter((name) => words.has(name))).toEqual([])
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
