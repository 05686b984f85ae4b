// All parts in Chromium: what axe finds in light and dark, at phone and desktop width, and what only a real page shows.

import { type Browser, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { axe, bundle, CHROMIUM, listen, run, tasksOf } from './bundle.js'

let browser: Browser
let html: string

beforeAll(async () => {
  html = await bundle('./page.tsx')
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] })
})
afterAll(() => browser?.close())

interface Told {
  delivered: number
  renders: number
  frames: number
  longest: number[]
  shown: number
  last: string
}

interface Looks {
  colorScheme: 'light' | 'dark'
  width: number
  reducedMotion?: 'reduce'
}

/** The page in these looks; whatever it complains of is in `complaints`. */
async function open({ width, ...looks }: Looks): Promise<{ page: Page; complaints: string[] }> {
  const page = await browser.newPage({ viewport: { width, height: 800 }, ...looks })
  const complaints = listen(page)
  await page.setContent(html)
  await page.waitForSelector('.tidings-connection')
  return { page, complaints }
}

describe('the parts in Chromium', () => {
  for (const colorScheme of ['light', 'dark'] as const) {
    for (const width of [390, 1_280]) {
      it(`have no findings of axe in ${colorScheme} at ${width} pixels`, async () => {
        const { page, complaints } = await open({ colorScheme, width, reducedMotion: 'reduce' })
        await run(page, 'fill()')
        await page.getByText('Connection lost').waitFor()
        // xterm draws what is in sight.
        await page.locator('.tidings-screen').scrollIntoViewIfNeeded()
        await page.getByText('12 passed').first().waitFor({ state: 'attached' })
        await page.evaluate(await axe())
        type Found = { id: string; impact: string; nodes: { html: string; failureSummary: string }[] }
        // What a page has around parts is not theirs; the inside of xterm is not ours.
        const { violations, passes } = await run<{ violations: Found[]; passes: { id: string }[] }>(
          page,
          `axe.run({ exclude: ['.xterm'] }, { resultTypes: ['violations'] })`,
        )
        const found = violations.map(
          ({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`)}`,
        )
        expect(found).toEqual([])
        expect(passes.map(({ id }) => id)).toContain('color-contrast')
        // Nothing sticks out of a phone.
        expect(await run<number>(page, 'document.documentElement.scrollWidth')).toBeLessThanOrEqual(width)
        expect(complaints).toEqual([])
        if (process.env.SCREENSHOTS) {
          await page.screenshot({
            path: `${process.env.SCREENSHOTS}/parts-${colorScheme}-${width}.png`,
            fullPage: true,
          })
        }
        await page.close()
      })
    }
  }

  it('break words of a thousand letters on a phone, and say nothing of what is no sequence of a terminal', async () => {
    const page = await browser.newPage({ viewport: { width: 320, height: 800 } })
    const complaints = listen(page)
    await page.setContent(html.replace('<script', '<script>flooded = true</script><script'))
    await page.waitForSelector('.tidings-connection')
    await run(page, 'fill(), flood()')
    await page.locator('.tidings-toast', { hasText: 'WWW' }).first().waitFor()
    await page.locator('.tidings-presence', { hasText: 'WWW' }).waitFor()
    await page.locator('.tidings-screen').scrollIntoViewIfNeeded()
    await page.locator('.xterm-rows', { hasText: 'WWW' }).waitFor()
    const wide = `[...document.querySelectorAll('.tidings, .tidings :not(.xterm *)')]
      .filter((each) => each.getBoundingClientRect().right > innerWidth).map(({ outerHTML }) => outerHTML.slice(0, 80))`
    expect(await run<string[]>(page, wide)).toEqual([])
    expect(await run<number>(page, 'document.documentElement.scrollWidth')).toBeLessThanOrEqual(320)
    // Whatever a toast says, it can be dismissed.
    await run(page, 'client.deliver(event({ topic: "toasts.1", priority: "urgent", data: "W ".repeat(9_999) }))')
    const long = page.locator('.tidings-toast', { hasText: 'W W W' })
    await long.getByRole('button', { name: 'Dismiss' }).click({ timeout: 5_000 })
    await long.waitFor({ state: 'detached' })
    expect(complaints).toEqual([])
    await page.close()
  })

  it('keep still where the reader wants no motion', async () => {
    const moving = (page: Page) => run<number>(page, 'document.getAnimations().length')
    const calm = await open({ colorScheme: 'light', width: 1_280, reducedMotion: 'reduce' })
    await run(calm.page, 'fill()')
    await calm.page.getByText('Saved').waitFor()
    expect(await moving(calm.page)).toBe(0)
    await calm.page.close()
    const lively = await open({ colorScheme: 'light', width: 1_280 })
    await run(lively.page, 'fill()')
    await lively.page.getByText('Saved').waitFor()
    expect(await moving(lively.page)).toBeGreaterThan(0)
    await lively.page.close()
  })

  it('take their colours from the page', async () => {
    const { page } = await open({ colorScheme: 'light', width: 1_280 })
    await run(page, 'fill()')
    await page.addStyleTag({ content: ':root { --tidings-accent: rgb(1, 2, 3) }' })
    const button = page.getByRole('button', { name: 'Try now' })
    expect(await button.evaluate((element) => getComputedStyle(element).color)).toBe('rgb(1, 2, 3)')
    await page.close()
  })

  it('a terminal needs of a strict policy no more than a nonce, and goes from light to dark with the page', async () => {
    const page = await browser.newPage({ colorScheme: 'light' })
    const complaints = listen(page)
    await page.route('http://parts.invalid/', (route) =>
      route.fulfill({
        contentType: 'text/html; charset=utf-8',
        headers: {
          'content-security-policy': "default-src 'none'; script-src 'nonce-n'; style-src 'nonce-n'; img-src data:",
        },
        body: html.replaceAll('<style>', '<style nonce="n">').replace('<script ', '<script nonce="n" '),
      }),
    )
    await page.goto('http://parts.invalid/')
    await page.locator('.tidings-screen').scrollIntoViewIfNeeded()
    await run(page, 'fill()')
    const green = page.locator('.xterm-rows .xterm-fg-2', { hasText: 'ok' })
    await green.waitFor()
    const looks = () =>
      green.evaluate((element) => {
        const { color, letterSpacing } = getComputedStyle(element)
        const screen = getComputedStyle(document.querySelector('.xterm-scrollable-element') as Element)
        return { color, letterSpacing, background: screen.backgroundColor }
      })
    const light = await looks()
    expect(light.letterSpacing).toMatch(/^(normal|-?0(\.\d+)?px)$/)
    await page.emulateMedia({ colorScheme: 'dark' })
    await expect.poll(async () => (await looks()).background).not.toBe(light.background)
    expect((await looks()).color).not.toBe(light.color)
    expect(complaints).toEqual([])
    await page.close()
  })

  it('a chat stays at the bottom, and where the reader has scrolled to', async () => {
    const { page } = await open({ colorScheme: 'light', width: 1_280 })
    await run(page, 'fill()')
    const log = page.getByRole('log', { name: 'Messages' })
    await log.getByText('One of our own').waitFor()
    const away = () => log.evaluate((element) => element.scrollHeight - element.scrollTop - element.clientHeight)
    expect(await away()).toBeLessThan(2)
    const come = (text: string) =>
      run(page, `client.deliver(event({ topic: 'chat.1', source: 'ann', data: { text: '${text}' } }))`)
    await come('at the bottom')
    await log.getByText('at the bottom').waitFor()
    expect(await away()).toBeLessThan(2)
    await log.focus()
    const still = log.evaluate((element) =>
      new Promise((resolve) => element.addEventListener('scrollend', resolve)).then(() => 0),
    )
    await page.keyboard.press('PageUp')
    await still
    const jump = page.getByRole('button', { name: /Jump to latest/ })
    await jump.waitFor()
    const before = await log.evaluate((element) => element.scrollTop)
    await come('further down')
    await jump.getByText('1 new').waitFor()
    expect(await log.evaluate((element) => element.scrollTop)).toBe(before)
    await jump.focus()
    await page.keyboard.press('Enter')
    await jump.waitFor({ state: 'detached' })
    expect(await away()).toBeLessThan(2)
    // A narrower window breaks lines: the bottom stays in sight.
    await page.setViewportSize({ width: 320, height: 800 })
    await expect.poll(away).toBeLessThan(2)
    await page.close()
  })

  it('a list takes 10,000 events a second', async () => {
    const page = await browser.newPage({ viewport: { width: 1_280, height: 800 } })
    const complaints = listen(page)
    await page.setContent(html.replace('<div id="root">', '<script>globalThis.rows = true</script>$&'))
    await page.waitForSelector('ol', { state: 'attached' })
    await browser.startTracing(page, { categories: ['toplevel'] })
    const told = await run<Told>(page, 'load(10_000, 5)')
    const tasks = tasksOf(await browser.stopTracing())
    console.info('longest tasks in ms of the processor', tasks.slice(0, 5), 'frames by the clock', told)
    expect(told.delivered).toBe(50_000)
    expect(told.shown).toBe(200)
    expect(told.last).toBe('load.9 49999')
    // Rendered again and again, not once at the end; and once a frame, not with every batch that comes.
    expect(told.renders).toBeGreaterThan(50)
    expect(told.renders).toBeLessThanOrEqual(told.frames + 2)
    // What the page needs for a frame is time of the processor. By the clock a frame is longer wherever something else
    // runs on the machine, which is not for the page to answer.
    expect(tasks.length).toBeGreaterThan(told.frames)
    // A figure of the machine: on request only, where nothing else runs.
    if (process.env.TIDINGS_FRAMES) expect(tasks[0]).toBeLessThan(50)
    expect(complaints).toEqual([])
    await page.close()
  })
})
