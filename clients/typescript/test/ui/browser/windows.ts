// Windows of a browser that show one page of a test, with a broker.

import { type Browser, chromium, type Page } from 'playwright-core'
import { type Broker, startBroker, stopBrokers } from '../../support/broker.js'
import { bundle, CHROMIUM, listen } from './bundle.js'

/** A page, and what it complained of. */
export interface Window {
  readonly page: Page
  readonly complaints: string[]
}

export class Windows {
  readonly browser: Browser
  broker: Broker
  readonly #html: string

  /** Of the page whose script is in `entry`. */
  static async start(entry: string): Promise<Windows> {
    const broker = await startBroker()
    const html = await bundle(entry)
    // A page that the test puts there comes from no address at all, from which Chromium allows no local ones.
    const browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: ['--no-sandbox', '--disable-features=LocalNetworkAccessChecks'],
    })
    return new Windows(browser, broker, html)
  }

  private constructor(browser: Browser, broker: Broker, html: string) {
    this.browser = browser
    this.broker = broker
    this.#html = html
  }

  /** A window of somebody. The page comes from the broker's origin, which needs no permission then. */
  async open(name: string, before?: (page: Page) => Promise<void>): Promise<Window> {
    const page = await this.browser.newPage()
    const complaints = listen(page)
    await before?.(page)
    await page.route('**/page?*', (route) => route.fulfill({ contentType: 'text/html', body: this.#html }))
    await page.goto(`${this.broker.url}/page?name=${name}`)
    await page.locator('.tidings-connection[data-state="connected"]').waitFor()
    return { page, complaints }
  }

  /** A broker that was killed comes back with its data, at its address. */
  async startAgain(): Promise<void> {
    this.broker = await startBroker({ data: this.broker.data, port: this.broker.port })
  }

  async close(): Promise<void> {
    await this.browser.close()
    await stopBrokers()
  }
}
