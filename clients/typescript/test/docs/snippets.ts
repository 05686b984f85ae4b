// The snippets of the documentation: what stands between fences, made into programs.
//
// - The `ts` of a page is one program from top to bottom, `tsx` is one component each, `sh` one script. Other languages are
//   other people's. `ts check` is only held to the types: it needs a page, or something else that is not here.
// - `// prints: …` behind a line says what the console has to have said when the program has ended.

import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../../../../', import.meta.url))
const DOCS = 'clients/typescript/docs/'

/** The entries of the package, by how they are imported. */
const ENTRIES: Record<string, { source: string } | undefined> = JSON.parse(
  readFileSync(new URL('../../scripts/api/entries.json', import.meta.url), 'utf8'),
)

/** What the snippets say where the broker is. */
const ADDRESS = 'https://tidings.example'

export interface Snippet {
  /** `ts`, `tsx`, `sh`, … */
  readonly language: string
  /** Whether it is only checked. */
  readonly checked: boolean
  readonly code: string
  /** The line of the page on which it begins. */
  readonly line: number
}

export interface Page {
  /** From the root of the repository. */
  readonly path: string
  readonly text: string
  readonly snippets: readonly Snippet[]
}

/** The pages that are written by hand and show this client. */
export function pages(): Page[] {
  const own = readdirSync(ROOT + DOCS)
    .filter((name) => name.endsWith('.md'))
    .map((name) => DOCS + name)
  return ['clients/typescript/README.md', 'docs/conventions.md', ...own].map((path) => {
    const text = readFileSync(ROOT + path, 'utf8')
    return { path, text, snippets: snippetsOf(text) }
  })
}

export function snippetsOf(text: string): Snippet[] {
  const found: Snippet[] = []
  let open: { words: string[]; indent: number; line: number; lines: string[] } | undefined
  for (const [at, line] of text.split('\n').entries()) {
    const fence = line.match(/^( *)```(.*)$/)
    if (fence === null) open?.lines.push(line.slice(open.indent))
    else if (open === undefined) {
      const [, indent = '', words = ''] = fence
      open = { words: words.trim().split(/\s+/), indent: indent.length, line: at + 2, lines: [] }
    } else {
      const [language = '', ...how] = open.words
      found.push({ language, checked: how.includes('check'), code: open.lines.join('\n'), line: open.line })
      open = undefined
    }
  }
  if (open !== undefined) throw new Error(`the fence of line ${open.line - 1} is not closed`)
  return found
}

/** The program of a page's `ts`; `undefined` where it has none. `folder` is where it will lie, below this package. */
export function programOf(page: Page, folder: string): string | undefined {
  const parts = page.snippets.filter(({ language, checked }) => language === 'ts' && !checked)
  if (parts.length === 0) return undefined
  // The client is given to the test, which closes it.
  return placed(`${parts.map(({ code }) => code).join('\n\n')}\n\nexport { client }\n`, folder)
}

/** What is only checked: each with the client that the page has made before. */
export function checkedOf(page: Page, folder: string): { extension: string; code: string }[] {
  return page.snippets
    .filter(({ language, checked }) => language === 'tsx' || (language === 'ts' && checked))
    .map(({ language, code }) => {
      const given = /\bcreateClient\b/.test(code)
        ? ''
        : "import type { Client } from 'tidings'\ndeclare const client: Client\n"
      return { extension: language, code: placed(`${given}${code}\nexport {}\n`, folder) }
    })
}

/** What the program has to have printed. */
export function printsOf(page: Page): string[] {
  return page.snippets.flatMap(({ code, checked }) =>
    checked ? [] : [...code.matchAll(/(?:\/\/|#) prints: (.*)$/gm)].map(([, said = '']) => said.trim()),
  )
}

/** The scripts of a page. */
export function scriptsOf(page: Page, url: string): Snippet[] {
  return page.snippets
    .filter(({ language, checked }) => language === 'sh' && !checked)
    .map((snippet) => ({ ...snippet, code: snippet.code.replaceAll(ADDRESS, url) }))
}

/** Of the sources in the place of the package, so that nothing has to be built; with the address of a real broker. */
function placed(code: string, folder: string): string {
  const up = '../'.repeat(folder.split('/').filter(Boolean).length)
  return code
    .replace(/^import '.*\.css'$/gm, '')
    .replace(/from '(tidings(?:\/[a-z-]+)?)'/g, (whole, name: string) => {
      const entry = ENTRIES[name]
      return entry ? `from '${up}${entry.source.replace(/\.tsx?$/, '.js')}'` : whole
    })
    .replaceAll(`'${ADDRESS}'`, '(globalThis as unknown as { broker: string }).broker')
}
