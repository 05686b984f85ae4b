// Makes `dist`: what tsc writes, file by file, with short names for what only the package itself uses.
//
// - A property whose name begins with `_` is of the package alone: no program, platform or broker gives or is given it.
//   It has one short name in all files, so that parts that are loaded for themselves still understand each other.
// - A short name is one letter, or a word that stands nowhere in the package: no word of the protocol and nothing public
//   (a test holds that neither has names of one letter). All other names, and the code, are as the compiler wrote them:
//   who bundles it minifies it.

import { spawnSync } from 'node:child_process'
import { copyFileSync, globSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { transformSync } from 'esbuild'

/** Names of properties; `_jsx` is what the compiler calls React's. */
const PRIVATE = /(?<![\w$])_(?!jsx)[a-z]\w*/g
/** In about the order in which JavaScript has them: names of letters that are frequent anyway are compressed better. */
const LETTERS = 'etnriaoscludfpmhgyvbwxkjqzSCTEAPNRLMDIOUFBHVGWKYJXQZ'

/** The short name of each private one in these texts, the one that is there most often first; `others` have none. */
export function shortNames(texts, others) {
  const counts = new Map()
  for (const name of texts.flatMap((text) => text.match(PRIVATE) ?? [])) counts.set(name, (counts.get(name) ?? 0) + 1)
  const taken = new Set([...texts, ...others].flatMap((text) => text.match(/\w{2,}/g) ?? []))
  const names = [...counts].sort(([one, a], [other, b]) => b - a || (one < other ? -1 : 1)).map(([name]) => name)
  const free = [...LETTERS, ...[...LETTERS].flatMap((first) => [...LETTERS].map((second) => first + second))].filter(
    (name) => !taken.has(name),
  )
  return Object.fromEntries(names.map((name, at) => [name, free[at]]))
}

function build(root) {
  rmSync(join(root, 'dist'), { recursive: true, force: true })
  const { status, error } = spawnSync(join(root, 'node_modules/.bin/tsc'), { cwd: root, stdio: 'inherit' })
  if (error) throw error
  if (status !== 0) process.exit(1)
  copyFileSync(join(root, 'src/ui/ui.css'), join(root, 'dist/ui/ui.css'))
  // No entry's types say anything of the core's own.
  for (const path of globSync('dist/core/*.d.ts*', { cwd: root })) rmSync(join(root, path))

  const paths = globSync('dist/**/*.js', { cwd: root }).sort()
  const texts = paths.map((path) => readFileSync(join(root, path), 'utf8'))
  const types = globSync('dist/**/*.d.ts', { cwd: root }).map((path) => readFileSync(join(root, path), 'utf8'))
  const mangleCache = shortNames(texts, types)
  paths.forEach((path, at) => {
    const text = texts[at]
    if (text.search(PRIVATE) < 0) return
    // The map of the compiler goes in, and one that leads from here to the source comes out.
    const own = /^\/\/# sourceMappingURL=.*$/m
    const map = readFileSync(join(root, `${path}.map`)).toString('base64')
    const made = transformSync(text.replace(own, `//# sourceMappingURL=data:application/json;base64,${map}`), {
      format: 'esm',
      target: 'es2022',
      sourcefile: path.replace(/^.*\//, ''),
      sourcemap: 'external',
      sourcesContent: false,
      mangleProps: /^_[a-z]/,
      mangleCache,
    })
    const [link] = text.match(own)
    writeFileSync(join(root, path), `${made.code}${link}\n`)
    writeFileSync(join(root, `${path}.map`), made.map)
  })
}

if (process.argv[1] === import.meta.filename) build(join(import.meta.dirname, '..'))
