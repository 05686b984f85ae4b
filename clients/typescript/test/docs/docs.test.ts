// Every snippet of ours in the documentation is held to the types, and run against a broker with tokens.

import { execFile } from 'node:child_process'
import { createHmac } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import type { Client } from '../../src/index.js'
import { type Broker, startBroker, stopBrokers } from '../support/broker.js'
import { until } from '../support/wait.js'
import { checkedOf, pages, printsOf, programOf, scriptsOf, snippetsOf } from './snippets.js'

const run = promisify(execFile)
const PACKAGE = fileURLToPath(new URL('../../', import.meta.url))
const ROOT = join(PACKAGE, '../..')
const SECRET = 'a secret of the test that is long enough to be one'
const all = pages()

let folder: string
let secret: string
/** Where the folder lies in the package. */
let inside: string

beforeAll(async () => {
  folder = await mkdtemp(join(PACKAGE, 'test/.docs-'))
  inside = relative(PACKAGE, folder)
  secret = join(await mkdtemp(join(tmpdir(), 'tidings-docs-')), 'secret')
  await writeFile(secret, SECRET, { mode: 0o600 })
})

afterAll(async () => {
  await rm(folder, { recursive: true, force: true })
  await rm(dirname(secret), { recursive: true, force: true })
})

/** A token as a program would sign it for its user. */
function tokenOf(subject: string, admin: boolean): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const exp = Math.floor(Date.now() / 1_000) + 600
  const claim = { publish: ['>'], subscribe: ['>'], durable: ['*'], admin }
  const head = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: subject, exp, tidings: claim })}`
  return `${head}.${createHmac('sha256', SECRET).update(head).digest('base64url')}`
}

const nameOf = (path: string) => path.replace(/\W+/g, '-')

test('the snippets of all pages fit the types', async () => {
  for (const page of all) {
    const program = programOf(page, inside)
    if (program !== undefined) await writeFile(join(folder, `${nameOf(page.path)}.ts`), program)
    for (const [at, { extension, code }] of checkedOf(page, inside).entries()) {
      await writeFile(join(folder, `${nameOf(page.path)}-${at}.${extension}`), code)
    }
  }
  // Parameters of handlers that are only shown are not used.
  const compilerOptions = {
    rootDir: PACKAGE,
    noEmit: true,
    types: ['node'],
    noUnusedLocals: false,
    noUnusedParameters: false,
  }
  const config = { extends: join(PACKAGE, 'tsconfig.json'), compilerOptions, include: [`${folder}/*`] }
  await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(config))
  const checked = run(join(PACKAGE, 'node_modules/.bin/tsc'), ['-p', folder], { cwd: folder }).catch((error) => error)
  expect((await checked).stdout).toBe('')
})

describe.each(all)('$path', (page) => {
  let broker: Broker
  let client: Client | undefined

  beforeAll(async () => {
    broker = await startBroker({ flags: ['--auth-jwt-hs256-secret-file', secret] })
    Object.assign(globalThis, { broker: broker.url })
    const real = globalThis.fetch
    vi.stubGlobal('fetch', (input: RequestInfo | URL, init?: RequestInit) =>
      input === '/token' ? Promise.resolve(new Response(tokenOf('alice', false))) : real(input, init),
    )
  })
  afterEach(() => client?.close())
  afterAll(async () => {
    vi.restoreAllMocks()
    vi.unstubAllGlobals()
    await stopBrokers()
  })

  test('runs, and prints what it says', async () => {
    const printed: string[] = []
    const shown = (value: unknown) => (typeof value === 'string' ? value : (JSON.stringify(value) ?? String(value)))
    vi.spyOn(console, 'log').mockImplementation((...args) => void printed.push(args.map(shown).join(' ')))
    const program = programOf(page, inside)
    if (program !== undefined) {
      const path = join(folder, `${nameOf(page.path)}.ts`)
      await mkdir(dirname(path), { recursive: true })
      await writeFile(path, program)
      client = (await import(path)).client
    }
    const env = { ...process.env, TOKEN: tokenOf('backend', true) }
    for (const { code, line } of scriptsOf(page, broker.url)) {
      // A refusal fails it, as it would not by itself.
      const script = `set -euo pipefail\ncurl() { command curl -sS --fail-with-body "$@"; }\n${code}\n`
      const ran = await run('bash', ['-c', script], { env, timeout: 30_000 }).catch((error) => error)
      expect(ran.stderr, `${page.path}:${line}: ${ran.stdout}`).toBe('')
      printed.push(...ran.stdout.split('\n'))
    }
    for (const said of printsOf(page)) {
      await until(() => printed.some((line) => line.includes(said)), 10_000).catch(() => {
        expect.fail(`${page.path} says that it prints "${said}"; it has printed\n${printed.join('\n')}`)
      })
    }
  })

  test('leads to files and headings that are there', () => {
    expect(deadLinksOf(page.path, page.text)).toEqual([])
  })
})

test('the links of the API reference lead to what is there', () => {
  const folder = 'clients/typescript/docs/api/'
  const files = readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' }).filter((one) =>
    one.endsWith('.md'),
  )
  expect(files.length).toBeGreaterThan(5)
  const dead = files.flatMap((one) => deadLinksOf(folder + one, readFileSync(join(ROOT, folder, one), 'utf8')))
  expect(dead).toEqual([])
})

/** Links to files, or places in them, that are not there. */
function deadLinksOf(path: string, text: string): string[] {
  const prose = snippetsOf(text).reduce((rest, { code }) => rest.replace(code, ''), text)
  const links = [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map(([, to = '']) => to)
  return links.filter((to) => {
    if (/^[a-z]+:/.test(to)) return false
    const [other = '', place] = to.split('#')
    const file = join(ROOT, other === '' ? path : join(dirname(path), other))
    return !existsSync(file) || (place !== undefined && !placesOf(readFileSync(file, 'utf8')).has(place))
  })
}

/** The anchors of a page: those that stand in it, and those that a Git host gives to headings. */
function placesOf(text: string): Set<string> {
  const places = new Set([...text.matchAll(/<a id="([^"]+)">/g)].map(([, id = '']) => id))
  for (const [, title = ''] of text.matchAll(/^#+ (.*)$/gm)) {
    const bare = title
      .replace(/<[^>]*>/g, '')
      .trim()
      .toLowerCase()
    places.add(bare.replace(/[^\p{L}\p{N} _-]/gu, '').replaceAll(' ', '-'))
  }
  return places
}
