// The page as one file: script and style stand in it, each with the place for the nonce of the broker's policy.

import { readFileSync } from 'node:fs'
import type { Plugin } from 'vite'

/** What the broker puts its nonce in the place of. */
const NONCE = '{{nonce}}'
/** What of others is in the page. */
const OTHERS = ['react', 'react-dom', 'scheduler', 'zustand', '@xterm/xterm']

export function oneFile(): Plugin {
  return {
    name: 'one-file',
    apply: 'build',
    generateBundle: {
      // Behind those of Vite, which fill in what they have left open.
      order: 'post',
      handler(_, bundle) {
        const files = Object.values(bundle)
        const take = (extension: string): string => {
          const found = files.filter(({ fileName }) => fileName.endsWith(extension))
          const [file] = found
          if (file === undefined || found.length !== 1) {
            this.error(`one ${extension} is expected, there are: ${found.map(({ fileName }) => fileName)}`)
          }
          delete bundle[file.fileName]
          return file.type === 'chunk' ? file.code : String(file.source)
        }
        const [script, style] = [take('.js'), take('.css')]
        const page = bundle['index.html']
        if (page?.type !== 'asset') this.error('there is no index.html')
        page.source = [
          [/\s*<script type="module"[^>]*><\/script>/, ''],
          [/\s*<link rel="stylesheet"[^>]*>/, `\n    <style nonce="${NONCE}">${plain(style.trim())}</style>`],
          [
            /\s*<\/body>/,
            `\n    <script type="module" nonce="${NONCE}">${harmless(script.trim())}</script>\n  </body>`,
          ],
          [/<!doctype html>\n/, `<!doctype html>\n<!--\n${notices()}\n-->\n`],
        ].reduce((html, [pattern, text]) => replaced(html, pattern as RegExp, text as string), String(page.source))
        for (const left of Object.keys(bundle)) {
          if (left !== 'index.html') this.error(`${left} would be a file of its own`)
        }
      },
    },
  }
}

function replaced(html: string, pattern: RegExp, text: string): string {
  if (!pattern.test(html)) throw new Error(`${pattern} is not in the page`)
  // By a function: in a text, dollars would mean something.
  return html.replace(pattern, () => text)
}

function plain(style: string): string {
  if (/<\/style|<!--/i.test(style) || style.includes(NONCE)) throw new Error('the style would end its element')
  return style
}

/** In a text of HTML these end or begin an element; in the strings of a script they can be written otherwise. */
function harmless(code: string): string {
  if (code.includes(NONCE)) throw new Error(`${NONCE} would be replaced in the middle of it`)
  return code.replace(/<(?=\/?(?:script|style)|!--)/gi, '\\x3c')
}

/** What the licences ask to be kept in every copy: the text once, and who has written what. */
function notices(): string {
  const texts = OTHERS.map((name) => readFileSync(new URL(`../node_modules/${name}/LICENSE`, import.meta.url), 'utf8'))
  const holders = texts.flatMap((text, at) =>
    (text.match(/^Copyright .*$/gm) ?? []).map((line) => `${OTHERS[at]}: ${line.trim()}`),
  )
  const licence = texts[0]?.slice(texts[0].indexOf('Permission is hereby granted')).trim()
  if (!licence || texts.some((text) => !text.includes('Permission is hereby granted'))) {
    throw new Error('a package has another licence than MIT: say so here')
  }
  return `Parts of this page are by others:\n\n${holders.join('\n')}\n\n${licence}`
}
