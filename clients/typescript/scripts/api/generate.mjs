// Writes docs/api from the types and their comments. With `--check` it writes nothing, and fails where that would change
// something. Either way it fails where something public has no comment.

import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const here = import.meta.dirname
const ENTRIES = JSON.parse(readFileSync(join(here, 'entries.json'), 'utf8'))
const kept = join(here, '../../docs/api')
const made = join(tmpdir(), `tidings-api-${process.pid}`)
const check = process.argv.includes('--check')

function run(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: here, stdio: 'inherit' })
  if (error) throw error
  return status === 0
}

/** The pages of a folder by their paths. */
function pages(folder) {
  if (!existsSync(folder)) return new Map()
  const files = readdirSync(folder, { recursive: true }).filter((path) => path.endsWith('.md'))
  return new Map(files.map((path) => [path, readFileSync(join(folder, path), 'utf8')]))
}

/** What the package exports and has no page here, or the other way round. */
function unknownEntries() {
  const { exports } = JSON.parse(readFileSync(join(here, '../../package.json'), 'utf8'))
  const exported = Object.keys(exports).filter((path) => exports[path].types)
  const names = exported.map((path) => `tidings${path.slice(1)}`)
  return [...names.filter((name) => !ENTRIES[name]), ...Object.keys(ENTRIES).filter((name) => !names.includes(name))]
}

function generate() {
  const unknown = unknownEntries()
  for (const name of unknown) console.error(`docs: ${name} is in package.json or in entries.json, and not in both`)
  if (unknown.length > 0) return false
  // The generator's own packages: those that the lock file says, and no others.
  if (!run('npm', ['ci', '--prefer-offline', '--no-audit', '--no-fund', '--silent'])) return false
  const typedoc = join(here, 'node_modules/typedoc/bin/typedoc')
  return run(process.execPath, [typedoc, '--options', 'typedoc.json', '--logLevel', 'Warn', '--out', made])
}

function stale() {
  const [before, after] = [pages(kept), pages(made)]
  return [...new Set([...before.keys(), ...after.keys()])].filter((path) => before.get(path) !== after.get(path)).sort()
}

try {
  if (!generate()) {
    console.error('docs: mend what is said above; a comment says what it is for, its unit, its default and its bounds')
    process.exitCode = 1
  } else if (!check) {
    rmSync(kept, { recursive: true, force: true })
    cpSync(made, kept, { recursive: true })
  } else {
    const paths = stale()
    for (const path of paths) console.error(`docs: docs/api/${path} is not what the types say: run \`npm run docs\``)
    if (paths.length > 0) process.exitCode = 1
  }
} finally {
  rmSync(made, { recursive: true, force: true })
}
