// A page of a test: its script bundled as a program would, with the stylesheets.

import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { transform } from 'lightningcss'
import type { Page } from 'playwright-core'

export const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium'
const require = createRequire(import.meta.url)

/** The page whose script is in `entry`, as one HTML document. */
export async function bundle(entry: string): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL(entry, import.meta.url))],
    bundle: true,
    write: false,
    format: 'esm',
    jsx: 'automatic',
    define: { 'process.env.NODE_ENV': '"production"' },
  })
  const script = outputFiles[0]?.text.replaceAll('</script', '<\\/script') ?? ''
  const own = await stylesheet()
  const xterm = await readFile(require.resolve('@xterm/xterm/css/xterm.css'), 'utf8')
  return `<!doctype html><html lang="en"><head><title>Parts</title><meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
    <style>:root { color-scheme: light dark; background: Canvas; color: CanvasText; font-family: sans-serif }</style>
    <style>${xterm}</style><style>${own}</style></head>
    <body><div id="root"></div><script type="module">${script}</script></body></html>`
}

/** Our stylesheet as Vite builds it by default, for browsers that do not know all of it; the page's own is built elsewhere. */
async function stylesheet(): Promise<string> {
  const code = await readFile(new URL('../../../src/ui/ui.css', import.meta.url))
  const targets = { chrome: 111 << 16, edge: 111 << 16, firefox: 114 << 16, safari: (16 << 16) | (4 << 8) }
  return transform({ filename: 'ui.css', code, minify: true, targets }).code.toString()
}

/** The script of axe-core. */
export function axe(): Promise<string> {
  return readFile(require.resolve('axe-core/axe.min.js'), 'utf8')
}

/** What the page complains of, as it does. */
export function listen(page: Page): string[] {
  const complaints: string[] = []
  page.on('pageerror', (error) => complaints.push(String(error)))
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) complaints.push(message.text())
  })
  return complaints
}

/** Runs JavaScript in the page. */
export function run<T>(page: Page, what: string): Promise<T> {
  return page.evaluate(what) as Promise<T>
}

/**
 * How long the tasks of the page's main thread took in milliseconds of the processor, the longest first. A Chromium that
 * does not measure these says how long they took by the clock, which is never less.
 */
export function tasksOf(trace: Buffer): number[] {
  interface Entry {
    name: string
    ph: string
    pid: number
    tid: number
    dur: number
    tdur?: number
    args: { name?: string }
  }
  const { traceEvents } = JSON.parse(trace.toString()) as { traceEvents: Entry[] }
  const thread = ({ pid, tid }: Entry) => `${pid} ${tid}`
  const main = new Set(traceEvents.filter(({ args }) => args.name === 'CrRendererMain').map(thread))
  return traceEvents
    .filter((entry) => entry.name.endsWith('::RunTask') && entry.ph === 'X' && main.has(thread(entry)))
    .map(({ dur, tdur = dur }) => tdur / 1_000)
    .sort((a, b) => b - a)
}
