// A screen of @xterm/xterm: drawn from what a terminal keeps, as fast as it can draw and no faster.

import type { ITerminalOptions, ITheme, Terminal as Xterm } from '@xterm/xterm'
import type { TerminalOutput } from '../helpers/index.js'
import { legible } from './palette.js'

/** The width that the scrollbar of xterm takes. */
const SCROLLBAR = 14

/** What a screen is made with. */
export interface ScreenOptions {
  screenReader: boolean
  scrollback: number
  /** What a Content-Security-Policy wants of style elements. */
  nonce: string | undefined
  onInput: ((text: string) => void) | undefined
}

/** One screen in one element. */
export class Screen {
  #xterm: Xterm
  #host: HTMLElement
  #frame = document.createElement('div')
  #strict: boolean
  #observer: ResizeObserver
  /** Says when the page becomes dark or light. */
  #scheme = globalThis.matchMedia?.('(prefers-color-scheme: dark)')
  #position = 0
  #drawing = false
  #read: ((position: number) => TerminalOutput) | undefined

  constructor(Terminal: new (options: ITerminalOptions) => Xterm, host: HTMLElement, options: ScreenOptions) {
    const size = Number.parseFloat(getComputedStyle(host).fontSize) || 14
    this.#host = host
    this.#strict = options.nonce !== undefined
    this.#xterm = new Terminal({
      // What comes through a pipe ends lines by `\n` alone.
      convertEol: true,
      disableStdin: options.onInput === undefined,
      // Another one at first: see `#open`.
      fontSize: size + 1,
      // It tells the page's console of bytes that are no sequence of a terminal: those who wrote them are elsewhere.
      logLevel: 'off',
      // Programs choose colours for a background that they do not know. A colour that xterm changes by itself is a style
      // attribute, which no nonce allows: there the sixteen that have names are changed before.
      minimumContrastRatio: this.#strict ? 1 : 4.5,
      screenReaderMode: options.screenReader,
      scrollback: options.scrollback,
      theme: this.#theme(),
    })
    const { onInput } = options
    if (onInput) this.#xterm.onData(onInput)
    // xterm takes Tab for its program. Who only reads goes on with it; who types leaves by Shift and Tab.
    this.#xterm.attachCustomKeyEventHandler(
      ({ key, shiftKey }) => key !== 'Tab' || (onInput !== undefined && !shiftKey),
    )
    this.#open(options.nonce)
    this.#xterm.options.fontSize = size
    this.#observer = new ResizeObserver(() => this.#fit())
    this.#observer.observe(host)
    this.#fit()
    this.#scheme?.addEventListener('change', this.#recolor)
  }

  /** Draws what it has not drawn, and what comes meanwhile. */
  draw(read: (position: number) => TerminalOutput): void {
    if (read !== this.#read) {
      this.#read = read
      if (this.#position > 0) this.#xterm.reset()
      this.#position = 0
    }
    this.#next()
  }

  dispose(): void {
    this.#read = undefined
    this.#observer.disconnect()
    this.#scheme?.removeEventListener('change', this.#recolor)
    this.#xterm.dispose()
    this.#frame.remove()
  }

  /** The colours of the page. */
  #theme(): ITheme {
    const { color, backgroundColor } = getComputedStyle(this.#host)
    const own = this.#strict ? legible(backgroundColor) : {}
    return { ...own, background: backgroundColor, foreground: color, cursor: color }
  }

  #recolor = (): void => {
    this.#xterm.options.theme = this.#theme()
  }

  /**
   * xterm makes its style elements when it is opened, and has no option for their nonce. So it is opened beside the page,
   * where no policy looks at them, and comes in with the nonce. There it cannot measure letters: it does so when the size
   * of its font becomes another one.
   */
  #open(nonce: string | undefined): void {
    this.#frame.style.height = '100%'
    this.#xterm.open(this.#frame)
    if (nonce !== undefined) for (const style of this.#frame.querySelectorAll('style')) style.nonce = nonce
    this.#host.append(this.#frame)
  }

  /** Reads on when the last piece is on the screen: what waits, waits where it is bounded. */
  #next = (): void => {
    if (this.#drawing || this.#read === undefined) return
    const { text, position, reset } = this.#read(this.#position)
    if (reset && this.#position > 0) this.#xterm.reset()
    this.#position = position
    if (text === '') return
    this.#drawing = true
    this.#xterm.write(text, () => {
      this.#drawing = false
      this.#next()
    })
  }

  /** As many columns and rows as there is room for. */
  #fit(): void {
    const { cols, rows } = this.#xterm
    const screen = this.#host.querySelector('.xterm-screen')?.getBoundingClientRect()
    if (!screen || screen.width === 0 || screen.height === 0) return
    const { clientWidth, clientHeight } = this.#host
    const columns = Math.max(2, Math.floor((clientWidth - SCROLLBAR) / (screen.width / cols)))
    const lines = Math.max(1, Math.floor(clientHeight / (screen.height / rows)))
    if (columns !== cols || lines !== rows) this.#xterm.resize(columns, lines)
  }
}
