// What the reference looks like: a page for each entry of the package, and as little as says all.
//
// - A signature has the types of its parameters and of its result: tables of them would say it twice.
// - Pages are named as the entries are imported.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Comment, Converter, ReflectionKind } from 'typedoc'
import { MarkdownTheme, MarkdownThemeContext } from 'typedoc-plugin-markdown'

/** The entries of the package, as they are imported, with what each is for. */
const ENTRIES = JSON.parse(readFileSync(join(import.meta.dirname, 'entries.json'), 'utf8'))

class Context extends MarkdownThemeContext {
  partials = {
    ...this.partials,
    // An anonymous object has members to tell of, anything else is in the signature.
    signatureReturns: (model, options) => {
      const members = model.type?.declaration
      return members?.children ? this.partials.typeDeclaration(members, options) : ''
    },
    inheritance: () => '',
  }
}

class Theme extends MarkdownTheme {
  getRenderContext(page) {
    return new Context(this, page, this.application.options)
  }
}

export function load(app) {
  app.renderer.defineTheme('entries', Theme)
  app.options.addReader({
    name: 'entries',
    order: 1_000,
    supportsPackages: false,
    read(options) {
      options.setValue(
        'entryPoints',
        Object.values(ENTRIES).map(({ source }) => `../../${source}`),
        import.meta.dirname,
      )
    },
  })
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
    for (const page of project.children ?? []) {
      const [name, { about }] = entryOf(page.name)
      page.name = name
      page.comment = new Comment([{ kind: 'text', text: about }])
    }
    // What is taken apart where it is declared has no name there.
    for (const parameter of project.getReflectionsByKind(ReflectionKind.Parameter)) {
      if (parameter.name === '__namedParameters') parameter.name = 'options'
    }
  })
}

/** The generator names a page by its file, without what it shares with the others. */
function entryOf(page) {
  const files = [`src/${page}.ts`, `src/${page}.tsx`, `src/${page}/index.ts`]
  const found = Object.entries(ENTRIES).find(([, { source }]) => files.includes(source))
  if (found === undefined) throw new Error(`${page} is no entry: name it in entries.json`)
  return found
}
