// A page in Chromium with the client in it, from an origin of its own.

import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core'

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium'
const SRC = fileURLToPath(new URL('../../src/', import.meta.url))

/** What a page has as `window.tidings`. */
const ENTRY = `
  export * from '${SRC}index.ts'
  export { indexedDb } from '${SRC}indexeddb.ts'
  export { msgpack } from '${SRC}msgpack.ts'
  export { protobuf } from '${SRC}protobuf.ts'
`

export class Pages {
  readonly origin: string
  readonly problems: string[] = []
  readonly #server: Server
  readonly #browser: Browser

  static async open(): Promise<Pages> {
    const bundle = await build({
      stdin: { contents: ENTRY, resolveDir: SRC, loader: 'ts' },
      bundle: true,
      write: false,
      format: 'iife',
      globalName: 'tidings',
      target: 'es2022',
    })
    const script = bundle.outputFiles[0]?.text ?? ''
    const server = createServer((request, response) => {
      const isScript = request.url === '/tidings.js'
      response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html')
      response.end(
        isScript
          ? script
          : '<!doctype html><title>tidings</title><link rel="icon" href="data:,"><script src="/tidings.js"></script>',
      )
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] })
    return new Pages(server, browser)
  }

  private constructor(server: Server, browser: Browser) {
    this.#server = server
    this.#browser = browser
    const address = server.address()
    this.origin = `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`
  }

  /** Tabs of one context share their storage and their locks. */
  context(): Promise<BrowserContext> {
    return this.#browser.newContext()
  }

  async tab(context: BrowserContext): Promise<Page> {
    const page = await context.newPage()
    page.on('pageerror', (error) => this.problems.push(`${error}`))
    await page.goto(this.origin)
    return page
  }

  async close(): Promise<void> {
    await this.#browser.close()
    this.#server.closeAllConnections()
    this.#server.close()
    await once(this.#server, 'close')
  }
}
