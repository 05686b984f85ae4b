// A screen of @xterm/xterm: drawn from what a terminal keeps, as fast as it can draw and no faster.

import type { ITerminalOptions, Terminal as Xterm } from '@xterm/xterm'
import type { TerminalOutput } from '../helpers/index.js'

/** The width that the scrollbar of xterm takes. */
const SCROLLBAR = 14

/** What a screen is made with. */
export interface ScreenOptions {
  screenReader: boolean
  scrollback: number
  onInput: ((text: string) => void) | undefined
}

/** One screen in one element. */
export class Screen {
  #xterm: Xterm
  #host: HTMLElement
  #observer: ResizeObserver
  #position = 0
  #drawing = false
  #read: ((position: number) => TerminalOutput) | undefined

  constructor(Terminal: new (options: ITerminalOptions) => Xterm, host: HTMLElement, options: ScreenOptions) {
    const { color, backgroundColor, fontSize } = getComputedStyle(host)
    this.#host = host
    this.#xterm = new Terminal({
      // What comes through a pipe ends lines by `\n` alone.
      convertEol: true,
      disableStdin: options.onInput === undefined,
      fontSize: Number.parseFloat(fontSize) || 14,
      // Programs choose colours for a background that they do not know.
      minimumContrastRatio: 4.5,
      screenReaderMode: options.screenReader,
      scrollback: options.scrollback,
      theme: { background: backgroundColor, foreground: color, cursor: color },
    })
    const { onInput } = options
    if (onInput) this.#xterm.onData(onInput)
    // xterm takes Tab for its program. Who only reads goes on with it; who types leaves by Shift and Tab.
    this.#xterm.attachCustomKeyEventHandler(
      ({ key, shiftKey }) => key !== 'Tab' || (onInput !== undefined && !shiftKey),
    )
    this.#xterm.open(host)
    this.#observer = new ResizeObserver(() => this.#fit())
    this.#observer.observe(host)
    this.#fit()
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
    this.#xterm.dispose()
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
